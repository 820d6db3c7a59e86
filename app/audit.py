"""The record of what administrators do."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from app.access import AuditEntry, Caller, KeyScope
from app.errors import AfterImageError
from app.store.protocol import KeyStore

COMMAND_LINE = "command line"

log = structlog.get_logger(__name__)


def key_details(
    name: str, scopes: Sequence[KeyScope], projects: Sequence[str] | None, expires_at: datetime | None
) -> dict[str, Any]:
    """What is noted of a key that is made."""
    expires = expires_at and expires_at.isoformat()
    return {"name": name, "scopes": sorted(set(scopes)), "projects": projects, "expires_at": expires}


class Action:
    """What somebody is about to do, for what is known of it only then."""

    def __init__(self, entry: AuditEntry) -> None:
        self.entry = entry

    def came_to(self, target: UUID | None = None, **details: Any) -> None:
        """Adds what it was done to, and what came of it."""
        entry = self.entry
        self.entry = replace(
            entry, target=str(target) if target else entry.target, details={**entry.details, **details}
        )


class Audit:
    """Notes each action in the store and in the log."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    @asynccontextmanager
    async def record(
        self, caller: Caller | None, action: str, target: UUID | None = None, **details: Any
    ) -> AsyncIterator[Action]:
        """Notes what a caller (None: somebody at the command line) is about to do, and then its outcome.

        What cannot be noted is not done. What is done stands if its outcome cannot be noted: the record then has none,
        like that of an action that a crash has cut short.
        """
        doing = Action(
            AuditEntry(
                id=uuid7(),
                at=datetime.now(UTC),
                actor=caller.name if caller else COMMAND_LINE,
                key_id=caller.key_id if caller else None,
                action=action,
                target=str(target) if target else None,
                details=details,
                request_id=structlog.contextvars.get_contextvars().get("request_id"),
            )
        )
        await self._store.add_audit(doing.entry)
        try:
            yield doing
        except Exception as error:
            kind = error.type if isinstance(error, AfterImageError) else AfterImageError.type
            doing.came_to(outcome="failed", error=kind)
            await self._end(doing.entry)
            raise
        doing.came_to(outcome="done")
        await self._end(doing.entry)

    async def _end(self, entry: AuditEntry) -> None:
        log.info("audit", actor=entry.actor, action=entry.action, target=entry.target, outcome=entry.details["outcome"])
        try:
            await self._store.end_audit(entry)
        except Exception:
            log.exception("the outcome of an action could not be noted", audit_id=str(entry.id))

    async def page(self, limit: int, before: UUID | None) -> Sequence[AuditEntry]:
        """What was done, newest first; `before` continues behind a record."""
        return await self._store.audit(limit, before)
