"""Text search in SQLite, whose FTS5 counts words itself and ranks by bm25."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from app.models import Match, MemoryKey, QueryWords, Scope
from app.store.sqlite.values import scope_values
from app.store.word_plan import WordCounts, WordPlan, distinct_words, plan_words

CANDIDATES = 5000
"""Memories that are matched and ranked, about; words that are in more count only where there are no rarer ones."""

HALF_SCORE = 0.9
"""The share of the query's information that a memory of average length has which holds every word once: scores 0.5."""


def search_words(
    connection: sqlite3.Connection, queries: Any, scope: Scope, query: QueryWords, limit: int
) -> list[Match]:
    """See MemoryStore.search_words."""
    words = json.dumps(distinct_words(query))
    rows = queries.word_frequencies(connection, words=words)
    counts = WordCounts(rows[0]["memories"], 0.0, {row["word"]: row["ndoc"] for row in rows})
    plan = plan_words(query, counts, CANDIDATES, CANDIDATES)
    found = queries.search_words(connection, **scope_values(scope), query=fts_query(query, plan), limit=limit)
    return [Match(MemoryKey(row["project"], UUID(row["id"])), _score(-row["score"], plan.total_idf)) for row in found]


def fts_query(query: QueryWords, plan: WordPlan) -> str:
    """The candidates of a plan that hold what the query demands, in FTS5's language; words hold no quotes."""
    text = f"({_any([*plan.rare, *([plan.common] if plan.common else [])])})"
    if query.required:
        text += f" AND {required(query)}"
    return text + "".join(f' NOT "{word}"' for word in query.excluded)


def required(query: QueryWords) -> str | None:
    """What a memory must hold; None where that is nothing."""
    return " AND ".join(f'"{" ".join(phrase)}"' for phrase in query.required) or None


def excluded(query: QueryWords) -> str | None:
    """What a memory must not hold; None where that is nothing."""
    return _any(query.excluded) or None


def _any(words: Sequence[str]) -> str:
    return " OR ".join(f'"{word}"' for word in words)


def _score(bm25: float, total_idf: float) -> float:
    strength = max(bm25, 0.0) / total_idf
    return strength / (strength + HALF_SCORE)
