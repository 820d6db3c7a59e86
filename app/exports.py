"""What can be done with exports: start, follow, fetch, delete; and the task that runs them."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import structlog
from pydantic import TypeAdapter, ValidationError
from uuid_utils.compat import uuid7

from app.errors import AfterImageError, ConflictError, NotFoundError
from app.export_run import ExportRun
from app.logs import describe
from app.models import Export, ExportCounts, ExportState, Progress
from app.store.protocol import Store

KEPT_TIME = timedelta(hours=24)
"""How long an export can be fetched after it has ended."""

MAX_KEPT = 10
"""Each may take as much room as the store."""

EXPIRY_SECONDS = 60.0
"""How often exports are looked through for those to remove."""

INTERRUPTED = "the service was stopped before the export was complete; start another"

STORED = TypeAdapter(Export)

log = structlog.get_logger()


class Exports:
    """The service behind the routes of exports; an export belongs to the process that runs it.

    Its state lies beside its file as JSON, so that it can be fetched after a restart. One that the restart has
    interrupted has failed.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._jobs: dict[UUID, Export] = {}
        self._wake = asyncio.Event()
        self._server: asyncio.Task[None] | None = None
        self._running: tuple[UUID, ExportRun, asyncio.Task[None]] | None = None

    async def start(self) -> None:
        """Finds what an earlier process has left, and begins to run queued exports, one after the other.

        Raises:
            OSError: the folder cannot be made or read.
        """
        for job in await asyncio.to_thread(self._load):
            if job.state.is_final:
                self._jobs[job.id] = job
            else:
                await self._end(job, ExportState.FAILED, INTERRUPTED)
        self._server = asyncio.create_task(self._serve(), name="exports")

    async def stop(self) -> None:
        """Ends the running export; nothing of its file remains."""
        tasks = [task for task in (self._server, self._running and self._running[2]) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def queue(self, projects: Sequence[str] | None) -> Export:
        """Queues an export of these projects (None: all).

        Raises:
            ConflictError: too many are kept already.
        """
        if len(self._jobs) >= MAX_KEPT:
            raise ConflictError(f"{MAX_KEPT} exports are kept, which is the limit: delete one first")
        job = Export(
            id=uuid7(),
            state=ExportState.QUEUED,
            projects=projects,
            progress=Progress(0, 0, 0.0, None, None),
            counts=ExportCounts(),
            not_carried_over={},
            size_bytes=None,
            created_at=datetime.now(UTC),
            started_at=None,
            finished_at=None,
            expires_at=None,
            error=None,
        )
        await self._keep(job)
        self._wake.set()
        return job

    def get(self, export_id: UUID, projects: Sequence[str] | None) -> Export:
        """One export.

        Raises:
            NotFoundError: there is none, or it holds more than these projects (None: all).
        """
        job = self._jobs.get(export_id)
        if job is None or not _visible(job, projects):
            raise NotFoundError(f"there is no export {export_id}; GET /v1/admin/exports lists those that are kept")
        return self._now(job)

    def recent(self, projects: Sequence[str] | None) -> list[Export]:
        """Exports of nothing but these projects (None: all), newest first."""
        jobs = [self._jobs[export_id] for export_id in sorted(self._jobs, reverse=True)]
        return [self._now(job) for job in jobs if _visible(job, projects)]

    def file(self, export_id: UUID, projects: Sequence[str] | None) -> Path:
        """The file of a complete export.

        Raises:
            NotFoundError: as `get`.
            ConflictError: it is not complete.
        """
        job = self.get(export_id, projects)
        if job.state is not ExportState.COMPLETED:
            raise ConflictError(f"export {export_id} is {job.state} and has no file: follow it until it is completed")
        return self._path(export_id)

    async def delete(self, export_id: UUID, projects: Sequence[str] | None) -> None:
        """Removes an export and its file; ends it if it is running.

        Raises:
            NotFoundError: as `get`.
        """
        self.get(export_id, projects)
        if self._running is not None and self._running[0] == export_id:
            task = self._running[2]
            task.cancel()
            await asyncio.wait({task})
        self._jobs.pop(export_id, None)
        await asyncio.to_thread(self._remove, export_id)

    async def _serve(self) -> None:
        while True:
            self._wake.clear()
            now = datetime.now(UTC)
            for job in [job for job in self._jobs.values() if job.expires_at is not None and job.expires_at <= now]:
                await self.delete(job.id, None)
            queued = [job for job in self._jobs.values() if job.state is ExportState.QUEUED]
            if queued:
                run = ExportRun(self._store, self._path(queued[0].id), queued[0].projects)
                task = asyncio.create_task(self._run(queued[0], run), name="export")
                self._running = (queued[0].id, run, task)
                await asyncio.wait({task})
                self._running = None
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), EXPIRY_SECONDS)

    async def _run(self, queued: Export, run: ExportRun) -> None:
        job = replace(queued, state=ExportState.RUNNING, started_at=datetime.now(UTC))
        await self._keep(job)
        try:
            await run.run()
        except AfterImageError as error:
            await self._end(self._now(job), ExportState.FAILED, str(error))
        except Exception:
            log.exception("an export failed", export_id=str(job.id))
            await self._end(self._now(job), ExportState.FAILED, "an error of the service; its log has the details")
        else:
            await self._end(self._now(job), ExportState.COMPLETED)

    def _now(self, job: Export) -> Export:
        """The export as it stands."""
        if self._running is None or self._running[0] != job.id:
            return job
        run = self._running[1]
        return replace(job, progress=run.progress, counts=run.counts, not_carried_over={**run.not_carried_over})

    async def _end(self, job: Export, state: ExportState, error: str | None = None) -> None:
        now = datetime.now(UTC)
        size = self._path(job.id).stat().st_size if state is ExportState.COMPLETED else None
        ended = replace(job, state=state, finished_at=now, expires_at=now + KEPT_TIME, size_bytes=size, error=error)
        await self._keep(ended)

    async def _keep(self, job: Export) -> None:
        self._jobs[job.id] = job
        try:
            await asyncio.to_thread(self._write, job)
        except OSError as error:  # on a full disk, say; until a restart the export can be followed nevertheless
            log.warning("the state of an export could not be kept", export_id=str(job.id), reason=describe(error))

    def _path(self, export_id: UUID) -> Path:
        return self._folder / f"{export_id}.sqlite"

    def _load(self) -> list[Export]:
        """What the folder holds; files without a state are of no use to anybody."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = []
        for path in self._folder.glob("*.json"):
            with suppress(ValidationError):
                found.append(STORED.validate_json(path.read_bytes()))
        whole = {f"{job.id}{suffix}" for job in found for suffix in (".json", ".sqlite")}
        for path in self._folder.iterdir():
            if path.name not in whole:
                path.unlink()
        return found

    def _write(self, job: Export) -> None:
        unfinished = self._folder / f"{job.id}.json.new"
        unfinished.write_bytes(STORED.dump_json(job))
        unfinished.replace(self._folder / f"{job.id}.json")

    def _remove(self, export_id: UUID) -> None:
        for path in self._folder.glob(f"{export_id}.*"):
            path.unlink(missing_ok=True)


def _visible(job: Export, projects: Sequence[str] | None) -> bool:
    """True if the export holds nothing but these projects (None: all)."""
    return projects is None or (job.projects is not None and set(job.projects) <= set(projects))
