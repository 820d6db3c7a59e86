"""Semantic search in PostgreSQL: exact among few vectors, by the HNSW index among many."""

from collections.abc import Awaitable, Callable, Sequence
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

from pgvector import HalfVector

from app.models import MAX_PIECES, Best, Match, MemoryKey, QueryWords, Scope, Vector
from app.store.postgresql.queries import Statement, distinct_found
from app.store.postgresql.reads import Reads
from app.store.postgresql.rows import best_from, piece_from
from app.store.postgresql.vector_index import HnswIndex
from app.store.postgresql.words import excluded, required, words_of_required

MORE_VECTORS = 30
"""Of the index, besides three for two memories wanted (some are pieces of one memory): its order is rough."""

SCORE = itemgetter("score")

T = TypeVar("T")


class _Told(NamedTuple, Generic[T]):
    """What comes of a statement, and how many memories that are, in how many rows."""

    found: T
    memories: int
    rows: int


class PostgresVectors:
    """Finds the memories whose best vector is nearest."""

    def __init__(self, reads: Reads, queries: Any, index: HnswIndex, exact_limit: int) -> None:
        """Scopes of up to `exact_limit` vectors are compared one by one."""
        self._reads = reads
        self._queries = queries
        self._index = index
        self._exact_limit = exact_limit

    async def search(self, scope: Scope, vector: Vector, model: str, limit: int, words: QueryWords) -> list[Match]:
        """See MemoryStore.search_vectors."""

        async def ask(connection: Any, statement: Statement) -> _Told[list[Match]]:
            rows = await statement.fetch(connection)
            matches = best_of_each(rows, limit)
            return _Told(matches, len(matches), len(rows))

        return await self._asked(ask, scope, vector, model, limit, words)

    async def best(
        self, scope: Scope, vector: Vector, model: str, limit: int, candidates: int, words: QueryWords
    ) -> Best:
        """See MemoryStore.best_by_vectors."""

        async def ask(connection: Any, statement: Statement) -> _Told[Best]:
            rows = await distinct_found(self._queries, statement, scope, candidates, limit).fetch(connection)
            best = best_from(rows)
            return _Told(best, best.matches, rows[0]["found"] if rows else 0)

        return await self._asked(ask, scope, vector, model, candidates, words)

    async def _asked(
        self,
        ask: Callable[[Any, Statement], Awaitable[_Told[T]]],
        scope: Scope,
        vector: Vector,
        model: str,
        limit: int,
        words: QueryWords,
    ) -> T:
        """What is told of the nearest memories, of so many if the scope has them: a page is as full as it allows."""
        depth = limit + limit // 2
        # Without filters there is one plan for the few; of many the planner must know how many are wanted.
        kept = _is_all(scope) and not (words.required or words.excluded) and self._index.is_small(model)

        async def read(connection: Any) -> T:
            if self._index.is_ready(model) and await self._are_many(connection, scope, model, words):
                near = await self._index.begin(connection, scope, vector, model, depth + MORE_VECTORS, words)
                answer = await ask(connection, near)
                if answer.memories == limit:
                    return answer.found
                await connection.execute("ROLLBACK")  # and with it the settings for the index
            await connection.keep_plans(kept)
            answer = await ask(connection, self._exact(scope, vector, model, depth, words))
            if answer.memories < limit and answer.rows == depth:
                answer = await ask(connection, self._exact(scope, vector, model, limit * (MAX_PIECES + 1), words))
            return answer.found

        return await self._reads.run(read, keep_plans=None)

    async def _are_many(self, connection: Any, scope: Scope, model: str, words: QueryWords) -> bool:
        """Whether the scope holds more than can be compared one by one; counts no further, planning for these filters.

        Excluded words leave most of it, and to see to them or to the order of a phrase would cost more than the count.
        """
        if _is_all(scope) and not words.required:
            return True
        await connection.keep_plans(False)
        limit = self._exact_limit + 1
        if scope.is_of_whole_projects and not words.required:
            row = await self._queries.count_vectors(connection, projects=scope.projects, model=model, limit=limit)
        else:
            given = {**scope.fields(), "required": words_of_required(words), "limit": limit}
            row = await self._queries.count_candidates(connection, **given)
        return bool(row["candidates"] == limit)

    def _exact(self, scope: Scope, vector: Vector, model: str, depth: int, words: QueryWords) -> Statement:
        given = {"vector": HalfVector(vector), "model": model, "depth": depth}
        if scope.is_of_whole_projects and not (words.required or words.excluded):
            return Statement.of(self._queries.search_vectors, projects=scope.projects, **given)
        demands = {"required": required(words), "excluded": excluded(words)}
        return Statement.of(self._queries.search_vectors_filtered, **scope.fields(), **demands, **given)


def _is_all(scope: Scope) -> bool:
    return scope.projects is None and scope.is_of_whole_projects


def best_of_each(rows: Sequence[Any], limit: int) -> list[Match]:
    """One match for each memory, with its nearest piece, best first, and no more than so many."""
    matches: dict[MemoryKey, Match] = {}
    for project, memory_id, first_line, last_line, score in sorted(rows, key=SCORE, reverse=True):
        key = MemoryKey(project, memory_id)
        if key not in matches:
            matches[key] = Match(key, score, piece_from(first_line, last_line))
            if len(matches) == limit:
                break
    return list(matches.values())
