"""The embedding models in use, in SQLite."""

import sqlite3
from datetime import datetime
from typing import Any

from app.models import MemoryKey
from app.store.embedding_protocol import ModelsInUse
from app.store.sqlite.connections import SqliteConnections
from app.store.sqlite.memories import SqliteMemories, key_from
from app.store.sqlite.values import time_text


class SqliteModels:
    """ModelStore on SQLite."""

    def __init__(self, connections: SqliteConnections, queries: Any, memories: SqliteMemories) -> None:
        self._connections = connections
        self._queries = queries
        self._memories = memories

    async def begin(self, model: str, now: datetime) -> None:
        """Notes which model is in use where that is not known yet: that of the vectors there are, or else this one."""
        values = {"model": model, "now": time_text(now)}
        await self._connections.write(lambda connection: self._queries.begin_models(connection, **values))

    async def get(self) -> ModelsInUse:
        """See ModelStore."""
        return await self._connections.read(lambda connection: ModelsInUse(**self._queries.get_models(connection)))

    async def aim(self, model: str, now: datetime, sweep_at: datetime) -> ModelsInUse:
        """See ModelStore."""

        def work(connection: sqlite3.Connection) -> ModelsInUse:
            values = {"model": model, "now": time_text(now), "sweep_at": time_text(sweep_at)}
            self._queries.aim_models(connection, **values)
            return ModelsInUse(**self._queries.get_models(connection))

        return await self._connections.write(work)

    async def is_complete(self, model: str, before: datetime) -> bool:
        """See ModelStore."""
        row = await self._connections.read(
            lambda connection: self._queries.unfinished_model(connection, model=model, before=time_text(before))
        )
        return row is None

    async def switch(self, model: str, before: datetime, sweep_at: datetime) -> bool:
        """See ModelStore."""
        values = {"model": model, "before": time_text(before), "sweep_at": time_text(sweep_at)}
        row = await self._connections.write(lambda connection: self._queries.switch_models(connection, **values))
        return row is not None

    async def claim_sweep(self, now: datetime, until: datetime) -> bool:
        """See ModelStore."""
        values = {"now": time_text(now), "until": time_text(until)}
        row = await self._connections.write(lambda connection: self._queries.claim_sweep(connection, **values))
        return row is not None

    async def renew_sweep(self, held: datetime, until: datetime | None) -> bool:
        """See ModelStore."""
        values = {"held": time_text(held), "until": time_text(until)}
        row = await self._connections.write(lambda connection: self._queries.renew_sweep(connection, **values))
        return row is not None

    async def drop_unused_indexes(self) -> None:
        """See ModelStore; here these are vectors in memory."""
        self._memories.keep_vectors_of((await self.get()).names)

    async def sweep(self, after: MemoryKey | None, limit: int) -> MemoryKey | None:
        """See ModelStore."""
        begin = {"after_project": after.project if after else "", "after_id": str(after.id) if after else ""}

        def work(connection: sqlite3.Connection) -> MemoryKey | None:
            row = self._queries.sweep_models(connection, limit=limit, **begin)
            if row is None:
                return None
            portion = {"last_project": row["project"], "last_id": row["id"], **begin}
            self._queries.sweep_vectors(connection, **portion)
            self._queries.sweep_queue(connection, **portion)
            return key_from(row)

        return await self._connections.write(work)
