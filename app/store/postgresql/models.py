"""The embedding models in use, in PostgreSQL."""

from datetime import datetime
from typing import Any

from app.models import MemoryKey
from app.store.embedding_protocol import ModelsInUse
from app.store.postgresql.connections import Connections
from app.store.postgresql.vector_index import HnswIndex


class PostgresModels:
    """ModelStore on PostgreSQL."""

    def __init__(self, connections: Connections, queries: Any, index: HnswIndex) -> None:
        self._connections = connections
        self._queries = queries
        self._index = index

    async def begin(self, model: str, now: datetime) -> None:
        """Notes which model is in use where that is not known yet: that of the vectors there are, or else this one."""
        async with self._connections.acquire() as connection:
            await self._queries.begin_models(connection, model=model, now=now)

    async def get(self) -> ModelsInUse:
        """See ModelStore."""
        async with self._connections.acquire() as connection:
            return ModelsInUse(**await self._queries.get_models(connection))

    async def aim(self, model: str, now: datetime, sweep_at: datetime) -> ModelsInUse:
        """See ModelStore."""
        async with self._connections.transaction() as connection:
            await self._queries.aim_models(connection, model=model, now=now, sweep_at=sweep_at)
            return ModelsInUse(**await self._queries.get_models(connection))

    async def is_complete(self, model: str, before: datetime) -> bool:
        """See ModelStore."""
        async with self._connections.acquire() as connection:
            return await self._queries.unfinished_model(connection, model=model, before=before) is None

    async def switch(self, model: str, before: datetime, sweep_at: datetime) -> bool:
        """See ModelStore."""
        async with self._connections.acquire() as connection:
            row = await self._queries.switch_models(connection, model=model, before=before, sweep_at=sweep_at)
        return row is not None

    async def claim_sweep(self, now: datetime, until: datetime) -> bool:
        """See ModelStore."""
        async with self._connections.acquire() as connection:
            return await self._queries.claim_sweep(connection, now=now, until=until) is not None

    async def renew_sweep(self, held: datetime, until: datetime | None) -> bool:
        """See ModelStore."""
        async with self._connections.acquire() as connection:
            return await self._queries.renew_sweep(connection, held=held, until=until) is not None

    async def drop_unused_indexes(self) -> None:
        """See ModelStore."""
        await self._index.drop_all_but((await self.get()).names)

    async def sweep(self, after: MemoryKey | None, limit: int) -> MemoryKey | None:
        """See ModelStore."""
        async with self._connections.acquire() as connection:
            row = await self._queries.sweep_models(
                connection,
                after_project=after.project if after else None,
                after_id=after.id if after else None,
                limit=limit,
            )
        return MemoryKey(row["project"], row["id"]) if row else None
