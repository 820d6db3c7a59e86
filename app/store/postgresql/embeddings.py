"""Vectors in PostgreSQL, and the queue of those still to be made."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector

from app.models import MemoryKey, Vector
from app.store.postgresql.connections import Connections
from app.store.postgresql.memories import key_arrays, memory_from
from app.store.protocol import ClaimedMemory


class PostgresEmbeddings:
    """EmbeddingStore on PostgreSQL."""

    def __init__(self, connections: Connections, queries: Any) -> None:
        self._connections = connections
        self._queries = queries

    async def claim(self, model: str, limit: int, now: datetime, until: datetime) -> list[ClaimedMemory]:
        """See EmbeddingStore."""
        async with self._connections.acquire() as connection:
            rows = self._queries.claim_embeddings(connection, model=model, limit=limit, now=now, until=until)
            return [ClaimedMemory(memory_from(row), row["attempts"]) async for row in rows]

    async def save(self, model: str, vectors: Mapping[MemoryKey, Vector]) -> None:
        """See EmbeddingStore."""
        async with self._connections.acquire() as connection:
            await self._queries.save_vectors(
                connection,
                model=model,
                vectors=[HalfVector(vector) for vector in vectors.values()],
                **key_arrays(vectors),
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
