"""Finds memories by words, by meaning, or by both."""

import asyncio
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from app.embedding.embedder import query_text
from app.embedding_models import EmbeddingModels
from app.excerpts import excerpt_of
from app.models import Distinct, Explanation, Hit, Match, MemoryKey, Piece, QueryWords, Scope, Vector
from app.ranking import Ranked, Weights, distinction, fuse, fuse_ranks, ranked_by_meaning, ranked_by_words
from app.store.distinct import best_of, by_score_and_time, distinct_places
from app.store.protocol import MemoryStore
from app.tokens import identifier_of, is_code, query_words
from app.word_places import WordPlaces

CANDIDATES = 200
"""Matches that each arm of a hybrid search gives; at least the limit."""

CANDIDATES_ALONE = 30
"""Matches that an arm gives which is asked alone; at least twice the limit, for some have the same code."""

MAX_CANDIDATES = 1000
"""The same where most of those have the same code, and there are fewer hits than asked for."""

PREPARE_AFTER_SECONDS = 0.002
"""The longest statement of a search in PostgreSQL is under way by then."""


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
        asked = _Asked(query, words)
        usual = max(limit, CANDIDATES) if mode is SearchMode.HYBRID else max(2 * limit, CANDIDATES_ALONE)
        try:
            for depth in (usual, MAX_CANDIDATES):
                if mode is SearchMode.HYBRID:
                    answer = await self._both(scope, asked, limit, threshold, depth)
                else:
                    answer = await self._alone(mode, scope, asked, limit, threshold, depth)
                if len(answer.best) == limit or not answer.more:
                    break
        finally:
            asked.end()
        pieces = answer.pieces
        return [
            Hit(
                memory=one.memory,
                score=place.score,
                fts_score=place.fts_score,
                semantic_score=place.semantic_score,
                fts_rank=place.fts_rank,
                semantic_rank=place.semantic_rank,
                piece=piece,
                copies=one.copies,
                last_timestamp=one.last_timestamp,
                excerpt=excerpt_of(one.memory.new_code, piece.first_line if piece else 1, asked.places),
                explanation=_explain(place, answer.weights, words) if explain else None,
            )
            for place, one in answer.best
            for piece in [pieces.get(place.key)]
        ]

    async def _alone(
        self, mode: SearchMode, scope: Scope, asked: "_Asked", limit: int, threshold: float, depth: int
    ) -> "_Answer":
        """One arm. Of what points away from the query, and so scores 0, the newest comes first."""
        if mode is SearchMode.SEMANTIC:
            vector, model = await self._query_vector(asked.query, scope, at_once=True)
            asked.prepare_soon()
            best = await self._store.best_by_vectors(scope, vector, model, limit, depth, asked.words)
            ranked, weights = ranked_by_meaning, Weights(fts=0, semantic=1)
        else:
            asked.prepare_soon()
            matched = await self._search_words(scope, asked.words, depth)
            matches = [match for match in matched if match.score >= threshold]
            best = await best_of(self._store, scope, matches, limit)
            ranked, weights = ranked_by_words, Weights(fts=1, semantic=0)
        places = [(ranked(match, rank), distinct) for match, rank, distinct in best.found]
        chosen = [found for found in places if found[0].score >= threshold]
        chosen.sort(key=by_score_and_time, reverse=True)
        pieces = {match.key: match.piece for match, _, _ in best.found}
        return _Answer(chosen, pieces, weights, more=len(chosen) == len(places) and best.matches == depth)

    async def _both(self, scope: Scope, asked: "_Asked", limit: int, threshold: float, depth: int) -> "_Answer":
        """Both arms, fused."""
        asked.prepare_soon()
        found, meaning = await asyncio.gather(
            self._search_words(scope, asked.words, depth), self._search_meaning(scope, asked, depth)
        )
        literal = identifier_of(asked.query) is not None or is_code(asked.query)
        weights = self._weights.towards_words(1.0 if literal else distinction(found))
        rrf = self._fusion is Fusion.RRF
        ranked = fuse_ranks(found, meaning, weights) if rrf else fuse(found, meaning, weights, depth)
        chosen = [place for place in ranked if place.score >= threshold]
        best = await distinct_places(self._store, scope, chosen, limit)
        pieces = {match.key: match.piece for match in meaning}
        more = len(chosen) == len(ranked) and max(len(found), len(meaning)) >= depth
        return _Answer(best, pieces, weights, more)

    async def _search_words(self, scope: Scope, words: QueryWords, limit: int) -> Sequence[Match]:
        return await self._store.search_words(scope, words, limit) if words else []

    async def _search_meaning(self, scope: Scope, asked: "_Asked", limit: int) -> Sequence[Match]:
        vector, model = await self._query_vector(asked.query, scope)
        return await self._store.search_vectors(scope, vector, model, limit, asked.words)

    async def _query_vector(self, query: str, scope: Scope, *, at_once: bool = False) -> tuple[Vector, str]:
        return await self._models.query_vector(query_text(query), scope.projects, at_once=at_once)


class _Asked:
    """A query, its words, and what finds these in the hits."""

    __slots__ = ("_preparing", "places", "query", "words")

    def __init__(self, query: str, words: QueryWords) -> None:
        self.query = query
        self.words = words
        self.places = WordPlaces(words)
        self._preparing: asyncio.TimerHandle | None = None

    def prepare_soon(self) -> None:
        """Marks the words in the query itself while this search waits for the database, as it mostly does.

        By the time the hits are there, the matcher is built and the words of the query are looked up.
        """
        if self._preparing is None:
            loop = asyncio.get_running_loop()
            self._preparing = loop.call_later(PREPARE_AFTER_SECONDS, excerpt_of, self.query, 1, self.places)

    def end(self) -> None:
        """Prepares nothing any more."""
        if self._preparing is not None:
            self._preparing.cancel()


class _Answer(NamedTuple):
    """The best of each code, the pieces that matched, and whether there may be more than were looked for."""

    best: Sequence[tuple[Ranked, Distinct]]
    pieces: Mapping[MemoryKey, Piece | None]
    weights: Weights
    more: bool


def _explain(place: Ranked, weights: Weights, words: QueryWords) -> Explanation:
    return Explanation(
        fts_weight=weights.share,
        semantic_weight=1 - weights.share,
        fts_part=place.fts_part,
        semantic_part=place.semantic_part,
        words=[*words.words, *words.identifiers],
    )
