"""Memories in PostgreSQL."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pgvector import HalfVector

from app.models import (
    MAX_WHOLE_CHARACTERS,
    Best,
    Distinct,
    EmbeddingStats,
    Match,
    Memory,
    MemoryKey,
    NewMemory,
    QueryWords,
    Scope,
    Stats,
    Vector,
    Words,
)
from app.store.group_commit import GroupCommit
from app.store.postgresql.connections import Connections
from app.store.postgresql.queries import Statement, distinct_found, fetch, hits_plan_may_be_kept
from app.store.postgresql.reads import Reads
from app.store.postgresql.rows import distinct_from, in_utc, key_arrays, memory_from
from app.store.postgresql.vector_index import HnswIndex
from app.store.postgresql.vectors import PostgresVectors
from app.store.postgresql.words import PostgresWords, tsvector
from app.store.protocol import NO_WORDS, Position

MAX_GROUPS = 4
"""Of single writes, being stored at once where some take long."""

PART_ROWS = 250
"""Rows of one statement; the server stores a part while the next is made ready."""


class PostgresMemories:
    """MemoryStore on PostgreSQL."""

    def __init__(
        self,
        connections: Connections,
        reads: Reads,
        queries: Any,
        vectors: PostgresVectors,
        index: HnswIndex,
    ) -> None:
        self._connections = connections
        self._reads = reads
        self._queries = queries
        self._vectors = vectors
        self._index = index
        self._words = PostgresWords(connections, reads, queries)
        self._singles = GroupCommit(self._add_together, MAX_GROUPS)

    def indexed(self, words: Words) -> str | None:
        """See MemoryStore."""
        return tsvector(words)

    async def add(self, new: Sequence[NewMemory], embed_after: datetime) -> set[MemoryKey]:
        """See MemoryStore."""
        if len(new) == 1:
            return await self._singles.add(new[0], embed_after)
        return await self._add_together(new, len(new) * [embed_after])

    async def _add_together(self, new: Sequence[NewMemory], embed_after: Sequence[datetime]) -> set[MemoryKey]:
        async with self._connections.acquire(keep_plans=True) as connection:
            return await self.add_on(connection, new, embed_after)

    async def add_on(
        self, connection: Any, new: Sequence[NewMemory], embed_after: Sequence[datetime]
    ) -> set[MemoryKey]:
        """As `add`, with a time for each row, within a transaction of the caller's.

        Rows go in by key, so that two batches cannot deadlock.
        """
        if not new:  # asyncpg would wait for an answer
            return set()
        rows = sorted(
            zip(new, embed_after, strict=True), key=lambda timed: (timed[0].memory.project, timed[0].memory.id.int)
        )
        order = self._queries.driver_adapter.maybe_order_params
        parts = [rows[at : at + PART_ROWS] for at in range(0, len(rows), PART_ROWS)]
        values = (order("add_memories", self._columns(part)) for part in parts)
        patience = len(parts) * self._connections.patience_seconds
        stored = await connection.fetchmany(self._queries.add_memories.sql, values, timeout=patience)
        return {MemoryKey(row["project"], row["id"]) for row in stored}

    def _columns(self, timed: Sequence[tuple[NewMemory, datetime]]) -> dict[str, Any]:
        rows = [row for row, _ in timed]
        memories = [row.memory for row in rows]
        return {
            "projects": [memory.project for memory in memories],
            "ids": [memory.id for memory in memories],
            "file_paths": [memory.file_path for memory in memories],
            "new_codes": [memory.new_code for memory in memories],
            "old_codes": [memory.old_code for memory in memories],
            "contexts": [memory.context for memory in memories],
            "session_ids": [memory.session_id for memory in memories],
            "agent_ids": [memory.agent_id for memory in memories],
            "languages": [memory.language for memory in memories],
            "timestamps": [memory.timestamp for memory in memories],
            "created_ats": [memory.created_at for memory in memories],
            "import_ids": [memory.import_id for memory in memories],
            "words": [row.indexed or tsvector(row.words) for row in rows],
            "vectors": [None if row.vector is None else HalfVector(row.vector) for row in rows],
            "models": [row.model for row in rows],
            "due_ats": [embed_after for _, embed_after in timed],
            "max_whole": MAX_WHOLE_CHARACTERS,
        }

    async def get(self, keys: Sequence[MemoryKey]) -> dict[MemoryKey, Memory]:
        """See MemoryStore."""
        async with self._connections.acquire() as connection:
            return await self.get_on(connection, keys)

    async def get_on(self, connection: Any, keys: Sequence[MemoryKey]) -> dict[MemoryKey, Memory]:
        """As `get`, within a transaction of the caller's."""
        rows = await fetch(connection, self._queries.get_memories, **key_arrays(keys))
        return {memory.key: memory for memory in map(memory_from, rows)}

    async def find(self, memory_id: UUID, projects: Sequence[str] | None) -> list[Memory]:
        """See MemoryStore."""
        async with self._connections.acquire() as connection:
            rows = self._queries.find_memories(connection, id=memory_id, projects=projects)
            return [memory_from(row) async for row in rows]

    async def page(self, scope: Scope, limit: int, after: Position | None, *, may_lag: bool = False) -> list[Memory]:
        """See MemoryStore."""

        async def read(connection: Any) -> list[Memory]:
            rows = self._queries.list_memories(
                connection,
                **scope.fields(),
                after_timestamp=after.timestamp if after else None,
                after_project=after.project if after else None,
                after_id=after.id if after else None,
                limit=limit,
            )
            return [memory_from(row) async for row in rows]

        if may_lag:
            return await self._reads.run(read)
        async with self._connections.acquire() as connection:
            return await read(connection)

    async def delete(self, key: MemoryKey) -> bool:
        """See MemoryStore."""
        async with self._connections.acquire() as connection:
            rows = self._queries.delete_memory(connection, project=key.project, id=key.id)
            return bool([row async for row in rows])

    async def search_words(self, scope: Scope, query: QueryWords, limit: int) -> list[Match]:
        """See MemoryStore."""
        return await self._words.search(scope, query, limit)

    async def refresh_frequencies(self) -> int:
        """See MemoryStore."""
        return await self._words.refresh()

    async def merge_words(self) -> int:
        """See MemoryStore."""
        return await self._words.merge()

    async def search_vectors(
        self, scope: Scope, vector: Vector, model: str, limit: int, words: QueryWords = NO_WORDS
    ) -> list[Match]:
        """See MemoryStore."""
        return await self._vectors.search(scope, vector, model, limit, words)

    async def distinct(
        self, scope: Scope, scores: Mapping[MemoryKey, float], limit: int, known: Sequence[int] = ()
    ) -> list[Distinct]:
        """See MemoryStore."""
        keys = {f"keys_{name}": values for name, values in key_arrays(scores).items()}
        given = Statement.of(self._queries.given_matches, **keys, scores=list(scores.values()))
        statement = distinct_found(self._queries, given, scope, len(scores), limit, known)
        kept = hits_plan_may_be_kept(scope)
        rows = await self._reads.run(statement.fetch, keep_plans=kept)
        if self._reads.may_lag and (not rows or rows[0]["present"] < len(scores)):
            async with self._connections.acquire(keep_plans=kept) as connection:
                rows = await statement.fetch(connection)
        return [distinct_from(row) for row in rows]

    async def best_by_vectors(
        self, scope: Scope, vector: Vector, model: str, limit: int, candidates: int, words: QueryWords = NO_WORDS
    ) -> Best:
        """See MemoryStore."""
        return await self._vectors.best(scope, vector, model, limit, candidates, words)

    async def stats(self, projects: Sequence[str] | None, model: str) -> Stats:
        """See MemoryStore."""
        async with self._connections.acquire() as connection:
            row = await self._queries.stats(connection, projects=projects, model=model)
            index = await self._index.stats(connection, model)
        return Stats(
            backend_type="postgresql",
            total_entries=row["total"],
            entries_with_embeddings=row["embedded"],
            unique_files=row["files"],
            unique_sessions=row["sessions"],
            oldest_entry=row["oldest"] and in_utc(row["oldest"]),
            newest_entry=row["newest"] and in_utc(row["newest"]),
            db_size_bytes=row["size_bytes"],
            embedding=EmbeddingStats(
                model=model,
                dimensions=row["dimensions"],
                pending=row["total"] - row["embedded"] - row["given_up"],  # also what is not queued yet
                failed=row["given_up"],
                pieces_pending=row["pieces_pending"],
                index=index,
            ),
        )
