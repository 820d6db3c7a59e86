"""Finds memories by words, by meaning, or by both."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from app.embedding.embedder import query_text
from app.embedding_models import EmbeddingModels
from app.excerpts import excerpts_of
from app.models import Distinct, Explanation, Hit, Match, QueryWords, Scope
from app.ranking import Ranked, Weights, distinction, fuse, fuse_ranks, rank_vectors, rank_words
from app.store.protocol import MemoryStore
from app.tokens import identifier_of, is_code, query_words

CANDIDATES = 200
"""Matches that each arm of a hybrid search gives; at least the limit."""

CANDIDATES_ALONE = 30
"""Matches that an arm gives which is asked alone; at least twice the limit, for some have the same code."""

MAX_CANDIDATES = 1000
"""The same where most of those have the same code, and there are fewer hits than asked for."""


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

    def __init__(self, store: MemoryStore, models: EmbeddingModels, weights: Weights, fusion: Fusion) -> None:
        self._store = store
        self._models = models
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
        words) holds in every mode.
        """
        words = query_words(query, match_all=match_all)
        usual = max(limit, CANDIDATES) if mode is SearchMode.HYBRID else max(2 * limit, CANDIDATES_ALONE)
        for depth in (usual, MAX_CANDIDATES):
            found, meaning = await self._arms(mode, scope, query, words, depth)
            weights = self._weights_for(mode, query, found)
            ranked = self._ranked(mode, found, meaning, weights, depth)
            chosen = [place for place in ranked if place.score >= threshold]
            best = await self._distinct(scope, chosen, limit)
            if len(best) == limit or len(chosen) < len(ranked) or max(len(found), len(meaning)) < depth:
                break
        pieces = {match.key: match.piece for match in meaning if match.piece}
        hits = [
            (one.memory.new_code, piece.first_line if (piece := pieces.get(place.key)) else 1) for place, one in best
        ]
        return [
            Hit(
                memory=one.memory,
                score=place.score,
                fts_score=place.fts_score,
                semantic_score=place.semantic_score,
                fts_rank=place.fts_rank,
                semantic_rank=place.semantic_rank,
                piece=pieces.get(place.key),
                copies=one.copies,
                last_timestamp=one.last_timestamp,
                excerpt=excerpt,
                explanation=_explain(place, weights, words) if explain else None,
            )
            for (place, one), excerpt in zip(best, excerpts_of(hits, words), strict=True)
        ]

    def _weights_for(self, mode: SearchMode, query: str, found: Sequence[Match]) -> Weights:
        match mode:
            case SearchMode.FTS:
                return Weights(fts=1, semantic=0)
            case SearchMode.SEMANTIC:
                return Weights(fts=0, semantic=1)
            case SearchMode.HYBRID:
                literal = identifier_of(query) is not None or is_code(query)
                return self._weights.towards_words(1.0 if literal else distinction(found))

    async def _arms(
        self, mode: SearchMode, scope: Scope, query: str, words: QueryWords, depth: int
    ) -> tuple[Sequence[Match], Sequence[Match]]:
        """What the words find, and what the meaning finds; one that is not asked finds nothing."""
        if mode is SearchMode.FTS:
            return await self._search_words(scope, words, depth), []
        if mode is SearchMode.SEMANTIC:
            return [], await self._search_meaning(scope, query, words, depth, at_once=True)
        return await asyncio.gather(
            self._search_words(scope, words, depth), self._search_meaning(scope, query, words, depth)
        )

    def _ranked(
        self, mode: SearchMode, found: Sequence[Match], meaning: Sequence[Match], weights: Weights, depth: int
    ) -> Sequence[Ranked]:
        if mode is SearchMode.FTS:
            return rank_words(found)
        if mode is SearchMode.SEMANTIC:
            return rank_vectors(meaning)
        if self._fusion is Fusion.RRF:
            return fuse_ranks(found, meaning, weights)
        return fuse(found, meaning, weights, depth)

    async def _distinct(self, scope: Scope, places: Sequence[Ranked], limit: int) -> list[tuple[Ranked, Distinct]]:
        """The best of each code, newer first among equals; looked up in parts until there are enough."""
        by_code: dict[int, tuple[Ranked, Distinct]] = {}
        size = 2 * limit
        for at in range(0, len(places), size):
            part = {place.key: place for place in places[at : at + size]}
            scores = {key: place.score for key, place in part.items()}
            better = [code for code, (place, _) in by_code.items() if place.score > places[at].score]
            for one in await self._store.distinct(scope, scores, limit, better):
                found = (part[one.memory.key], one)
                by_code[one.code_hash] = max(by_code.get(one.code_hash, found), found, key=_by_score_and_time)
            if len(by_code) >= limit:
                break
        return sorted(by_code.values(), key=_by_score_and_time, reverse=True)[:limit]

    async def _search_words(self, scope: Scope, words: QueryWords, limit: int) -> Sequence[Match]:
        return await self._store.search_words(scope, words, limit) if words else []

    async def _search_meaning(
        self, scope: Scope, query: str, words: QueryWords, limit: int, *, at_once: bool = False
    ) -> Sequence[Match]:
        vector, model = await self._models.query_vector(query_text(query), scope.projects, at_once=at_once)
        return await self._store.search_vectors(scope, vector, model, limit, words)


def _by_score_and_time(found: tuple[Ranked, Distinct]) -> tuple[float, datetime]:
    place, one = found
    return place.score, one.memory.timestamp


def _explain(place: Ranked, weights: Weights, words: QueryWords) -> Explanation:
    return Explanation(
        fts_weight=weights.share,
        semantic_weight=1 - weights.share,
        fts_part=place.fts_part,
        semantic_part=place.semantic_part,
        words=[*words.words, *words.identifiers],
    )
