"""What can be done with imports: start, follow, cancel, undo; and the task that runs them."""

import asyncio
import filecmp
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from app.errors import AfterImageError, ConflictError, NotFoundError, UnavailableError
from app.import_run import ImportRun
from app.logs import describe
from app.models import Finding, FindingKind, Import, ImportState, NewImport
from app.redaction import Redaction
from app.sources import check_complete, file_key, find_below, format_of, shown_name
from app.spool import Spool
from app.store.protocol import ClaimedImport, Store

POLL_SECONDS = 1.0

RETRY_SECONDS = 30

SHOWN_PROBLEMS = 20

OLD_COPY_SECONDS = 3600
UNKNOWN_COPY_SECONDS = 7 * 24 * 3600

SWEEP_SECONDS = 3600
"""Between two looks for copies that nobody needs."""

UNDO_ROWS = 5000
"""Memories that are deleted in one transaction."""

DEFAULT_PROJECT = "default"

SUPERSEDED = "it had not ended, and the file or the options were others when it was started again"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to import. Without a project, this service's own files keep theirs and all others go to `default`."""

    project: str | None = None
    validate: bool = True
    dry_run: bool = False
    batch_size: int | None = None


@dataclass(frozen=True, slots=True)
class ImportLimits:
    """Where sources come from, and what they may take."""

    folder: Path
    spool: Path
    batch_size: int
    lease_time: timedelta
    max_upload_bytes: int
    max_queued: int = 100


class Imports:
    """The service behind the routes of imports and the `migrate` command."""

    def __init__(self, store: Store, limits: ImportLimits, redaction: Redaction) -> None:
        self._redaction = redaction
        self._store = store
        self._imports = store.imports
        self._limits = limits
        self._spool = Spool(limits.spool)
        self._wake = asyncio.Event()
        self._arriving = 0
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Makes the spool folder.

        Raises:
            OSError: it cannot be made or written.
        """
        await self._spool.open()

    def start(self) -> None:
        """Begins to run queued imports, one after the other, and those that a crash has left."""
        self._task = asyncio.create_task(self._serve(), name="imports")

    async def stop(self) -> None:
        """Ends the running import as it stands; may be called again, also meanwhile."""
        if self._task is not None:
            if not self._task.cancelling():  # a second time would cut short what the first began
                self._task.cancel()
            await asyncio.wait([self._task])

    async def queue_file(self, name: str, options: ImportOptions) -> Import:
        """Takes a private copy of a file below the import folder and queues its import.

        Raises:
            SourceError: it is not there, or cannot be imported; says what was found and what was expected.
        """
        async with self._place():
            path = await asyncio.to_thread(find_below, self._limits.folder, name)
            import_id = uuid7()
            with self._spool.removed_unless_taken(import_id):
                await self._spool.take(import_id, path)
            return await self._queue(import_id, shown_name(path), file_key(path), options)

    async def queue_upload(self, body: AsyncIterator[bytes], options: ImportOptions) -> Import:
        """Streams a file to disk and queues its import.

        Raises:
            TooLargeError: it is larger than the service takes.
            SourceError: it cannot be imported; says what was found and what was expected.
        """
        async with self._place():
            import_id = uuid7()
            with self._spool.removed_unless_taken(import_id) as copy:
                digest = await self._spool.receive(import_id, body, self._limits.max_upload_bytes)
                await asyncio.to_thread(check_complete, copy)
            return await self._queue(import_id, "upload", f"sha256:{digest}", options)

    async def begin(self, path: Path, options: ImportOptions) -> ClaimedImport:
        """Begins an import in this process; goes on with an interrupted one of the same file, if that has not changed.

        The path must be absolute, without symbolic links.

        Raises:
            ConflictError: another process is importing this file.
            SourceError: it cannot be imported; says what was found and what was expected.
        """
        project, key = options.project or DEFAULT_PROJECT, file_key(path)
        import_id = uuid7()
        with self._spool.removed_unless_taken(import_id) as copy:
            await self._spool.take(import_id, path)
            new = await self._new(import_id, shown_name(path), key, options)
            unfinished = await self._imports.running(project, key, self._spool.id)
            if unfinished is not None and unfinished.dry_run == options.dry_run:
                resumed = self._held(await self._take(unfinished.id), path, project)
                if await self._is_the_same(resumed, copy, options):
                    self._spool.remove(import_id)
                    return resumed
                await self._imports.finish(resumed.lease, ImportState.CANCELLED, datetime.now(UTC), None, SUPERSEDED)
                self._spool.remove(unfinished.id)
            now = datetime.now(UTC)
            return self._held(await self._imports.create(new, now, now + self._limits.lease_time), path, project)

    async def _take(self, import_id: UUID) -> ClaimedImport | None:
        now = datetime.now(UTC)
        return await self._imports.claim(self._spool.id, now, now + self._limits.lease_time, import_id)

    def _held(self, claimed: ClaimedImport | None, path: Path, project: str) -> ClaimedImport:
        if claimed is None:
            raise ConflictError(
                f"another process is importing {path} into project {project}; wait for it to end, or, if it was "
                f"killed, {self._limits.lease_time.total_seconds():g} s for its lease to run out"
            )
        return claimed

    async def _is_the_same(self, resumed: ClaimedImport, copy: Path, options: ImportOptions) -> bool:
        """True if an import that was interrupted reads the same, and does the same with it."""
        if (resumed.job.validate, resumed.keep_projects) != (options.validate, options.project is None):
            return False
        try:
            return await asyncio.to_thread(filecmp.cmp, self._spool.copy(resumed.job.id), copy, shallow=False)
        except FileNotFoundError:
            return False

    async def run(self, claimed: ClaimedImport) -> Import | None:
        """Carries out an import; answers it in its final state, None if another process has taken it over."""
        store = self._store
        job = await ImportRun(
            claimed,
            self._spool.copy(claimed.job.id),
            store.imports,
            store.memories,
            store.embeddings,
            store.models,
            self._limits.lease_time,
            self._redaction,
        ).run()
        if job is not None:
            self._spool.remove(job.id)
        return job

    async def get(self, import_id: UUID, projects: Sequence[str] | None) -> Import:
        """One import.

        Raises:
            NotFoundError: there is none in these projects (None: any).
        """
        job = await self._imports.get(import_id, projects)
        if job is None:
            raise NotFoundError(f"there is no import {import_id}")
        return job

    async def page(self, projects: Sequence[str] | None, limit: int, before: UUID | None) -> Sequence[Import]:
        """Imports, newest first; `before` continues behind an id."""
        return await self._imports.page(projects, limit, before)

    async def findings(
        self, import_id: UUID, projects: Sequence[str] | None, kind: FindingKind, limit: int, after_rowid: int | None
    ) -> Sequence[Finding]:
        """Rows that were not taken or that differ, by their rowid in the source."""
        job = await self.get(import_id, projects)
        return await self._imports.findings(import_id, job.project, kind, limit, after_rowid)

    async def problems(self, job: Import) -> list[Finding]:
        """The first rows of an import that were not taken or that differ, up to `SHOWN_PROBLEMS` of each kind."""
        found: list[Finding] = []
        for kind in FindingKind:
            found += await self._imports.findings(job.id, job.project, kind, SHOWN_PROBLEMS, None)
        return found

    async def cancel(self, import_id: UUID, projects: Sequence[str] | None) -> Import:
        """Asks a running import to stop after the batch in hand, and ends a queued one; what was imported stays."""
        job = await self.get(import_id, projects)
        job = await self._imports.cancel(import_id, job.project, datetime.now(UTC))
        if job.state.is_final:
            self._spool.remove(import_id)
        return job

    async def undo(self, import_id: UUID, projects: Sequence[str] | None) -> int:
        """Deletes exactly the memories that an import brought in; answers how many.

        A part at a time, so that no statement runs long; after an interruption it can be asked for again.

        Raises:
            ConflictError: it is still at work.
        """
        job = await self.get(import_id, projects)
        if not job.state.is_final:
            raise ConflictError(f"import {import_id} is {job.state}: cancel it first")
        deleted = 0
        while part := await self._imports.delete_memories(import_id, projects, UNDO_ROWS):
            deleted += part
        return deleted

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """A place in the queue, taken before the file comes: each import has a copy of its file on the disk.

        Raises:
            UnavailableError: too many imports wait.
        """
        ahead, self._arriving = self._arriving, self._arriving + 1
        try:
            await self._refuse_more(ahead)
            yield
        finally:
            self._arriving -= 1

    async def _refuse_more(self, ahead: int) -> None:
        queued = await self._imports.count(ImportState.QUEUED, self._spool.id) + ahead
        if queued >= self._limits.max_queued:
            raise UnavailableError(
                f"{queued} imports wait already, which is the limit (AFTERIMAGE_MAX_QUEUED_IMPORTS); cancel some, "
                "or send it again when they have ended",
                RETRY_SECONDS,
            )

    async def _queue(self, import_id: UUID, name: str, key: str, options: ImportOptions) -> Import:
        with self._spool.removed_unless_taken(import_id):
            new = await self._new(import_id, name, key, options)
            queued = await self._imports.create(new, datetime.now(UTC), until=None)
        if queued is None:
            raise RuntimeError("a queued import cannot be in the way of a running one")
        self._wake.set()
        return queued.job

    async def _new(self, import_id: UUID, name: str, key: str, options: ImportOptions) -> NewImport:
        """What to create, from a look into the private copy."""
        copy = self._spool.copy(import_id)
        source_format = await asyncio.to_thread(format_of, copy)
        return NewImport(
            id=import_id,
            project=options.project or DEFAULT_PROJECT,
            keep_projects=options.project is None,
            source_name=name,
            source_key=key,
            source_size_bytes=copy.stat().st_size,
            source_format=source_format,
            spool=self._spool.id,
            spool_folder=self._spool.place,
            validate=options.validate,
            dry_run=options.dry_run,
            batch_size=options.batch_size or self._limits.batch_size,
            model=(await self._store.models.get()).target,
        )

    async def _sweep(self) -> None:
        """Removes private copies that a killed process has left.

        Another store may share the folder: a copy that is unknown here is left alone until it is old.
        """
        for copy, age_seconds in await self._spool.copies():
            try:
                job = await self._imports.get(UUID(copy.name.partition(".")[0]), None)
            except ValueError:
                continue
            limit = UNKNOWN_COPY_SECONDS if job is None and copy.suffix == ".sqlite" else OLD_COPY_SECONDS
            if age_seconds > limit and (job is None or job.state.is_final):
                await asyncio.to_thread(copy.unlink, missing_ok=True)

    async def _serve(self) -> None:
        """Runs what is queued or left behind, one import at a time."""
        loop = asyncio.get_running_loop()
        sweep_at = loop.time()
        while True:
            self._wake.clear()
            try:
                if loop.time() >= sweep_at:
                    sweep_at = loop.time() + SWEEP_SECONDS
                    await self._sweep()
                claimed = await self._claim()
                if claimed is not None:
                    await self.run(claimed)
                    continue
            except UnavailableError as error:
                log.warning("imports wait", reason=describe(error))
            except Exception:
                log.exception("an import failed and is tried again when its lease has run out")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), POLL_SECONDS)

    async def _claim(self) -> ClaimedImport | None:
        """The next import; if told to stop while the store takes it, no lease is left behind."""
        now = datetime.now(UTC)
        claiming = asyncio.ensure_future(
            self._imports.claim(self._spool.id, now, now + self._limits.lease_time, only=None)
        )
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with suppress(AfterImageError):
                if (claimed := await claiming) is not None:
                    await self._imports.hand_back(claimed.lease, datetime.now(UTC))
            raise
