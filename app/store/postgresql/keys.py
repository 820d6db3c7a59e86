"""Keys and the record of what administrators did, in PostgreSQL."""

import json
from datetime import datetime
from typing import Any
from uuid import UUID

from app.access import AuditEntry, Key, KeyScope
from app.store.postgresql.connections import Connections


class PostgresKeys:
    """KeyStore on PostgreSQL."""

    def __init__(self, connections: Connections, queries: Any) -> None:
        self._connections = connections
        self._queries = queries

    async def create(self, key: Key, digest: bytes) -> None:
        """See KeyStore."""
        async with self._connections.acquire() as connection:
            await self._queries.create_key(
                connection,
                id=key.id,
                name=key.name,
                digest=digest,
                scopes=list(key.scopes),
                projects=None if key.projects is None else list(key.projects),
                created_at=key.created_at,
                expires_at=key.expires_at,
            )

    async def get(self, key_id: UUID) -> tuple[Key, bytes] | None:
        """See KeyStore."""
        async with self._connections.acquire() as connection:
            row = await self._queries.get_key(connection, id=key_id)
        return (_key_from(row), row["digest"]) if row else None

    async def all(self) -> list[Key]:
        """See KeyStore."""
        async with self._connections.acquire() as connection:
            return [_key_from(row) async for row in self._queries.list_keys(connection)]

    async def revoke(self, key_id: UUID, now: datetime) -> Key | None:
        """See KeyStore."""
        async with self._connections.acquire() as connection:
            row = await self._queries.revoke_key(connection, id=key_id, now=now)
        return _key_from(row) if row else None

    async def any(self) -> bool:
        """See KeyStore."""
        async with self._connections.acquire() as connection:
            row = await self._queries.any_key(connection)
        return bool(row["found"])

    async def add_audit(self, entry: AuditEntry) -> None:
        """See KeyStore."""
        async with self._connections.acquire() as connection:
            await self._queries.add_audit(
                connection,
                id=entry.id,
                at=entry.at,
                actor=entry.actor,
                key_id=entry.key_id,
                action=entry.action,
                target=entry.target,
                details=json.dumps(entry.details),
                request_id=entry.request_id,
            )

    async def end_audit(self, entry: AuditEntry) -> None:
        """See KeyStore."""
        async with self._connections.acquire() as connection:
            await self._queries.end_audit(
                connection, id=entry.id, target=entry.target, details=json.dumps(entry.details)
            )

    async def audit(self, limit: int, before: UUID | None) -> list[AuditEntry]:
        """See KeyStore."""
        async with self._connections.acquire() as connection:
            rows = self._queries.list_audit(connection, limit=limit, before=before)
            return [AuditEntry(**{**row, "details": json.loads(row["details"])}) async for row in rows]


def _key_from(row: Any) -> Key:
    return Key(
        id=row["id"],
        name=row["name"],
        scopes=[KeyScope(scope) for scope in row["scopes"]],
        projects=row["projects"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
    )
