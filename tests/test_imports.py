"""The service of imports, on each store: what it keeps, how it resumes, and that it tells the truth."""

import asyncio
import os
import random
import sqlite3
import time
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from structlog.testing import capture_logs

from app.errors import ConflictError, InvalidInputError, SourceError, UnavailableError
from app.imports import ImportLimits, ImportOptions, Imports
from app.models import Counts, FindingKind, Import, ImportStage, ImportState, Memory, MemoryKey, Scope, Validation
from app.redaction import Redaction
from app.store.embedding_protocol import Backlog
from app.store.protocol import ImportBatch, Lease, Store
from tests.conftest import MODEL
from tests.effort import effort
from tests.memories import NOON, new, vector
from tests.source_files import LOOSE_SCHEMA, damage, entry, insert, write_ai_afterimage, write_service

OPTIONS = ImportOptions(batch_size=10)


async def opened(store: Store, folder: Path, lease_seconds: float = 60) -> Imports:
    limits = ImportLimits(folder, folder / "spool", 10, timedelta(seconds=lease_seconds), 1024 * 1024)
    service = Imports(store, limits, Redaction())
    await service.open()
    return service


async def interrupted(store: Store, imports: Imports, path: Path, options: ImportOptions) -> Import:
    """An import that was broken off after its first batch, as by a crash."""
    claimed = await imports.begin(path, options)
    kept = store.imports.save_batch

    async def save(lease: Lease, batch: ImportBatch, now: datetime, *, dry_run: bool) -> Counts:
        counts = await kept(lease, batch, now, dry_run=dry_run)
        task.cancel()
        return counts

    store.imports.save_batch = save  # type: ignore[method-assign]
    task = asyncio.create_task(imports.run(claimed))
    await asyncio.wait([task], timeout=20)
    store.imports.save_batch = kept  # type: ignore[method-assign]
    assert task.cancelled()
    job = await imports.get(claimed.job.id, None)
    assert (job.state, job.progress.processed) == (ImportState.RUNNING, 10)
    return job


async def finished(imports: Imports, import_id: UUID) -> Import:
    """What comes of an import that is waiting, when a service runs."""
    imports.start()
    async with asyncio.timeout(20):
        while not (job := await imports.get(import_id, None)).state.is_final:
            await asyncio.sleep(0.02)
    await imports.stop()
    return job


async def test_no_more_wait_than_the_limit(store: Store, tmp_path: Path, source: Path) -> None:
    limits = ImportLimits(tmp_path, tmp_path / "spool", 10, timedelta(seconds=60), 1024 * 1024, max_queued=2)
    service = Imports(store, limits, Redaction())
    await service.open()
    for _ in range(2):
        await service.queue_file(source.name, OPTIONS)
    with pytest.raises(UnavailableError, match="2 imports wait already"):
        await service.queue_file(source.name, OPTIONS)
    assert len(list((tmp_path / "spool").glob("*.sqlite"))) == 2


async def test_imports_that_wait_for_another_spool_folder_take_no_places(
    store: Store, tmp_path: Path, source: Path
) -> None:
    gone, here = (
        Imports(
            store,
            ImportLimits(tmp_path, tmp_path / name, 10, timedelta(seconds=60), 1024 * 1024, max_queued=1),
            Redaction(),
        )
        for name in ("gone", "here")
    )
    for service in (gone, here):
        await service.open()
        await service.queue_file(source.name, OPTIONS)
    with pytest.raises(UnavailableError):
        await here.queue_file(source.name, OPTIONS)


async def test_imports_that_come_at_the_same_time_share_the_places(store: Store, tmp_path: Path, source: Path) -> None:
    limits = ImportLimits(tmp_path, tmp_path / "spool", 10, timedelta(seconds=60), 1024 * 1024, max_queued=2)
    service = Imports(store, limits, Redaction())
    await service.open()
    answers = await asyncio.gather(
        *(service.queue_file(source.name, OPTIONS) for _ in range(8)), return_exceptions=True
    )
    taken = [answer for answer in answers if isinstance(answer, Import)]
    assert 1 <= len(taken) <= 2
    assert all(isinstance(answer, Import | UnavailableError) for answer in answers)
    assert await store.imports.count(ImportState.QUEUED) == len(list((tmp_path / "spool").glob("*.sqlite*")))


@pytest.fixture
async def imports(store: Store, tmp_path: Path) -> Imports:
    return await opened(store, tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_ai_afterimage(tmp_path / "memory.db", [entry(number) for number in range(1, 36)])


async def run(imports: Imports, path: Path, options: ImportOptions = OPTIONS) -> Import:
    job = await imports.run(await imports.begin(path, options))
    assert job is not None
    assert job.counts.source_entries == job.counts.migrated + job.counts.skipped + job.counts.failed
    if job.state is ImportState.COMPLETED and job.validate and not job.dry_run:
        assert job.validation.checked == job.counts.migrated + job.counts.skipped
    return job


async def stored(store: Store) -> list[Memory]:
    return await store.memories.page(Scope(), 1000, None)


async def test_every_field_and_vector_arrives(store: Store, imports: Imports, source: Path) -> None:
    job = await run(imports, source)
    assert (job.counts.migrated, job.counts.reembedded) == (35, 0)
    assert (job.validation.checked, job.validation.mismatched, job.validation.missing) == (35, 0, 0)
    for number in (1, 20, 35):
        row = entry(number)
        key = MemoryKey("default", UUID(row["id"]))
        memory = (await store.memories.get([key]))[key]
        for field in ("file_path", "new_code", "old_code", "context", "session_id"):
            assert getattr(memory, field) == row[field]
        assert memory.timestamp.isoformat() == row["timestamp"]
        kept = (await store.embeddings.vectors(MODEL, [key]))[key]
        assert np.array_equal(kept, np.frombuffer(row["embedding"], dtype="<f4").astype(np.float16))


async def test_rows_with_equal_path_and_time_are_different_memories(
    store: Store, imports: Imports, tmp_path: Path
) -> None:
    for name, number in (("one.db", 1), ("two.db", 2)):
        same = {"file_path": "a.py", "timestamp": entry(1)["timestamp"]}
        await run(imports, write_ai_afterimage(tmp_path / name, [entry(number, **same)]))
    assert len(await stored(store)) == 2


async def test_another_model_makes_all_vectors_anew(store: Store, tmp_path: Path, source: Path) -> None:
    await store.models.aim("another", NOON, NOON)
    job = await run(await opened(store, tmp_path), source)
    assert job.counts.reembedded == 35


async def test_vectors_of_a_model_that_is_being_changed_are_kept_and_the_next_are_made(
    store: Store, imports: Imports, source: Path
) -> None:
    await store.memories.add([new(vector(1))], NOON)
    claimed = await imports.begin(source, OPTIONS)
    await store.models.aim("next", NOON, NOON)
    job = await imports.run(claimed)
    assert job is not None
    assert (job.counts.migrated, job.counts.reembedded, job.validation.mismatched) == (35, 0, 0)
    assert await store.embeddings.backlog("next") == Backlog(pending=35, failed=0, pieces_pending=0)


async def test_an_import_that_began_before_its_model_was_wanted_keeps_no_vectors_afterwards(
    store: Store, imports: Imports, source: Path
) -> None:
    await store.models.aim("another", NOON, NOON)
    claimed = await imports.begin(source, OPTIONS)
    await store.models.aim(MODEL, NOON, NOON)
    job = await imports.run(claimed)
    assert job is not None
    assert (job.counts.migrated, job.counts.reembedded, job.validation.mismatched) == (35, 35, 0)


async def test_a_cancelled_import_keeps_what_it_stored_and_can_be_started_again(
    store: Store, imports: Imports, source: Path
) -> None:
    claimed = await imports.begin(source, OPTIONS)
    kept = store.imports.save_batch

    async def save(lease: Lease, batch: ImportBatch, now: datetime, *, dry_run: bool) -> Counts:
        """Somebody asks to cancel while the first batch is being stored."""
        await imports.cancel(claimed.job.id, None)
        return await kept(lease, batch, now, dry_run=dry_run)

    store.imports.save_batch = save  # type: ignore[method-assign]
    job = await imports.run(claimed)
    store.imports.save_batch = kept  # type: ignore[method-assign]
    assert job is not None
    assert (job.state, job.counts.migrated) == (ImportState.CANCELLED, 10)
    assert len(await stored(store)) == job.counts.migrated
    again = await run(imports, source)
    assert (again.counts.skipped, again.counts.migrated) == (job.counts.migrated, 35 - job.counts.migrated)


async def test_undo_needs_an_ended_import(imports: Imports, source: Path) -> None:
    claimed = await imports.begin(source, OPTIONS)
    with pytest.raises(ConflictError, match="cancel it first"):
        await imports.undo(claimed.job.id, None)


async def test_validation_lists_what_differs(store: Store, imports: Imports, source: Path) -> None:
    claimed = await imports.begin(source, ImportOptions(batch_size=100))
    lost, changed = (MemoryKey("default", UUID(entry(number)["id"])) for number in (5, 7))
    kept = store.imports.begin_stage

    async def meddle(lease: Lease, stage: ImportStage, now: datetime, total: int) -> int | None:
        """Other clients delete one memory and replace another, between the stages."""
        if stage is ImportStage.VALIDATING:
            other = new(id=changed.id, new_code="other")
            await store.memories.delete(lost)
            await store.memories.delete(changed)
            await store.memories.add([other], now)
        return await kept(lease, stage, now, total)

    store.imports.begin_stage = meddle  # type: ignore[method-assign]
    job = await imports.run(claimed)
    assert job is not None
    assert job.validation == Validation(checked=35, mismatched=1, missing=1)
    [missing] = await imports.findings(job.id, None, FindingKind.MISSING, 10, None)
    [differing] = await imports.findings(job.id, None, FindingKind.MISMATCHED, 10, None)
    assert (missing.rowid, missing.source_id) == (5, str(lost.id))
    assert (differing.rowid, differing.source_id) == (7, str(changed.id))
    assert "new_code" in differing.reason


async def test_rows_that_are_there_already_keep_the_vectors_that_they_have(
    store: Store, imports: Imports, tmp_path: Path
) -> None:
    bare = write_ai_afterimage(tmp_path / "bare.db", [entry(number, embedding=None) for number in range(1, 21)])
    assert (await run(imports, bare)).counts.reembedded == 20
    full = write_ai_afterimage(tmp_path / "full.db", [entry(number) for number in range(1, 26)])
    job = await run(imports, full)
    assert (job.counts.migrated, job.counts.skipped) == (5, 20)
    assert job.validation == Validation(checked=25, mismatched=0, missing=0)


async def test_a_value_that_the_store_refuses_costs_its_row_alone(store: Store, imports: Imports, source: Path) -> None:
    claimed = await imports.begin(source, OPTIONS)
    kept = store.imports.save_batch

    async def refuse(lease: Lease, batch: ImportBatch, now: datetime, *, dry_run: bool) -> Counts:
        """As a store that has a limit which this service does not know."""
        if any(rowid == 13 for rowid, _ in batch.rows):
            raise InvalidInputError("the store refuses a value")
        return await kept(lease, batch, now, dry_run=dry_run)

    store.imports.save_batch = refuse  # type: ignore[method-assign]
    job = await imports.run(claimed)
    assert job is not None
    assert (job.state, job.counts.migrated, job.counts.failed) == (ImportState.COMPLETED, 34, 1)
    [reject] = await imports.findings(job.id, None, FindingKind.REJECT, 10, None)
    assert (reject.rowid, reject.reason) == (13, "the store refuses a value")


async def test_an_error_of_the_service_ends_an_import_instead_of_repeating_it(
    store: Store, imports: Imports, source: Path
) -> None:
    claimed = await imports.begin(source, OPTIONS)

    async def fail(*arguments: object, **more: object) -> Counts:
        raise ZeroDivisionError

    store.imports.save_batch = fail  # type: ignore[method-assign]
    with capture_logs() as logged:
        job = await imports.run(claimed)
    assert job is not None
    assert "import failed" in [line["event"] for line in logged]
    assert job.state is ImportState.FAILED
    assert "ZeroDivisionError" in str(job.error)


async def test_rows_below_rowid_1_are_accounted_for_like_any_other(
    store: Store, imports: Imports, tmp_path: Path
) -> None:
    source = write_ai_afterimage(tmp_path / "memory.db", [entry(1)], schema=LOOSE_SCHEMA)
    with closing(sqlite3.connect(source)) as connection, connection:
        rows = [{"rowid": -7, **entry(2), "timestamp": "never"}, {"rowid": -5, **entry(3)}, {"rowid": 0, **entry(4)}]
        insert(connection, "code_memory", rows)
    job = await run(imports, source)
    assert (job.counts.source_entries, job.counts.migrated, job.counts.failed) == (4, 3, 1)
    assert (job.validation.checked, job.validation.mismatched, job.validation.missing) == (3, 0, 0)
    [reject] = await store.imports.findings(job.id, job.project, FindingKind.REJECT, 10, None)
    assert reject.rowid == -7


async def test_a_long_path_is_imported_like_any_other(store: Store, imports: Imports, tmp_path: Path) -> None:
    folder = tmp_path
    for part in range(12):
        folder = folder / f"{part}".rjust(250, "x")
    folder.mkdir(parents=True)
    path = write_ai_afterimage(tmp_path / "memory.db", [entry(1)]).rename(folder / "memory.db")
    assert (await run(imports, path)).counts.migrated == 1


async def test_names_that_are_not_utf_8_are_no_obstacle(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"f\xff")
    folder.mkdir()
    path = write_ai_afterimage(folder / os.fsdecode(b"m\xff\n.db"), [entry(1)])
    job = await run(await opened(store, folder), path)
    assert (job.source.name, job.counts.migrated) == ("m\ufffd\n.db", 1)


async def test_a_start_that_is_cancelled_ends_behind_its_copy_and_removes_it(
    imports: Imports, source: Path, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(source, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        start = asyncio.create_task(imports.begin(source, OPTIONS))
        while not list((tmp_path / "spool").glob("*.partial")):
            await asyncio.sleep(0.01)
        start.cancel()
        await asyncio.wait({start}, timeout=0.1)
        assert not start.done()
        other.execute("ROLLBACK")
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not list((tmp_path / "spool").glob("*.sqlite*"))


async def test_a_refused_start_leaves_no_copy_behind(imports: Imports, source: Path, tmp_path: Path) -> None:
    claimed = await imports.begin(source, OPTIONS)
    with pytest.raises(ConflictError):
        await imports.begin(source, ImportOptions(dry_run=True))
    assert [path.stem for path in (tmp_path / "spool").glob("*.sqlite*")] == [str(claimed.job.id)]


async def test_a_service_file_keeps_its_projects_unless_told_otherwise(
    store: Store, imports: Imports, tmp_path: Path
) -> None:
    times = {"timestamp": "2026-01-01T00:00:00.000000Z", "created_at": "2026-01-01T00:00:00.000000Z"}
    rows = [
        {"project": name, "id": entry(number)["id"], "file_path": "a.py", "new_code": "x", "agent_id": "me", **times}
        for number, name in enumerate(("a", "b"), start=1)
    ]
    path = write_service(tmp_path / "service.db", rows)
    await run(imports, path)
    assert {(memory.project, memory.agent_id) for memory in await stored(store)} == {("a", "me"), ("b", "me")}
    await run(imports, path, ImportOptions(project="c"))
    assert [memory.project for memory in await stored(store)].count("c") == 2


async def test_a_missing_private_copy_fails_the_import_with_the_way_out(
    imports: Imports, source: Path, tmp_path: Path
) -> None:
    claimed = await imports.begin(source, OPTIONS)
    (tmp_path / "spool" / f"{claimed.job.id}.sqlite").unlink()
    job = await imports.run(claimed)
    assert job is not None
    assert job.state is ImportState.FAILED
    assert "start the import again" in str(job.error)


@pytest.mark.parametrize("seed", range(effort(8, full=80)))
async def test_a_damaged_file_is_refused_or_accounted_for(
    store: Store, imports: Imports, tmp_path: Path, seed: int
) -> None:
    path = write_ai_afterimage(tmp_path / "damaged.db", [entry(number) for number in range(1, 101)])
    damage(path, random.Random(seed), seed)
    try:
        job = await run(imports, path)
    except SourceError:
        assert await stored(store) == []
    else:
        assert len(await stored(store)) == job.counts.migrated
        assert (job.validation.mismatched, job.validation.missing) in {(0, 0), (None, None)}
        rejects = await imports.findings(job.id, None, FindingKind.REJECT, 1000, None)
        assert len(rejects) == job.counts.failed


async def test_copies_that_no_import_needs_are_swept_at_the_next_start(
    imports: Imports, source: Path, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    needed = spool / f"{(await imports.begin(source, OPTIONS)).job.id}.sqlite"
    partial, old, foreign = (
        spool / f"01900000-0000-7000-8000-00000000000{number}.sqlite{end}"
        for number, end in enumerate((".partial", "", ""))
    )
    hour_ago = time.time() - 2 * 3600
    for path, written_at in ((partial, hour_ago), (old, 0), (foreign, hour_ago), (needed, hour_ago)):
        path.touch()
        os.utime(path, (written_at, written_at))
    (spool / "01900000-0000-7000-8000-000000000009.sqlite").symlink_to("nowhere")
    imports.start()
    async with asyncio.timeout(10):
        while partial.exists() or old.exists():
            await asyncio.sleep(0.01)
    await imports.stop()
    assert foreign.exists()
    assert needed.exists()
