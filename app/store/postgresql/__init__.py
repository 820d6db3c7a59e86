"""The store on PostgreSQL with pgvector."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiosql

import app.store
from app.store.postgresql.connections import Connections
from app.store.postgresql.embeddings import PostgresEmbeddings
from app.store.postgresql.idempotency import PostgresIdempotency
from app.store.postgresql.imports import PostgresImports
from app.store.postgresql.keys import PostgresKeys
from app.store.postgresql.memories import PostgresMemories
from app.store.postgresql.models import PostgresModels
from app.store.postgresql.reads import Reads
from app.store.postgresql.vector_index import HnswIndex
from app.store.postgresql.vectors import PostgresVectors
from app.store.protocol import StandbyState, StoreLoad

QUERIES = Path(app.store.__file__).with_name("postgresql.sql")


class PostgresStore:
    """Store on a PostgreSQL server: a given one, or the service's own."""

    backend = "postgresql"

    def __init__(
        self, connections: Connections, model: str, exact_search_limit: int = 10_000, reads: Reads | None = None
    ) -> None:
        """`model` is the embedding model of an empty store.

        Searches among more than `exact_search_limit` vectors use an index. `reads` sends them to standbys.
        """
        queries: Any = aiosql.from_path(QUERIES, "asyncpg", mandatory_parameters=False)
        self._connections = connections
        self._reads = reads or Reads(connections)
        self._model = model
        index = HnswIndex(connections, exact_search_limit)
        vectors = PostgresVectors(self._reads, queries, index, exact_search_limit)
        self.memories = PostgresMemories(connections, self._reads, queries, vectors, index)
        self.embeddings = PostgresEmbeddings(connections, queries, index)
        self.models = PostgresModels(connections, queries, index)
        self.imports = PostgresImports(connections, queries, self.memories)
        self.keys = PostgresKeys(connections, queries)
        self.idempotency = PostgresIdempotency(connections, queries, self.memories)

    async def open(self) -> None:
        """See Store."""
        await self._connections.open()
        await self.models.begin(self._model, datetime.now(UTC))
        await self._reads.open()

    async def close(self) -> None:
        """See Store."""
        await self._reads.close()
        await self._connections.close()

    def load(self) -> StoreLoad:
        """See Store."""
        return self._connections.load()

    def standbys(self) -> Sequence[StandbyState]:
        """See Store."""
        return self._reads.states()

    async def ping(self) -> None:
        """See Store."""
        async with self._connections.acquire() as connection:
            await connection.fetchval("SELECT 1")
