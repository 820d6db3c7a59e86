"""The contract of ImportStore, on every store."""

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from uuid_utils.compat import uuid7

from app.errors import LeaseLostError, NotFoundError
from app.models import (
    Counts,
    Finding,
    FindingKind,
    ImportStage,
    ImportState,
    NewImport,
    NewMemory,
    Reject,
    Validation,
)
from app.store.protocol import ClaimedImport, ImportBatch, Store
from tests.conftest import MODEL
from tests.memories import NOON, minutes, new

SPOOL = UUID(int=1)
OTHER_SPOOL = UUID(int=2)
LATER = NOON + minutes(1)


def wanted(**fields: Any) -> NewImport:
    plain = NewImport(
        id=uuid7(),
        project="default",
        keep_projects=True,
        source_name="memory.db",
        source_key="file:/memory.db",
        source_size_bytes=4096,
        source_format="AI-AfterImage 0.8",
        spool=SPOOL,
        spool_folder="/spool on one",
        validate=True,
        dry_run=False,
        batch_size=10,
        model=MODEL,
    )
    return replace(plain, **fields)


def batch(*rows: NewMemory, rejects: tuple[Reject, ...] = (), first: int = 1) -> ImportBatch:
    numbered = list(enumerate(rows, start=first))
    return ImportBatch(rows=numbered, rejects=rejects, last_rowid=first + len(rows) + len(rejects) - 1)


async def begun(store: Store, **fields: Any) -> ClaimedImport:
    """An import that is migrating."""
    claimed = await store.imports.create(wanted(**fields), NOON, LATER)
    assert claimed is not None
    await store.imports.begin_stage(claimed.lease, ImportStage.MIGRATING, NOON, 3)
    return claimed


async def test_a_queued_import_is_claimed_once(store: Store) -> None:
    queued = await store.imports.create(wanted(), NOON, None)
    assert queued is not None
    assert queued.job.state is ImportState.QUEUED
    claimed = await store.imports.claim(SPOOL, NOON, LATER, None)
    assert claimed is not None
    assert (claimed.job.id, claimed.job.state) == (queued.job.id, ImportState.RUNNING)
    assert claimed.keep_projects
    assert await store.imports.claim(SPOOL, NOON, LATER, None) is None


async def test_the_oldest_import_is_claimed_first(store: Store) -> None:
    jobs = [wanted(source_key=f"file:{index}") for index in range(3)]
    for index, job in enumerate(jobs):
        await store.imports.create(job, NOON + minutes(index), None)
    claimed = [await store.imports.claim(SPOOL, NOON, LATER, None) for _ in jobs]
    assert [one.job.id for one in claimed if one] == [job.id for job in jobs]


async def test_only_one_import_of_a_file_runs_at_a_time(store: Store) -> None:
    first = await begun(store)
    assert await store.imports.create(wanted(), NOON, LATER) is None
    await store.imports.create(wanted(), NOON, None)
    assert await store.imports.claim(SPOOL, NOON, LATER, None) is None
    await store.imports.finish(first.lease, ImportState.CANCELLED, NOON, None, None)
    assert await store.imports.claim(SPOOL, NOON, LATER, None) is not None


async def test_a_process_without_the_private_copies_takes_nothing(store: Store) -> None:
    await store.imports.create(wanted(), NOON, None)
    assert await store.imports.claim(UUID(int=2), NOON, LATER, None) is None


async def test_an_expired_lease_is_taken_over_and_the_old_one_can_write_no_more(store: Store) -> None:
    old = await begun(store)
    assert await store.imports.claim(SPOOL, LATER, LATER, None) is None
    taken = await store.imports.claim(SPOOL, LATER + minutes(1), LATER + minutes(2), None)
    assert taken is not None
    assert taken.lease.token == old.lease.token + 1
    row = new()
    with pytest.raises(LeaseLostError):
        await store.imports.save_batch(old.lease, batch(row), NOON, dry_run=False)
    for attempt in (
        store.imports.renew(old.lease, LATER),
        store.imports.begin_stage(old.lease, ImportStage.VALIDATING, NOON, 1),
        store.imports.finish(old.lease, ImportState.COMPLETED, NOON, None, None),
        store.imports.save_validation(old.lease, 1, 1, Validation(1, 0, 0), []),
    ):
        with pytest.raises(LeaseLostError):
            await attempt
    assert await store.memories.find(row.memory.id, None) == []


async def test_an_import_whose_process_is_gone_is_in_nobodys_way_and_tells_what_it_waits_for(store: Store) -> None:
    gone = await begun(store)
    await store.imports.save_batch(gone.lease, batch(new()), NOON, dry_run=False)
    other = wanted(spool=OTHER_SPOOL)
    assert await store.imports.create(other, NOON, None) is not None
    assert await store.imports.claim(OTHER_SPOOL, LATER, LATER, None) is None
    claimed = await store.imports.claim(OTHER_SPOOL, LATER + minutes(1), LATER + minutes(2), None)
    assert claimed is not None
    assert claimed.job.id == other.id
    waiting = await store.imports.get(gone.job.id, None)
    assert waiting is not None
    assert (waiting.state, waiting.progress.processed) == (ImportState.QUEUED, 1)
    assert "/spool on one (AFTERIMAGE_SPOOL_FOLDER)" in str(waiting.notes)
    with pytest.raises(LeaseLostError):
        await store.imports.renew(gone.lease, LATER + minutes(9))
    assert await store.imports.claim(SPOOL, LATER + minutes(1), LATER + minutes(2), None) is None
    await store.imports.finish(claimed.lease, ImportState.CANCELLED, LATER, None, None)
    back = await store.imports.claim(SPOOL, LATER + minutes(1), LATER + minutes(2), None)
    assert back is not None
    assert (back.job.id, back.job.progress.processed, back.job.notes) == (gone.job.id, 1, None)


async def test_an_import_that_never_began_tells_what_it_waits_for(store: Store) -> None:
    queued = await store.imports.create(wanted(), NOON, None)
    assert queued is not None
    assert str(queued.job.notes).startswith("it waits for a service with the spool folder /spool on one (AFTERIMAGE_")
    cancelled = await store.imports.cancel(queued.job.id, "default", NOON)
    assert cancelled.notes is None


async def test_an_import_begins_while_one_of_the_same_file_is_left_without_a_process(store: Store) -> None:
    gone = await begun(store)
    assert await store.imports.create(wanted(spool=OTHER_SPOOL), LATER, LATER) is None
    assert await store.imports.create(wanted(spool=OTHER_SPOOL), LATER + minutes(1), LATER + minutes(2)) is not None
    waiting = await store.imports.get(gone.job.id, None)
    assert waiting is not None
    assert waiting.state is ImportState.QUEUED


async def test_an_import_that_was_to_stop_ends_when_its_process_is_gone(store: Store) -> None:
    gone = await begun(store)
    await store.imports.cancel(gone.job.id, "default", NOON)
    assert await store.imports.claim(OTHER_SPOOL, LATER + minutes(1), LATER + minutes(2), None) is None
    ended = await store.imports.get(gone.job.id, None)
    assert ended is not None
    assert (ended.state, ended.finished_at, ended.notes) == (ImportState.CANCELLED, LATER + minutes(1), None)


async def test_a_batch_accounts_for_every_row(store: Store) -> None:
    there = new(new_code="one")
    same = new()
    await store.memories.add([there, same], NOON)
    claimed = await begun(store)
    fresh = new(import_id=claimed.job.id)
    changed = new(id=there.memory.id, new_code="two")
    rows = (fresh, same, changed, fresh, new(id=fresh.memory.id, new_code="other"))
    counts = await store.imports.save_batch(
        claimed.lease, batch(*rows, rejects=(Reject(6, "x", "no code"),)), NOON, dry_run=False
    )
    assert counts == Counts(source_entries=3, migrated=1, skipped=2, failed=3, reembedded=1)
    found = await store.imports.findings(claimed.job.id, "default", FindingKind.REJECT, 10, None)
    assert [(one.rowid, one.source_id) for one in found] == [
        (3, str(there.memory.id)),
        (5, str(fresh.memory.id)),
        (6, "x"),
    ]
    assert "another new_code" in found[0].reason
    assert [one.rowid for one in await store.imports.findings(claimed.job.id, "default", FindingKind.REJECT, 1, 3)] == [
        5
    ]
    [kept] = await store.memories.find(there.memory.id, None)
    assert kept.new_code == "one"


async def test_a_dry_run_counts_and_stores_nothing(store: Store) -> None:
    same = new()
    await store.memories.add([same], NOON)
    claimed = await begun(store, dry_run=True)
    counts = await store.imports.save_batch(claimed.lease, batch(same, new()), NOON, dry_run=True)
    assert (counts.migrated, counts.skipped, counts.failed) == (1, 1, 0)
    assert (await store.memories.stats(None, MODEL)).total_entries == 1


async def test_a_resumed_stage_goes_on_where_it_stopped(store: Store) -> None:
    claimed = await begun(store)
    await store.imports.save_batch(claimed.lease, batch(new(), new()), NOON, dry_run=False)
    taken = await store.imports.claim(SPOOL, LATER + minutes(1), LATER + minutes(2), None)
    assert taken is not None
    assert await store.imports.begin_stage(taken.lease, ImportStage.MIGRATING, LATER, 3) == 2
    job = await store.imports.get(claimed.job.id, None)
    assert job is not None
    assert (job.progress.processed, job.progress.total, job.progress.percent) == (2, 3, 66.7)
    assert await store.imports.begin_stage(taken.lease, ImportStage.VALIDATING, LATER, 3) is None


async def test_a_completed_import_has_accounted_for_all_rows(store: Store) -> None:
    claimed = await begun(store)
    await store.imports.save_batch(claimed.lease, batch(new(), new(), new()), NOON, dry_run=False)
    await store.imports.begin_stage(claimed.lease, ImportStage.VALIDATING, NOON, 3)
    finding = Finding(FindingKind.MISMATCHED, 2, "x", "stored with another context")
    await store.imports.save_validation(claimed.lease, 3, 3, Validation(3, 1, 0), [finding])
    job = await store.imports.finish(claimed.lease, ImportState.COMPLETED, LATER, None, "a note")
    assert (job.state, job.stage, job.progress.percent) == (ImportState.COMPLETED, ImportStage.DONE, 100.0)
    assert (job.validation, job.notes, job.elapsed_seconds) == (Validation(3, 1, 0), "a note", 60.0)
    assert await store.imports.findings(job.id, "default", FindingKind.MISMATCHED, 10, None) == [finding]


async def test_an_import_cannot_complete_with_rows_unaccounted_for(store: Store) -> None:
    claimed = await begun(store)
    with pytest.raises(Exception, match=r"(?i)check|constraint"):
        await store.imports.finish(claimed.lease, ImportState.COMPLETED, LATER, None, None)
    job = await store.imports.get(claimed.job.id, None)
    assert job is not None
    assert job.state is ImportState.RUNNING


async def test_cancel_ends_a_queued_import_and_asks_a_running_one(store: Store) -> None:
    running = await begun(store)
    queued = await store.imports.create(wanted(), NOON, None)
    assert queued is not None
    assert (await store.imports.cancel(queued.job.id, "default", NOON)).state is ImportState.CANCELLED
    assert (await store.imports.cancel(running.job.id, "default", NOON)).state is ImportState.RUNNING
    assert await store.imports.renew(running.lease, LATER)
    ended = await store.imports.finish(running.lease, ImportState.CANCELLED, NOON, None, None)
    assert (await store.imports.cancel(ended.id, "default", LATER)).finished_at == NOON
    with pytest.raises(NotFoundError):
        await store.imports.cancel(uuid4(), "default", NOON)


async def test_cancel_ends_an_import_whose_process_is_gone(store: Store) -> None:
    claimed = await begun(store)
    job = await store.imports.cancel(claimed.job.id, "default", LATER + minutes(1))
    assert job.state is ImportState.CANCELLED


async def test_undo_deletes_what_the_import_stored_and_nothing_else(store: Store) -> None:
    before = new()
    await store.memories.add([before], NOON)
    claimed = await begun(store)
    rows = [new(import_id=claimed.job.id, project=f"p{index}") for index in range(3)]
    await store.imports.save_batch(claimed.lease, batch(before, *rows), NOON, dry_run=False)
    assert await store.imports.delete_memories(claimed.job.id, ["p0"], 10) == 1
    assert await store.imports.delete_memories(claimed.job.id, None, 1) == 1
    assert await store.imports.delete_memories(claimed.job.id, None, 10) == 1
    assert await store.imports.delete_memories(claimed.job.id, None, 10) == 0
    assert await store.memories.find(before.memory.id, None) == [before.memory]
    assert (await store.memories.stats(None, MODEL)).total_entries == 1


async def test_imports_are_listed_from_new_to_old(store: Store) -> None:
    jobs = [wanted(source_key=f"file:{index}") for index in range(5)]
    for job in jobs:
        await store.imports.create(job, NOON, None)
    first = await store.imports.page(None, 3, None)
    rest = await store.imports.page(None, 3, first[-1].id)
    assert [job.id for job in [*first, *rest]] == [job.id for job in reversed(jobs)]
    assert await store.imports.page(["other"], 3, None) == []


async def test_the_unfinished_import_of_a_file_is_found(store: Store) -> None:
    claimed = await begun(store)
    found = await store.imports.running("default", "file:/memory.db", SPOOL)
    assert found is not None
    assert found.id == claimed.job.id
    assert await store.imports.running("default", "file:/other.db", SPOOL) is None
    assert await store.imports.running("default", "file:/memory.db", OTHER_SPOOL) is None
