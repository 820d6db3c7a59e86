"""Finds memories by words, by meaning, or by both."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from app.embedding.embedder import query_text
from app.embedding.worker import EmbeddingWorker, Priority
from app.excerpts import excerpt_of
from app.models import Explanation, Hit, Match, Memory, QueryWords, Scope
from app.ranking import Ranked, Weights, fuse, fuse_ranks, rank_vectors, rank_words
from app.store.protocol import MemoryStore
from app.tokens import identifier_of, query_words

CANDIDATES = 200
"""Matches that each arm of a hybrid search gives to the fusion; at least the limit."""


class SearchMode(StrEnum):
    """How to search."""

    FTS = "fts"
    SEMANTIC = "semantic"
    HYBRID = "hybrid"


class Fusion(StrEnum):
    """How a hybrid search makes one order of two."""

    CONVEX = "convex"
    RRF = "rrf"


class Searches:
    """The service behind the routes of searches."""

    def __init__(self, store: MemoryStore, worker: EmbeddingWorker, weights: Weights, fusion: Fusion) -> None:
        self._store = store
        self._worker = worker
        self._weights = weights
        self._fusion = fusion

    async def search(
        self,
        mode: SearchMode,
        query: str,
        scope: Scope,
        limit: int,
        threshold: float,
        *,
        match_all: bool = False,
        explain: bool = False,
    ) -> list[Hit]:
        """The best memories in the scope, best first; newer first among equals. Any text is a valid query.

        Memories with the same code are one hit. What the query demands of the words (phrases, excluded words, all
        words) holds in a text and in a hybrid search.
        """
        words = query_words(query, match_all=match_all)
        weights = self._weights if identifier_of(query) is None else self._weights.swapped()
        depth = max(limit, CANDIDATES)
        meaning: Sequence[Match] = []
        if mode is SearchMode.FTS:
            weights = Weights(fts=1, semantic=0)
            ranked = rank_words(await self._search_words(scope, words, depth))
        elif mode is SearchMode.SEMANTIC:
            weights = Weights(fts=0, semantic=1)
            meaning = await self._search_meaning(scope, query, depth)
            ranked = rank_vectors(meaning)
        else:
            found, meaning = await asyncio.gather(
                self._search_words(scope, words, depth), self._search_meaning(scope, query, depth)
            )
            if words.demands:
                allowed = {match.key for match in found}
                meaning = [match for match in meaning if match.key in allowed]
            if self._fusion is Fusion.RRF:
                ranked = fuse_ranks(found, meaning, weights)
            else:
                ranked = fuse(found, meaning, weights, depth)
        chosen = [place for place in ranked if place.score >= threshold]
        pieces = {match.key: match.piece for match in meaning}
        hits = []
        for copies in await self._distinct(chosen, limit):
            place, memory = copies[0]
            piece = pieces.get(place.key)
            hits.append(
                Hit(
                    memory=memory,
                    score=place.score,
                    fts_score=place.fts_score,
                    semantic_score=place.semantic_score,
                    fts_rank=place.fts_rank,
                    semantic_rank=place.semantic_rank,
                    piece=piece,
                    copies=len(copies),
                    last_timestamp=max(copy.timestamp for _, copy in copies),
                    excerpt=excerpt_of(memory.new_code, words, piece.first_line if piece else 1),
                    explanation=_explain(place, weights, words) if explain else None,
                )
            )
        return hits

    async def _distinct(self, places: Sequence[Ranked], limit: int) -> list[list[tuple[Ranked, Memory]]]:
        """Memories with the same code together, newer first among equals; read in parts until there are enough."""
        by_code: dict[str, list[tuple[Ranked, Memory]]] = {}
        size = 2 * limit
        for at in range(0, len(places), size):
            part = places[at : at + size]
            memories = await self._store.get([place.key for place in part])
            for place in part:
                if place.key in memories:  # else deleted meanwhile
                    memory = memories[place.key]
                    by_code.setdefault(memory.new_code, []).append((place, memory))
            if len(by_code) >= limit:
                break
        for copies in by_code.values():
            copies.sort(key=_by_score_and_time, reverse=True)
        return sorted(by_code.values(), key=lambda copies: _by_score_and_time(copies[0]), reverse=True)[:limit]

    async def _search_words(self, scope: Scope, words: QueryWords, limit: int) -> Sequence[Match]:
        return await self._store.search_words(scope, words, limit) if words else []

    async def _search_meaning(self, scope: Scope, query: str, limit: int) -> Sequence[Match]:
        [vector] = await self._worker.embed([query_text(query)], Priority.QUERY)
        return await self._store.search_vectors(scope, vector, self._worker.model, limit)


def _by_score_and_time(found: tuple[Ranked, Memory]) -> tuple[float, datetime]:
    place, memory = found
    return place.score, memory.timestamp


def _explain(place: Ranked, weights: Weights, words: QueryWords) -> Explanation:
    return Explanation(
        fts_weight=weights.share,
        semantic_weight=1 - weights.share,
        fts_part=place.fts_part,
        semantic_part=place.semantic_part,
        words=[*words.words, *words.identifiers],
    )
