"""Semantic search in PostgreSQL: exact among few vectors, by the HNSW index among many."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from pgvector import HalfVector

from app.models import MAX_PIECES, Match, MemoryKey, Piece, QueryWords, Scope, Vector
from app.store.postgresql.queries import fetch
from app.store.postgresql.reads import Reads
from app.store.postgresql.vector_index import HnswIndex
from app.store.postgresql.words import excluded, required, words_of_required

MORE_VECTORS = 30
"""Of the index, besides three for two memories wanted (some are pieces of one memory): its order is rough."""

SCORE = itemgetter("score")


class PostgresVectors:
    """Finds the memories whose best vector is nearest."""

    def __init__(self, reads: Reads, queries: Any, index: HnswIndex, exact_limit: int) -> None:
        """Scopes of up to `exact_limit` vectors are compared one by one."""
        self._reads = reads
        self._queries = queries
        self._index = index
        self._exact_limit = exact_limit

    async def search(self, scope: Scope, vector: Vector, model: str, limit: int, words: QueryWords) -> list[Match]:
        """See MemoryStore.search_vectors. A page is as full as the scope allows, whatever the index finds."""
        depth = limit + limit // 2

        async def read(connection: Any) -> list[Match]:
            if self._index.is_ready(model) and await self._are_many(connection, scope, model, words):
                rows = await self._index.search(connection, scope, vector, model, depth + MORE_VECTORS, words)
                matches = best_of_each(rows, limit)
                if len(matches) == limit:
                    return matches
                await connection.execute("ROLLBACK")  # and with it the settings for the index
            rows = await self._search_exactly(connection, scope, vector, model, depth, words)
            matches = best_of_each(rows, limit)
            if len(matches) < limit and len(rows) == depth:
                rows = await self._search_exactly(connection, scope, vector, model, limit * (MAX_PIECES + 1), words)
                matches = best_of_each(rows, limit)
            return matches

        return await self._reads.run(read)

    async def _are_many(self, connection: Any, scope: Scope, model: str, words: QueryWords) -> bool:
        """Whether the scope holds more than can be compared one by one; counts no further.

        Excluded words leave most of it, and to see to them or to the order of a phrase would cost more than the count.
        """
        if scope == Scope() and not words.required:
            return True
        limit = self._exact_limit + 1
        if scope == Scope(projects=scope.projects) and not words.required:
            row = await self._queries.count_vectors(connection, projects=scope.projects, model=model, limit=limit)
        else:
            given = {**scope.fields(), "required": words_of_required(words), "limit": limit}
            row = await self._queries.count_candidates(connection, **given)
        return bool(row["candidates"] == limit)

    async def _search_exactly(
        self, connection: Any, scope: Scope, vector: Vector, model: str, depth: int, words: QueryWords
    ) -> list[Any]:
        given = {"vector": HalfVector(vector), "model": model, "depth": depth}
        if scope == Scope(projects=scope.projects) and not (words.required or words.excluded):
            return await fetch(connection, self._queries.search_vectors, projects=scope.projects, **given)
        demands = {"required": required(words), "excluded": excluded(words)}
        return await fetch(connection, self._queries.search_vectors_filtered, **scope.fields(), **demands, **given)


def best_of_each(rows: Sequence[Any], limit: int) -> list[Match]:
    """One match for each memory, with its nearest piece, best first, and no more than so many."""
    matches: dict[MemoryKey, Match] = {}
    for project, memory_id, first_line, last_line, score in sorted(rows, key=SCORE, reverse=True):
        key = MemoryKey(project, memory_id)
        if key not in matches:
            matches[key] = Match(key, score, None if first_line is None else Piece(first_line, last_line))
            if len(matches) == limit:
                break
    return list(matches.values())
