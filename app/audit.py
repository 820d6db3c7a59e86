"""The record of what administrators do."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from app.access import AuditEntry, Caller, Key
from app.store.protocol import KeyStore

COMMAND_LINE = "command line"

log = structlog.get_logger(__name__)


def created(key: Key) -> dict[str, Any]:
    """What is noted of a new key."""
    expires = key.expires_at and key.expires_at.isoformat()
    return {"name": key.name, "scopes": key.scopes, "projects": key.projects, "expires_at": expires}


class Audit:
    """Notes each action in the store and in the log."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    async def note(self, caller: Caller | None, action: str, target: UUID | None, **details: Any) -> None:
        """Notes what a caller (None: somebody at the command line) has done, with what was asked for."""
        entry = AuditEntry(
            id=uuid7(),
            at=datetime.now(UTC),
            actor=caller.name if caller else COMMAND_LINE,
            key_id=caller.key_id if caller else None,
            action=action,
            target=str(target) if target else None,
            details=details,
            request_id=structlog.contextvars.get_contextvars().get("request_id"),
        )
        await self._store.add_audit(entry)
        log.info("audit", actor=entry.actor, action=action, target=entry.target)

    async def page(self, limit: int, before: UUID | None) -> Sequence[AuditEntry]:
        """What was done, newest first; `before` continues behind a record."""
        return await self._store.audit(limit, before)
