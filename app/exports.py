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

from app.errors import AfterImageError, ConflictError, NotFoundError, UnavailableError
from app.export_run import ExportRun
from app.file_lock import try_lock
from app.models import Export, ExportCounts, ExportState, Progress
from app.store.protocol import Store

KEPT_TIME = timedelta(hours=24)
"""How long an export can be fetched after it has ended."""

MAX_KEPT = 10
"""Each may take as much room as the store."""

POLL_SECONDS = 1.0

PROGRESS_SECONDS = 0.25
"""How often the running export writes down how far it is."""

DELETE_SECONDS = 10.0
"""How long to wait for a deleted export to be gone."""

INTERRUPTED = "the service was stopped before the export was complete; start another"

STORED = TypeAdapter(Export)

log = structlog.get_logger(__name__)


class Exports:
    """The service behind the routes of exports, for all processes that share the folder.

    Each export lies there as JSON, beside its file. Whoever holds the lock runs them, one after the other, and is the
    only one who changes or removes what is there; the others add exports, mark them to be deleted, and read. One whose
    process has ended meanwhile has failed.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._queueing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._server: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to run queued exports, unless another process does.

        Raises:
            OSError: the folder cannot be made.
        """
        await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True, mode=0o700)
        self._server = asyncio.create_task(self._serve(), name="exports")

    async def stop(self) -> None:
        """Ends the running export, nothing of its file remains; may be called again, also meanwhile."""
        if self._server is not None:
            if not self._server.cancelling():
                self._server.cancel()
            await asyncio.wait([self._server])

    async def queue(self, projects: Sequence[str] | None) -> Export:
        """Queues an export of these projects (None: all).

        Raises:
            ConflictError: too many are kept already.
            UnavailableError: the folder cannot be written.
        """
        async with self._queueing:
            if len(await self.recent(None)) >= MAX_KEPT:
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
            try:
                await self._write(job)
            except OSError as error:
                raise UnavailableError(f"the export cannot be noted in {self._folder}: {error}") from error
        self._wake.set()
        return job

    async def get(self, export_id: UUID, projects: Sequence[str] | None) -> Export:
        """One export as it stands.

        Raises:
            NotFoundError: there is none, or it holds more than these projects (None: all).
        """
        job = await asyncio.to_thread(self._read, self._state(export_id))
        if job is None or not _visible(job, projects):
            raise NotFoundError(f"there is no export {export_id}; GET /v1/admin/exports lists those that are kept")
        return job

    async def recent(self, projects: Sequence[str] | None) -> list[Export]:
        """Exports of nothing but these projects (None: all), newest first."""
        jobs = await asyncio.to_thread(self._read_all)
        return [job for job in reversed(jobs) if _visible(job, projects)]

    async def file(self, export_id: UUID, projects: Sequence[str] | None) -> Path:
        """The file of a complete export.

        Raises:
            NotFoundError: as `get`.
            ConflictError: it is not complete.
        """
        job = await self.get(export_id, projects)
        if job.state is not ExportState.COMPLETED:
            raise ConflictError(f"export {export_id} is {job.state} and has no file: follow it until it is completed")
        return self._path(export_id)

    async def delete(self, export_id: UUID, projects: Sequence[str] | None) -> None:
        """Removes an export and its file; ends it if it is running.

        Raises:
            NotFoundError: as `get`.
        """
        await self.get(export_id, projects)
        await asyncio.to_thread(self._deleted(export_id).touch)
        self._wake.set()
        with suppress(TimeoutError):  # whoever gets the lock next finds the mark
            async with asyncio.timeout(DELETE_SECONDS):
                while self._deleted(export_id).exists():  # noqa: ASYNC110 - another process removes it
                    await asyncio.sleep(0.02)

    async def _serve(self) -> None:
        while True:
            try:
                lock = try_lock(self._folder.with_name(f"{self._folder.name}.lock"))
                if lock is not None:
                    with lock:
                        await self._run_queued()
            except OSError as error:  # a full disk, say
                log.warning("exports wait", reason=str(error))
            except Exception:
                log.exception("exports wait after an error")
            await asyncio.sleep(POLL_SECONDS)

    async def _run_queued(self) -> None:
        """Runs what is queued and removes what is over; the lock is held."""
        while True:
            self._wake.clear()
            await asyncio.to_thread(self._sweep, datetime.now(UTC))
            jobs = await asyncio.to_thread(self._read_all)
            for job in jobs:
                if job.state is ExportState.RUNNING:
                    await self._end(job, ExportState.FAILED, INTERRUPTED)
            queued = [job for job in jobs if job.state is ExportState.QUEUED]
            if queued:
                await self._run(queued[0])
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), POLL_SECONDS)

    async def _run(self, queued: Export) -> None:
        job = replace(queued, state=ExportState.RUNNING, started_at=datetime.now(UTC))
        await self._write(job)
        run = ExportRun(self._store, self._path(job.id), job.projects)
        task = asyncio.create_task(run.run(), name="export")
        try:
            while not (await asyncio.wait({task}, timeout=PROGRESS_SECONDS))[0]:
                if self._deleted(job.id).exists():
                    return
                await self._write(_now(job, run))
            await task
        except AfterImageError as error:
            await self._end(_now(job, run), ExportState.FAILED, str(error))
        except Exception:
            log.exception("an export failed", export_id=str(job.id))
            await self._end(_now(job, run), ExportState.FAILED, "an error of the service; its log has the details")
        else:
            await self._end(_now(job, run), ExportState.COMPLETED)
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _end(self, job: Export, state: ExportState, error: str | None = None) -> None:
        now = datetime.now(UTC)
        size = self._path(job.id).stat().st_size if state is ExportState.COMPLETED else None
        await self._write(
            replace(job, state=state, finished_at=now, expires_at=now + KEPT_TIME, size_bytes=size, error=error)
        )

    def _path(self, export_id: UUID) -> Path:
        return self._folder / f"{export_id}.sqlite"

    def _state(self, export_id: UUID) -> Path:
        return self._folder / f"{export_id}.json"

    def _deleted(self, export_id: UUID) -> Path:
        return self._folder / f"{export_id}.deleted"

    def _read(self, path: Path) -> Export | None:
        with suppress(FileNotFoundError, ValidationError):
            job = STORED.validate_json(path.read_bytes())
            return None if self._deleted(job.id).exists() else job
        return None

    def _read_all(self) -> list[Export]:
        """Oldest first."""
        found = [self._read(path) for path in sorted(self._folder.glob("*.json"))]
        return [job for job in found if job is not None]

    async def _write(self, job: Export) -> None:
        await asyncio.to_thread(self._replace, job)

    def _replace(self, job: Export) -> None:
        unfinished = self._state(job.id).with_suffix(".new")
        unfinished.write_bytes(STORED.dump_json(job))
        unfinished.replace(self._state(job.id))

    def _sweep(self, now: datetime) -> None:
        """Removes what is deleted, what is too old, and files that no complete export has."""
        jobs = self._read_all()
        for job in jobs:
            if job.expires_at is not None and job.expires_at <= now:
                self._deleted(job.id).touch()
        for mark in self._folder.glob("*.deleted"):
            for suffix in (".sqlite", ".new", ".json", ".deleted"):  # the mark last: what it hides must not reappear
                mark.with_suffix(suffix).unlink(missing_ok=True)
        complete = {self._path(job.id) for job in jobs if job.state is ExportState.COMPLETED}
        for path in self._folder.glob("*.sqlite*"):
            if path not in complete:
                path.unlink(missing_ok=True)


def _now(job: Export, run: ExportRun) -> Export:
    """The running export as it stands."""
    return replace(job, progress=run.progress, counts=run.counts, not_carried_over={**run.not_carried_over})


def _visible(job: Export, projects: Sequence[str] | None) -> bool:
    """True if the export holds nothing but these projects (None: all)."""
    return projects is None or (job.projects is not None and set(job.projects) <= set(projects))
