"""Imports in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg

from app.errors import LeaseLostError, NotFoundError
from app.models import Counts, Finding, FindingKind, Import, ImportStage, ImportState, NewImport, Validation
from app.store.classify import Outcome, classify, unique
from app.store.import_rows import counts_from, import_from
from app.store.postgresql.connections import Connections
from app.store.postgresql.memories import PostgresMemories
from app.store.protocol import ClaimedImport, ImportBatch, Lease


class PostgresImports:
    """ImportStore on PostgreSQL."""

    def __init__(self, connections: Connections, queries: Any, memories: PostgresMemories) -> None:
        self._connections = connections
        self._queries = queries
        self._memories = memories

    async def create(self, new: NewImport, now: datetime, until: datetime | None) -> ClaimedImport | None:
        """See ImportStore."""
        begin = {"state": ImportState.RUNNING if until else ImportState.QUEUED, "started_at": now if until else None}
        async with self._connections.acquire() as connection:
            if until:
                await self._queries.requeue_imports(connection, now=now)
            try:
                row = await self._queries.create_import(connection, now=now, until=until, **begin, **asdict(new))
            except asyncpg.UniqueViolationError:
                return None
        return _claimed(row, now)

    async def running(self, project: str, source_key: str, spool: UUID) -> Import | None:
        """See ImportStore."""
        async with self._connections.acquire() as connection:
            row = await self._queries.running_import(connection, project=project, source_key=source_key, spool=spool)
        return import_from(row, datetime.now(UTC)) if row else None

    async def get(self, import_id: UUID, projects: Sequence[str] | None) -> Import | None:
        """See ImportStore."""
        async with self._connections.acquire() as connection:
            row = await self._queries.get_import(connection, id=import_id, projects=projects)
        return import_from(row, datetime.now(UTC)) if row else None

    async def page(self, projects: Sequence[str] | None, limit: int, before: UUID | None) -> list[Import]:
        """See ImportStore."""
        async with self._connections.acquire() as connection:
            rows = self._queries.list_imports(connection, projects=projects, limit=limit, before=before)
            return [import_from(row, datetime.now(UTC)) async for row in rows]

    async def count(self, state: ImportState, spool: UUID | None = None) -> int:
        """See ImportStore."""
        async with self._connections.acquire() as connection:
            row = await self._queries.count_imports(connection, state=state, spool=spool, projects=None)
        return int(row["found"])

    async def claim(self, spool: UUID, now: datetime, until: datetime, only: UUID | None) -> ClaimedImport | None:
        """See ImportStore."""
        async with self._connections.acquire() as connection:
            await self._queries.requeue_imports(connection, now=now)
            try:
                row = await self._queries.claim_import(connection, spool=spool, now=now, until=until, only=only)
            except asyncpg.UniqueViolationError:
                return None  # another replica has just begun with the same file
        return _claimed(row, now) if row else None

    async def renew(self, lease: Lease, until: datetime) -> bool:
        """See ImportStore."""
        async with self._connections.acquire() as connection:
            row = await self._queries.renew_import(connection, until=until, **_fence(lease))
        return bool(_held(row, lease)["cancel_requested"])

    async def hand_back(self, lease: Lease, now: datetime) -> None:
        """See ImportStore."""
        async with self._connections.acquire() as connection:
            await self._queries.hand_back_import(connection, now=now, **_fence(lease))

    async def begin_stage(self, lease: Lease, stage: ImportStage, now: datetime, total: int) -> int | None:
        """See ImportStore."""
        async with self._connections.acquire() as connection:
            row = await self._queries.begin_stage(connection, stage=stage, now=now, total=total, **_fence(lease))
        last_rowid: int | None = _held(row, lease)["last_rowid"]
        return last_rowid

    async def save_batch(self, lease: Lease, batch: ImportBatch, now: datetime, *, dry_run: bool) -> Counts:
        """See ImportStore."""
        async with self._connections.transaction() as connection:
            _held(await self._queries.lock_import(connection, **_fence(lease)), lease)
            outcome = await self._store(connection, batch, now, dry_run=dry_run)
            await self._note(connection, lease, outcome.findings)
            row = await self._queries.count_batch(
                connection,
                project=lease.project,
                id=lease.import_id,
                size=batch.size,
                last_rowid=batch.last_rowid,
                migrated=outcome.migrated,
                skipped=outcome.skipped,
                failed=outcome.failed,
                reembedded=outcome.reembedded,
                redacted=outcome.redacted,
                altered=outcome.altered,
                unusable_vectors=outcome.unusable_vectors,
            )
        return counts_from(row)

    async def save_validation(
        self, lease: Lease, size: int, last_rowid: int, found: Validation, findings: Sequence[Finding]
    ) -> None:
        """See ImportStore."""
        async with self._connections.transaction() as connection:
            row = await self._queries.count_validation(
                connection, size=size, last_rowid=last_rowid, **asdict(found), **_fence(lease)
            )
            _held(row, lease)
            await self._note(connection, lease, findings)

    async def finish(
        self, lease: Lease, state: ImportState, now: datetime, error: str | None, notes: str | None
    ) -> Import:
        """See ImportStore."""
        async with self._connections.acquire() as connection:
            row = await self._queries.finish_import(
                connection, state=state, now=now, error=error, notes=notes, **_fence(lease)
            )
        return import_from(_held(row, lease), now)

    async def cancel(self, import_id: UUID, project: str, now: datetime) -> Import:
        """See ImportStore."""
        async with self._connections.acquire() as connection:
            row = await self._queries.cancel_import(connection, id=import_id, project=project, now=now)
        if row is None:
            raise NotFoundError(f"there is no import {import_id}")
        return import_from(row, now)

    async def findings(
        self, import_id: UUID, project: str, kind: FindingKind, limit: int, after_rowid: int | None
    ) -> list[Finding]:
        """See ImportStore."""
        async with self._connections.acquire() as connection:
            rows = self._queries.list_findings(
                connection, import_id=import_id, project=project, kind=kind, limit=limit, after_rowid=after_rowid
            )
            return [
                Finding(FindingKind(row["kind"]), row["source_rowid"], row["source_id"], row["reason"])
                async for row in rows
            ]

    async def delete_memories(self, import_id: UUID, projects: Sequence[str] | None, limit: int) -> int:
        """See ImportStore."""
        async with self._connections.acquire() as connection:
            row = await self._queries.delete_imported(connection, import_id=import_id, projects=projects, limit=limit)
        return int(row["deleted"])

    async def _store(self, connection: Any, batch: ImportBatch, now: datetime, *, dry_run: bool) -> Outcome:
        """Stores the rows of a batch; a dry run only looks which of them are there."""
        rows = unique(batch.rows)
        if dry_run:
            present = {**batch.earlier, **await self._memories.get_on(connection, list(rows))}
            return classify(batch, rows.keys() - present.keys(), present)
        stored = await self._memories.add_on(connection, list(rows.values()), len(rows) * [now])
        others = [key for key in rows if key not in stored]
        present = await self._memories.get_on(connection, others) if others else {}
        return classify(batch, stored, present)

    async def _note(self, connection: Any, lease: Lease, findings: Sequence[Finding]) -> None:
        if findings:
            await self._queries.add_findings(
                connection,
                [{"project": lease.project, "import_id": lease.import_id, **asdict(finding)} for finding in findings],
            )


def _claimed(row: Any, now: datetime) -> ClaimedImport:
    return ClaimedImport(
        lease=Lease(project=row["project"], import_id=row["id"], token=row["token"]),
        job=import_from(row, now),
        keep_projects=row["keep_projects"],
        model=row["model"],
    )


def _fence(lease: Lease) -> dict[str, Any]:
    return {"project": lease.project, "id": lease.import_id, "token": lease.token}


def _held(row: Any, lease: Lease) -> Any:
    if row is None:
        raise LeaseLostError(f"another process has taken over import {lease.import_id}")
    return row
