"""One import of a private copy; every stage can be entered again after a crash."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import structlog

from app.errors import AfterImageError, InvalidInputError, LeaseLostError, SecretError, SourceError, UnavailableError
from app.first_rows import FirstRows
from app.languages import language_of
from app.logs import describe
from app.models import (
    EmbeddingStatus,
    Finding,
    FindingKind,
    Import,
    ImportStage,
    ImportState,
    Memory,
    MemoryKey,
    NewMemory,
    Reject,
    SourceRow,
    Validation,
    Words,
)
from app.own_thread import OwnThread
from app.redaction import Redaction
from app.sources import BEFORE_ALL, Reader
from app.store.classify import stored_otherwise
from app.store.embedding_protocol import EmbeddingStore, ModelStore
from app.store.protocol import ClaimedImport, ImportBatch, ImportStore, MemoryStore
from app.tokens import document_words

STAGES = list(ImportStage)

HAND_BACK_TRIES = 5
HAND_BACK_PAUSE_SECONDS = 0.2

NO_WORDS = Words(code=(), identifiers=(), path=(), context=())

log = structlog.get_logger(__name__)


class ImportRun:
    """Carries out a claimed import under its lease.

    Reading runs in a thread of its own, a batch ahead of storing. The lease is renewed with every batch and, while a
    stage takes long without one, by a task beside.
    """

    def __init__(
        self,
        claimed: ClaimedImport,
        copy: Path,
        imports: ImportStore,
        memories: MemoryStore,
        embeddings: EmbeddingStore,
        models: ModelStore,
        lease_time: timedelta,
        redaction: Redaction,
    ) -> None:
        """`copy` is the private copy of the source."""
        self._redaction = redaction
        self._redacted = claimed.job.counts.redacted
        self._claimed = claimed
        self._lease = claimed.lease
        self._job = claimed.job
        self._stage = claimed.job.stage
        self._copy = copy
        self._imports = imports
        self._memories = memories
        self._embeddings = embeddings
        self._models = models
        self._model: str | None = None
        self._lease_time = lease_time
        self._first_rows: FirstRows | None = None
        self._thread = OwnThread("import")

    async def run(self) -> Import | None:
        """Runs to a final state and answers it; None if another process has taken the import over.

        When the task is cancelled the lease is handed back, and any process may go on with the import.
        """
        keeper = asyncio.create_task(self._keep_lease(), name="import-lease")
        try:
            return await self._attempt()
        except LeaseLostError as error:
            log.warning("import taken over", import_id=str(self._job.id), reason=describe(error))
            return None
        except asyncio.CancelledError:
            await self._hand_back()
            raise
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            self._thread.stop()

    async def _hand_back(self) -> None:
        """Ends the lease; tried again, since what was cancelled may still hold up the store."""
        for _ in range(HAND_BACK_TRIES):
            try:
                await self._imports.hand_back(self._lease, datetime.now(UTC))
            except UnavailableError as error:
                log.warning("a lease could not be handed back", import_id=str(self._job.id), reason=describe(error))
                await asyncio.sleep(HAND_BACK_PAUSE_SECONDS)
            else:
                return

    async def _attempt(self) -> Import:
        try:
            notes = await self._work()
        except SourceError as error:
            return await self._finish(ImportState.FAILED, error=str(error))
        except AfterImageError:
            raise
        except Exception as error:
            log.exception("import failed", import_id=str(self._job.id))
            return await self._finish(ImportState.FAILED, error=f"an error of the service: {describe(error)}")
        if notes is None:
            return await self._finish(ImportState.CANCELLED)
        return await self._finish(ImportState.COMPLETED, notes=notes or None)

    async def _work(self) -> str | None:
        """All stages; answers what the source holds that has no place here, None if told to stop.

        Vectors are kept if they are of the model that vectors were made for when the import began, while it is in use.
        """
        used = await self._models.get()
        model = self._claimed.model or used.target
        self._model = model if model in used.names else None
        async with self._thread.opened(self._open) as reader:
            count = reader.count
            if self._job.stage is ImportStage.SNAPSHOT:
                await self._begin(ImportStage.READING, count)
            if await self._migrate_all(reader, count):
                return None
            validates = self._job.validate and not self._job.dry_run
            if validates and await self._pass(reader, ImportStage.VALIDATING, count, self._validate):
                return None
            return await self._thread.run(partial(_unmapped, reader))

    async def _migrate_all(self, reader: Reader, count: int) -> bool:
        if not self._job.dry_run:
            return await self._pass(reader, ImportStage.MIGRATING, count, self._migrate)
        async with self._thread.opened(FirstRows) as self._first_rows:
            return await self._pass(reader, ImportStage.MIGRATING, count, self._migrate)

    def _open(self) -> Reader:
        if not self._copy.exists():
            raise SourceError(
                f"the private copy {self._copy} is gone; start the import again: what is stored already will be skipped"
            )
        return Reader(self._copy, model=self._model)

    async def _pass(
        self, reader: Reader, stage: ImportStage, count: int, work: Callable[[ImportBatch], Awaitable[None]]
    ) -> bool:
        """Goes through the source in batches; True if told to stop before the end."""
        if STAGES.index(self._job.stage) > STAGES.index(stage):
            return False
        self._stage = stage
        resumed = await self._begin(stage, count)
        if resumed is not None and self._first_rows is not None:
            await self._meet_again(reader, resumed)
        batch = await self._thread.run(partial(self._read, reader, BEFORE_ALL if resumed is None else resumed))
        while batch is not None:
            if await self._imports.renew(self._lease, datetime.now(UTC) + self._lease_time):
                return True
            ahead = asyncio.ensure_future(self._thread.run(partial(self._read, reader, batch.last_rowid)))
            try:
                await work(batch)
            finally:
                following = await ahead
            batch = following
        return False

    async def _meet_again(self, reader: Reader, until: int) -> None:
        """Reads what a dry run read before it was interrupted, to know the ids."""
        batch = await self._thread.run(partial(self._read, reader, BEFORE_ALL))
        while batch is not None and batch.last_rowid < until:
            batch = await self._thread.run(partial(self._read, reader, batch.last_rowid))

    def _earlier(
        self, first_rows: FirstRows, reader: Reader, after: int, rows: Sequence[tuple[int, NewMemory]]
    ) -> dict[MemoryKey, Memory]:
        """Of the keys of these rows, which follow `after`: what came first in the source, if that is before them."""
        first = first_rows.note([(rowid, row.memory.key) for rowid, row in rows], after)
        found = {key: reader.rows(rowid - 1, 1)[0] for key, rowid in first.items()}
        now = datetime.now(UTC)
        return {key: self._new_memory(row, now).memory for key, row in found.items() if isinstance(row, SourceRow)}

    def _read(self, reader: Reader, after: int) -> ImportBatch | None:
        """The next rows, ready to be stored; None at the end. Runs in the thread."""
        found = reader.rows(after, self._job.batch_size)
        if not found:
            return None
        now = datetime.now(UTC)
        rows: list[tuple[int, NewMemory]] = []
        rejects: list[Reject] = []
        for row in found:
            if isinstance(row, Reject):
                rejects.append(row)
                continue
            try:
                rows.append((row.rowid, self._new_memory(row, now)))
            except SecretError as error:
                rejects.append(Reject(row.rowid, str(row.id), str(error)))
        batch = ImportBatch(rows, rejects, last_rowid=found[-1].rowid, more_fields=reader.more_fields)
        if self._first_rows is None:
            return batch
        return replace(batch, earlier=self._earlier(self._first_rows, reader, after, rows))

    def _clean(self, row: SourceRow) -> tuple[SourceRow, int]:
        """The row without secrets, and how many it held; its vector was made of them as well, and goes.

        Raises:
            SecretError: it holds one, and the service is set to refuse such.
        """
        texts, count = self._redaction.clean(new_code=row.new_code, old_code=row.old_code, context=row.context)
        return (replace(row, vector=None, **texts), count) if count else (row, 0)

    def _new_memory(self, row: SourceRow, now: datetime) -> NewMemory:
        row, redacted = self._clean(row)
        kept = row.project if self._claimed.keep_projects else None
        memory = Memory(
            id=row.id,
            project=kept or self._job.project,
            file_path=row.file_path,
            new_code=row.new_code,
            old_code=row.old_code,
            context=row.context,
            session_id=row.session_id,
            agent_id=row.agent_id,
            language=row.language or language_of(row.file_path),
            timestamp=row.timestamp,
            created_at=now,
            embedding_status=EmbeddingStatus.PENDING if row.vector is None else EmbeddingStatus.READY,
            import_id=self._job.id,
        )
        words, indexed = NO_WORDS, None
        if self._stage is ImportStage.MIGRATING and not self._job.dry_run:  # elsewhere it is compared only
            words = document_words(row.file_path, row.new_code, row.context)
            indexed = self._memories.indexed(words)
        return NewMemory(
            memory,
            words,
            row.vector,
            indexed,
            redacted=redacted,
            altered=row.altered is not None,
            unusable_vector=row.vector_problem is not None,
            model=self._model,
        )

    async def _migrate(self, batch: ImportBatch) -> None:
        """Stores a batch; if the store refuses a value, row by row, so that it costs that row alone."""
        try:
            await self._save(batch)
        except InvalidInputError as error:
            if batch.size > 1:
                for single in batch.singles():
                    await self._migrate(single)
                return
            rowid, row = batch.rows[0]
            reject = Reject(rowid, str(row.memory.id), str(error))
            await self._save(ImportBatch(rows=(), rejects=(reject,), last_rowid=rowid))

    async def _save(self, batch: ImportBatch) -> None:
        counts = await self._imports.save_batch(self._lease, batch, datetime.now(UTC), dry_run=self._job.dry_run)
        if not self._job.dry_run:
            self._redaction.taken_out += counts.redacted - self._redacted
            self._redacted = counts.redacted

    async def _validate(self, batch: ImportBatch) -> None:
        """Compares every field and every kept vector of a batch with what is stored.

        Every row of the source counts as checked, but those that were not taken.
        """
        keys = [row.memory.key for _, row in batch.rows]
        stored = await self._memories.get(keys)
        vectors = await self._embeddings.vectors(self._model, keys) if self._model else {}
        # Asked behind them: if the model is in use still, then none of its vectors was removed before.
        kept = self._model in (await self._models.get()).names
        refused = await self._refused(batch)
        findings = [
            Finding(FindingKind.MISMATCHED, row.rowid, row.source_id, f"it was taken, and now {row.reason}")
            for row in batch.rejects
            if row.rowid not in refused
        ]
        for rowid, row in batch.rows:
            if rowid in refused:
                continue
            there = stored.get(row.memory.key)
            ours = there is not None and there.import_id == self._job.id  # what is skipped keeps the vector that it has
            if there is None:
                findings.append(Finding(FindingKind.MISSING, rowid, str(row.memory.id), "it is not stored"))
            elif problems := stored_otherwise(
                row, there, vectors.get(row.memory.key), batch.more_fields, kept=kept and ours
            ):
                reason = f"stored with another {', '.join(problems)}"
                findings.append(Finding(FindingKind.MISMATCHED, rowid, str(row.memory.id), reason))
        kinds = [finding.kind for finding in findings]
        found = Validation(
            checked=batch.size - len(refused),
            mismatched=kinds.count(FindingKind.MISMATCHED),
            missing=kinds.count(FindingKind.MISSING),
        )
        await self._imports.save_validation(self._lease, batch.size, batch.last_rowid, found, findings)

    async def _refused(self, batch: ImportBatch) -> set[int]:
        """Rowids of the batch that were not taken."""
        rowids = {rowid for rowid, _ in batch.rows} | {reject.rowid for reject in batch.rejects}
        rejects = await self._imports.findings(
            self._job.id, self._job.project, FindingKind.REJECT, batch.size, min(rowids) - 1
        )
        return {reject.rowid for reject in rejects} & rowids

    async def _begin(self, stage: ImportStage, total: int) -> int | None:
        return await self._imports.begin_stage(self._lease, stage, datetime.now(UTC), total)

    async def _finish(self, state: ImportState, error: str | None = None, notes: str | None = None) -> Import:
        job = await self._imports.finish(self._lease, state, datetime.now(UTC), error, notes)
        log.info("import ended", import_id=str(job.id), state=state, migrated=job.counts.migrated, error=error)
        return job

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(self._lease_time.total_seconds() / 3)
            with suppress(UnavailableError):
                await self._imports.renew(self._lease, datetime.now(UTC) + self._lease_time)


def _unmapped(reader: Reader) -> str:
    """What the source holds that has no place here; nothing if damage keeps it from being counted."""
    with suppress(SourceError):
        return ", ".join(f"{column} of {rows} rows" for column, rows in reader.unmapped.items())
    return ""
