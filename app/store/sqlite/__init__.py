"""The store on one SQLite file."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiosql
from aiosql.adapters.sqlite3 import SQLite3Adapter

import app.store
from app.store.protocol import StandbyState, StoreLoad
from app.store.sqlite.connections import SqliteConnections
from app.store.sqlite.embeddings import SqliteEmbeddings
from app.store.sqlite.idempotency import SqliteIdempotency
from app.store.sqlite.imports import SqliteImports
from app.store.sqlite.keys import SqliteKeys
from app.store.sqlite.memories import SqliteMemories
from app.store.sqlite.models import SqliteModels

QUERIES = Path(app.store.__file__).with_name("sqlite.sql")


class WholeRows(SQLite3Adapter):
    """Reads all rows of a statement at once.

    Else it would stand half read if one of them raised an error, and the connection go on seeing the file as it was.
    """

    def select(self, conn: Any, query_name: str, sql: str, parameters: Any, record_class: Any = None) -> Any:
        """A list of rows."""
        return conn.execute(sql, parameters).fetchall()


class SqliteStore:
    """Store in a file: one process writes at a time, and readers never wait for it."""

    backend = "sqlite"

    def __init__(
        self,
        path: Path,
        model: str,
        acquire_timeout_seconds: float = 30.0,
        statement_timeout_seconds: float = 30.0,
    ) -> None:
        """`model` is the embedding model of an empty store."""
        queries: Any = aiosql.from_path(QUERIES, WholeRows, mandatory_parameters=False)
        self._connections = SqliteConnections(path, acquire_timeout_seconds, statement_timeout_seconds)
        self._model = model
        self.memories = SqliteMemories(self._connections, queries)
        self.embeddings = SqliteEmbeddings(self._connections, queries, self.memories)
        self.models = SqliteModels(self._connections, queries, self.memories)
        self.imports = SqliteImports(self._connections, queries, self.memories)
        self.keys = SqliteKeys(self._connections, queries)
        self.idempotency = SqliteIdempotency(self._connections, queries, self.memories)

    async def open(self) -> None:
        """See Store."""
        await self._connections.open()
        try:
            await self.models.begin(self._model, datetime.now(UTC))
        except BaseException:
            await self._connections.close()
            raise

    async def close(self) -> None:
        """See Store."""
        await self._connections.close()

    def load(self) -> StoreLoad:
        """See Store."""
        return self._connections.load()

    def standbys(self) -> Sequence[StandbyState]:
        """See Store: a file has none."""
        return ()

    async def ping(self) -> None:
        """See Store."""
        await self._connections.read(lambda connection: connection.execute("SELECT 1").fetchone())
