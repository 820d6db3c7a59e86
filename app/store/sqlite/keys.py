"""Keys and the record of what administrators did, in SQLite."""

import json
import sqlite3
from datetime import datetime
from typing import Any
from uuid import UUID

from app.access import AuditEntry, Key, KeyScope
from app.store.sqlite.connections import SqliteConnections
from app.store.sqlite.values import projects_json, time_from, time_text


class SqliteKeys:
    """KeyStore on SQLite."""

    def __init__(self, connections: SqliteConnections, queries: Any) -> None:
        self._connections = connections
        self._queries = queries

    async def create(self, key: Key, digest: bytes) -> None:
        """See KeyStore."""
        values = {
            "id": str(key.id),
            "name": key.name,
            "digest": digest,
            "scopes": json.dumps(list(key.scopes)),
            "projects": projects_json(key.projects),
            "created_at": time_text(key.created_at),
            "expires_at": time_text(key.expires_at),
        }
        await self._connections.write(lambda connection: self._queries.create_key(connection, **values))

    async def get(self, key_id: UUID) -> tuple[Key, bytes] | None:
        """See KeyStore."""
        row = await self._connections.read(lambda connection: self._queries.get_key(connection, id=str(key_id)))
        return (_key_from(row), row["digest"]) if row else None

    async def all(self) -> list[Key]:
        """See KeyStore."""
        return await self._connections.read(
            lambda connection: [_key_from(row) for row in self._queries.list_keys(connection)]
        )

    async def revoke(self, key_id: UUID, now: datetime) -> Key | None:
        """See KeyStore."""
        values = {"id": str(key_id), "now": time_text(now)}
        row = await self._connections.write(lambda connection: self._queries.revoke_key(connection, **values))
        return _key_from(row) if row else None

    async def any(self) -> bool:
        """See KeyStore."""
        row = await self._connections.read(self._queries.any_key)
        return bool(row["found"])

    async def add_audit(self, entry: AuditEntry) -> None:
        """See KeyStore."""
        values = {
            "id": str(entry.id),
            "at": time_text(entry.at),
            "actor": entry.actor,
            "key_id": str(entry.key_id) if entry.key_id else None,
            "action": entry.action,
            "target": entry.target,
            "details": json.dumps(entry.details),
            "request_id": entry.request_id,
        }
        await self._connections.write(lambda connection: self._queries.add_audit(connection, **values))

    async def end_audit(self, entry: AuditEntry) -> None:
        """See KeyStore."""
        values = {"id": str(entry.id), "target": entry.target, "details": json.dumps(entry.details)}
        await self._connections.write(lambda connection: self._queries.end_audit(connection, **values))

    async def audit(self, limit: int, before: UUID | None) -> list[AuditEntry]:
        """See KeyStore."""

        def work(connection: sqlite3.Connection) -> list[AuditEntry]:
            rows = self._queries.list_audit(connection, limit=limit, before=str(before) if before else None)
            return [_entry_from(row) for row in rows]

        return await self._connections.read(work)


def _key_from(row: Any) -> Key:
    return Key(
        id=UUID(row["id"]),
        name=row["name"],
        scopes=[KeyScope(scope) for scope in json.loads(row["scopes"])],
        projects=json.loads(row["projects"]) if row["projects"] else None,
        created_at=datetime.fromisoformat(row["created_at"]),
        expires_at=time_from(row["expires_at"]),
        revoked_at=time_from(row["revoked_at"]),
    )


def _entry_from(row: Any) -> AuditEntry:
    return AuditEntry(
        id=UUID(row["id"]),
        at=datetime.fromisoformat(row["at"]),
        actor=row["actor"],
        key_id=UUID(row["key_id"]) if row["key_id"] else None,
        action=row["action"],
        target=row["target"],
        details=json.loads(row["details"]),
        request_id=row["request_id"],
    )
