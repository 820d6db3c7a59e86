"""Imports in SQLite."""

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from app.errors import LeaseLostError, NotFoundError
from app.models import Counts, Finding, FindingKind, Import, ImportStage, ImportState, NewImport, Validation
from app.store.classify import Outcome, classify, unique
from app.store.import_rows import counts_from, import_from
from app.store.protocol import ClaimedImport, ImportBatch, Lease
from app.store.sqlite.connections import SqliteConnections
from app.store.sqlite.memories import SqliteMemories
from app.store.sqlite.values import projects_json, time_from, time_text

TIMES = ("created_at", "started_at", "finished_at", "stage_started_at")


class SqliteImports:
    """ImportStore on SQLite."""

    def __init__(self, connections: SqliteConnections, queries: Any, memories: SqliteMemories) -> None:
        self._connections = connections
        self._queries = queries
        self._memories = memories

    async def create(self, new: NewImport, now: datetime, until: datetime | None) -> ClaimedImport | None:
        """See ImportStore."""
        values = {
            **asdict(new),
            "id": str(new.id),
            "spool": str(new.spool),
            "state": ImportState.RUNNING if until else ImportState.QUEUED,
            "started_at": time_text(now) if until else None,
            "now": time_text(now),
            "until": time_text(until),
        }

        def work(connection: sqlite3.Connection) -> Any:
            if until:
                self._queries.requeue_imports(connection, now=time_text(now))
            return self._queries.create_import(connection, **values)

        try:
            row = await self._connections.write(work)
        except sqlite3.IntegrityError:
            return None
        return _claimed(row, now)

    async def running(self, project: str, source_key: str, spool: UUID) -> Import | None:
        """See ImportStore."""
        row = await self._connections.read(
            lambda connection: self._queries.running_import(
                connection, project=project, source_key=source_key, spool=str(spool)
            )
        )
        return _import_from(row, datetime.now(UTC)) if row else None

    async def get(self, import_id: UUID, projects: Sequence[str] | None) -> Import | None:
        """See ImportStore."""
        row = await self._connections.read(
            lambda connection: self._queries.get_import(connection, id=str(import_id), projects=projects_json(projects))
        )
        return _import_from(row, datetime.now(UTC)) if row else None

    async def page(self, projects: Sequence[str] | None, limit: int, before: UUID | None) -> list[Import]:
        """See ImportStore."""

        def work(connection: sqlite3.Connection) -> list[Import]:
            rows = self._queries.list_imports(
                connection, projects=projects_json(projects), limit=limit, before=str(before) if before else None
            )
            return [_import_from(row, datetime.now(UTC)) for row in rows]

        return await self._connections.read(work)

    async def count(self, state: ImportState, spool: UUID | None = None) -> int:
        """See ImportStore."""
        row = await self._connections.read(
            lambda connection: self._queries.count_imports(
                connection, state=state, spool=str(spool) if spool else None, projects=None
            )
        )
        return int(row["found"])

    async def claim(self, spool: UUID, now: datetime, until: datetime, only: UUID | None) -> ClaimedImport | None:
        """See ImportStore."""
        values = {
            "spool": str(spool),
            "now": time_text(now),
            "until": time_text(until),
            "only": str(only) if only else None,
        }

        def work(connection: sqlite3.Connection) -> Any:
            self._queries.requeue_imports(connection, now=time_text(now))
            return self._queries.claim_import(connection, **values)

        row = await self._connections.write(work)
        return _claimed(row, now) if row else None

    async def renew(self, lease: Lease, until: datetime) -> bool:
        """See ImportStore."""
        values = {"until": time_text(until), **_fence(lease)}
        row = await self._connections.write(lambda connection: self._queries.renew_import(connection, **values))
        return bool(_held(row, lease)["cancel_requested"])

    async def hand_back(self, lease: Lease, now: datetime) -> None:
        """See ImportStore."""
        values = {"now": time_text(now), **_fence(lease)}
        await self._connections.write(lambda connection: self._queries.hand_back_import(connection, **values))

    async def begin_stage(self, lease: Lease, stage: ImportStage, now: datetime, total: int) -> int | None:
        """See ImportStore."""
        values = {
            "stage": stage,
            "now": time_text(now),
            "total": total,
            **_fence(lease),
        }
        row = await self._connections.write(lambda connection: self._queries.begin_stage(connection, **values))
        last_rowid: int | None = _held(row, lease)["last_rowid"]
        return last_rowid

    async def save_batch(self, lease: Lease, batch: ImportBatch, now: datetime, *, dry_run: bool) -> Counts:
        """See ImportStore."""

        def work(connection: sqlite3.Connection) -> Any:
            _held(self._queries.lock_import(connection, **_fence(lease)), lease)
            outcome = self._store(connection, batch, now, dry_run=dry_run)
            self._note(connection, lease, outcome.findings)
            return self._queries.count_batch(
                connection,
                project=lease.project,
                id=str(lease.import_id),
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

        return counts_from(await self._connections.write(work))

    async def save_validation(
        self, lease: Lease, size: int, last_rowid: int, found: Validation, findings: Sequence[Finding]
    ) -> None:
        """See ImportStore."""

        def work(connection: sqlite3.Connection) -> None:
            row = self._queries.count_validation(
                connection, size=size, last_rowid=last_rowid, **asdict(found), **_fence(lease)
            )
            _held(row, lease)
            self._note(connection, lease, findings)

        await self._connections.write(work)

    async def finish(
        self, lease: Lease, state: ImportState, now: datetime, error: str | None, notes: str | None
    ) -> Import:
        """See ImportStore."""
        values = {"state": state, "now": time_text(now), "error": error, "notes": notes, **_fence(lease)}
        row = await self._connections.write(lambda connection: self._queries.finish_import(connection, **values))
        return _import_from(_held(row, lease), now)

    async def cancel(self, import_id: UUID, project: str, now: datetime) -> Import:
        """See ImportStore."""
        values = {"id": str(import_id), "project": project, "now": time_text(now)}
        row = await self._connections.write(lambda connection: self._queries.cancel_import(connection, **values))
        if row is None:
            raise NotFoundError(f"there is no import {import_id}")
        return _import_from(row, now)

    async def findings(
        self, import_id: UUID, project: str, kind: FindingKind, limit: int, after_rowid: int | None
    ) -> list[Finding]:
        """See ImportStore."""

        def work(connection: sqlite3.Connection) -> list[Finding]:
            rows = self._queries.list_findings(
                connection, import_id=str(import_id), project=project, kind=kind, limit=limit, after_rowid=after_rowid
            )
            return [
                Finding(FindingKind(row["kind"]), row["source_rowid"], row["source_id"], row["reason"]) for row in rows
            ]

        return await self._connections.read(work)

    async def delete_memories(self, import_id: UUID, projects: Sequence[str] | None, limit: int) -> int:
        """See ImportStore."""
        which = {"import_id": str(import_id), "projects": projects_json(projects), "limit": limit}
        return await self._memories.delete_all(lambda connection: self._queries.delete_imported(connection, **which))

    def _store(self, connection: sqlite3.Connection, batch: ImportBatch, now: datetime, *, dry_run: bool) -> Outcome:
        """Stores the rows of a batch; a dry run only looks which of them are there."""
        rows = unique(batch.rows)
        if dry_run:
            present = {**batch.earlier, **self._memories.get_on(connection, rows)}
            return classify(batch, rows.keys() - present.keys(), present)
        stored = self._memories.add_on(connection, list(rows.values()), len(rows) * [now])
        others = [key for key in rows if key not in stored]
        present = self._memories.get_on(connection, others) if others else {}
        return classify(batch, stored, present)

    def _note(self, connection: sqlite3.Connection, lease: Lease, findings: Sequence[Finding]) -> None:
        if findings:
            place = {"project": lease.project, "import_id": str(lease.import_id)}
            self._queries.add_findings(connection, [{**place, **asdict(finding)} for finding in findings])


def _import_from(row: Any, now: datetime) -> Import:
    values = dict(row)
    values["id"] = UUID(values["id"])
    values.update({name: time_from(values[name]) for name in TIMES})
    return import_from(values, now)


def _claimed(row: Any, now: datetime) -> ClaimedImport:
    return ClaimedImport(
        lease=Lease(project=row["project"], import_id=UUID(row["id"]), token=row["token"]),
        job=_import_from(row, now),
        keep_projects=bool(row["keep_projects"]),
        model=row["model"],
    )


def _fence(lease: Lease) -> dict[str, Any]:
    return {"project": lease.project, "id": str(lease.import_id), "token": lease.token}


def _held(row: Any, lease: Lease) -> Any:
    if row is None:
        raise LeaseLostError(f"another process has taken over import {lease.import_id}")
    return row
