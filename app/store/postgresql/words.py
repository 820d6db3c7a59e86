"""Text search in PostgreSQL, which knows how often a word is in a memory, and not how many memories it is in."""

from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any

from app.models import Match, MemoryKey, QueryWords, Scope, Words
from app.store.postgresql.connections import Connections
from app.store.postgresql.pool_connection import PLAN_EACH_TIME
from app.store.postgresql.queries import fetch
from app.store.postgresql.reads import Reads
from app.store.word_plan import WordCounts, WordPlan, distinct_words, plan_words

MAX_POSITION = 16383
"""PostgreSQL's limit for a position in a tsvector."""

PLACES = {weight: [f"{at}{weight.strip('D')}" for at in range(1, MAX_POSITION + 1)] for weight in "ABCD"}
"""How a position stands in the text of a tsvector, where no letter means D; made once, for an import makes millions."""

WEIGHTS = [0.6, 0.6, 0.6, 1.0]
"""What a word counts for in code, path and context, as a whole identifier, and in a name (classes D, C, B, A)."""

CANDIDATES = 500
"""Memories that are ranked, about; the rank costs more than the match. Of those with common words any are taken."""

MAX_CANDIDATES = 1000
"""Memories with a rare word that are ranked at most."""

MAX_BYTES = 1024 * 1024
"""Of words, as they are stored, that are ranked at most; those of 1,000 functions take some 300 kB."""

HALF_SCORE = 0.365
"""What a memory of average length scores that holds every word once, which counts as 0.5 on the scale from 0 to 1."""

# The planner takes words that it does not know for common ones, and a scan that unpacks every row for cheap.
BEGIN = (
    "BEGIN READ ONLY; SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off; "
    f"SET LOCAL plan_cache_mode = {PLAN_EACH_TIME}"
)

MERGE_LOCK = 0x61667465776F7264
"""Key of the advisory lock under which words are merged: "afteword"."""

MAX_COUNTED = 50_000
"""Memories of a project whose words are counted; of more, a part that stands for all."""


class PostgresWords:
    """The text search, and the document frequencies that its rank needs."""

    def __init__(self, connections: Connections, reads: Reads, queries: Any) -> None:
        self._connections = connections
        self._reads = reads
        self._queries = queries

    async def search(self, scope: Scope, query: QueryWords, limit: int) -> list[Match]:
        """See MemoryStore.search_words."""

        async def read(connection: Any) -> list[Any]:
            await connection.execute(BEGIN)  # it ends as the connection is given back
            return await self._ranked(connection, scope, query, limit)

        matches: dict[MemoryKey, Match] = {}
        for project, memory_id, strength in await self._reads.run(read, keep_plans=None):
            key = MemoryKey(project, memory_id)
            if key not in matches:
                matches[key] = Match(key, strength / (strength + HALF_SCORE))
                if len(matches) == limit:
                    break
        return list(matches.values())

    async def _ranked(self, connection: Any, scope: Scope, query: QueryWords, limit: int) -> list[Any]:
        """Rows of the best memories, best first; one may come twice."""
        plan = plan_words(query, await self._counts(connection, scope.projects, query), CANDIDATES, MAX_CANDIDATES)
        return await fetch(
            connection,
            self._queries.search_words,
            **scope.fields(),
            rare=_demanding(query, _any(plan.rare)),
            together=_demanding(query, "" if query.required else _all(plan.together)),
            common=_common(query, plan),
            words=[f"'{word}'" for word in plan.words],
            idfs=_shares(plan),
            mean_length=plan.mean_length,
            weights=WEIGHTS,
            limit_rare=MAX_CANDIDATES,
            limit_common=CANDIDATES,
            limit_bytes=MAX_BYTES,
            limit=2 * limit,
        )

    async def refresh(self) -> int:
        """See MemoryStore.refresh_frequencies."""
        async with self._connections.acquire() as connection:
            stale = [row async for row in self._queries.stale_frequencies(connection)]
        for row in stale:
            await self._refresh_project(row["project"], row["memories"], row["counted"])
        return len(stale)

    async def merge(self) -> int:
        """See MemoryStore.merge_words."""
        async with self._connections.acquire() as connection:
            return sum([row["pages"] async for row in self._queries.merge_words(connection, lock=MERGE_LOCK)])

    async def _refresh_project(self, project: str, memories: int, counted: int) -> None:
        every = -(-memories // MAX_COUNTED) or 1
        async with self._connections.transaction() as connection:
            claimed = self._queries.claim_frequencies(connection, project=project, memories=memories, counted=counted)
            if [row async for row in claimed]:
                await self._queries.delete_frequencies(connection, project=project)
                await self._queries.count_frequencies(connection, project=project, every=every)
                await self._queries.save_total(connection, project=project)

    async def _counts(self, connection: Any, projects: Sequence[str] | None, query: QueryWords) -> WordCounts:
        words = distinct_words(query)
        rows = await fetch(connection, self._queries.word_frequencies, projects=projects, words=words)
        return WordCounts(
            memories=rows[0]["memories"],
            mean_length=rows[0]["total"] / rows[0]["memories"] if rows[0]["total"] else 0.0,
            frequencies={row["word"]: row["ndoc"] for row in rows},
        )


def tsvector(words: Words) -> str:
    """The words as text of a tsvector; they hold no quotes. Columns lie apart, so that no phrase spans two of them."""
    places: dict[str, str] = {}
    known = places.get
    end = 0
    for weight, column in (
        ("C", words.path),
        ("A", words.names),
        ("C", words.context),
        ("D", words.code),
        ("B", words.identifiers),
    ):
        places_from = PLACES[weight][end : end + len(column)]
        for word, place in zip(column, chain(places_from, repeat(PLACES[weight][-1])), strict=False):
            before = known(word)
            places[word] = place if before is None else f"{before},{place}"
        end += len(column) + 1
    return " ".join([f"'{word}':{at}" for word, at in places.items()])


def _shares(plan: WordPlan) -> list[float]:
    return [idf / plan.total_idf for idf in plan.idfs]


def _common(query: QueryWords, plan: WordPlan) -> str | None:
    """What the query requires finds candidates by itself, and is looked for once: that may unpack many words."""
    if query.required:
        return _demanding(query, required(query))
    return _demanding(query, _any([plan.common] if plan.common and len(plan.together) > 1 else []))


def _any(words: Sequence[str]) -> str:
    return " | ".join(f"'{word}'" for word in words)


def _all(words: Sequence[str]) -> str:
    return " & ".join(f"'{word}'" for word in words)


def required(query: QueryWords) -> str | None:
    """A tsquery for what a memory must hold; None where that is nothing."""
    return " & ".join("(" + " <-> ".join(f"'{word}'" for word in phrase) + ")" for phrase in query.required) or None


def words_of_required(query: QueryWords) -> str | None:
    """The same in any order, which the index knows without looking at the memories."""
    return _all([word for phrase in query.required for word in phrase]) or None


def excluded(query: QueryWords) -> str | None:
    """A tsquery for what a memory must not hold; None where that is nothing."""
    return _any(query.excluded) or None


def _demanding(query: QueryWords, candidates: str | None) -> str | None:
    """A tsquery for candidates that hold what the query demands; None where there are no candidates."""
    if not candidates:
        return None
    demands = dict.fromkeys([candidates, required(query), f"!({excluded(query)})" if query.excluded else None])
    return " & ".join(f"({demand})" for demand in demands if demand)
