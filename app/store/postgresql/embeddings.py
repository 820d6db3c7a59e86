"""Vectors in PostgreSQL, and the queue of those still to be made."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector

from app.models import MAX_WHOLE_CHARACTERS, MemoryKey, Vector, VectorIndexStats
from app.store.embedding_protocol import QUEUED_AT_ONCE, Backlog, ClaimedMemory, EmbeddingFailure, PieceVector
from app.store.postgresql.connections import Connections
from app.store.postgresql.rows import key_arrays, memory_from
from app.store.postgresql.vector_index import HnswIndex


class PostgresEmbeddings:
    """EmbeddingStore on PostgreSQL."""

    def __init__(self, connections: Connections, queries: Any, index: HnswIndex) -> None:
        self._connections = connections
        self._queries = queries
        self._index = index

    async def queue_missing(self, model: str, now: datetime) -> int:
        """See EmbeddingStore."""
        async with self._connections.acquire() as connection:
            rows = self._queries.queue_missing(connection, model=model, now=now, limit=QUEUED_AT_ONCE)
            return len([row async for row in rows])

    async def queue_failed(self, model: str, now: datetime) -> int:
        """See EmbeddingStore."""
        async with self._connections.acquire() as connection:
            return len([row async for row in self._queries.queue_failed(connection, model=model, now=now)])

    async def failures(self, model: str, limit: int) -> list[EmbeddingFailure]:
        """See EmbeddingStore."""
        async with self._connections.acquire() as connection:
            rows = self._queries.embedding_failures(connection, model=model, limit=limit)
            return [EmbeddingFailure(**row) async for row in rows]

    async def backlog(self, model: str, projects: Sequence[str] | None = None) -> Backlog:
        """See EmbeddingStore."""
        async with self._connections.acquire() as connection:
            return Backlog(**await self._queries.embedding_backlog(connection, model=model, projects=projects))

    async def missing(self, model: str, projects: Sequence[str] | None = None) -> int:
        """See EmbeddingStore."""
        async with self._connections.acquire() as connection:
            count: int = await self._queries.missing_vectors(connection, model=model, projects=projects)
        return count

    async def claim(
        self, model: str, limit: int, now: datetime, until: datetime, *, whole: bool = True
    ) -> list[ClaimedMemory]:
        """See EmbeddingStore."""
        async with self._connections.acquire() as connection:
            rows = self._queries.claim_embeddings(
                connection, model=model, limit=limit, now=now, until=until, whole=whole
            )
            return [ClaimedMemory(memory_from(row), row["attempts"]) async for row in rows]

    async def hand_back(self, model: str, held: Mapping[MemoryKey, datetime], now: datetime) -> None:
        """See EmbeddingStore."""
        async with self._connections.acquire() as connection:
            await self._queries.hand_back_embeddings(
                connection, model=model, held=[*held.values()], now=now, **key_arrays(held)
            )

    async def save(self, model: str, vectors: Mapping[MemoryKey, Vector]) -> None:
        """See EmbeddingStore."""
        async with self._connections.acquire() as connection:
            await self._queries.save_vectors(
                connection,
                model=model,
                vectors=[HalfVector(vector) for vector in vectors.values()],
                max_whole=MAX_WHOLE_CHARACTERS,
                **key_arrays(vectors),
            )

    async def save_pieces(self, model: str, key: MemoryKey, pieces: Sequence[PieceVector]) -> None:
        """See EmbeddingStore."""
        async with self._connections.acquire() as connection:
            await self._queries.save_pieces(
                connection,
                project=key.project,
                id=key.id,
                model=model,
                first_lines=[one.piece.first_line for one in pieces],
                last_lines=[one.piece.last_line for one in pieces],
                vectors=[HalfVector(one.vector) for one in pieces],
            )

    async def postpone(self, model: str, keys: Sequence[MemoryKey], reason: str, until: datetime | None) -> None:
        """See EmbeddingStore."""
        async with self._connections.acquire() as connection:
            await self._queries.postpone_embeddings(
                connection, model=model, reason=reason, until=until, **key_arrays(keys)
            )

    async def vectors(self, model: str, keys: Sequence[MemoryKey]) -> dict[MemoryKey, NDArray[np.float16]]:
        """See EmbeddingStore."""
        async with self._connections.acquire() as connection:
            rows = self._queries.get_vectors(connection, model=model, **key_arrays(keys))
            return {
                MemoryKey(row["project"], row["id"]): row["embedding"].to_numpy().astype(np.float16)
                async for row in rows
            }

    async def ensure_index(self, model: str, *, build: bool = True) -> bool:
        """See EmbeddingStore."""
        return await self._index.ensure(model, build=build)

    async def index_stats(self, model: str) -> VectorIndexStats:
        """See EmbeddingStore."""
        async with self._connections.acquire() as connection:
            return await self._index.stats(connection, model)
