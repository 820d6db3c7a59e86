"""Imports that are interrupted, on each store: who goes on with them, and what is in whose way."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.errors import ConflictError, LeaseLostError, SourceError
from app.imports import Imports
from app.models import ImportStage, ImportState
from app.store.protocol import Store
from tests.conftest import MODEL
from tests.memories import NOON, vector
from tests.source_files import entry, insert, write_ai_afterimage
from tests.test_imports import OPTIONS, finished, interrupted, opened, run, stored


@pytest.fixture
async def imports(store: Store, tmp_path: Path) -> Imports:
    return await opened(store, tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_ai_afterimage(tmp_path / "memory.db", [entry(number) for number in range(1, 36)])


async def test_a_change_of_the_model_during_an_import_is_no_difference(
    store: Store, tmp_path: Path, source: Path
) -> None:
    before = await interrupted(store, await opened(store, tmp_path), source, OPTIONS)
    kept = before.counts.migrated
    await store.models.aim("next", datetime.now(UTC), NOON)
    await store.embeddings.queue_missing("next", NOON)
    claims = await store.embeddings.claim("next", 1000, datetime.now(UTC), NOON)
    await store.embeddings.save("next", {claim.memory.key: vector(1, dimensions=5) for claim in claims})
    assert await store.models.switch("next", NOON, NOON)
    await store.models.sweep(None, 1000)
    job = await finished(await opened(store, tmp_path), before.id)
    assert (job.state, job.counts.migrated, job.counts.reembedded) == (ImportState.COMPLETED, 35, 35 - kept)
    assert (job.validation.checked, job.validation.mismatched, job.validation.missing) == (35, 0, 0)
    assert await store.embeddings.vectors(MODEL, [memory.key for memory in await stored(store)]) == {}


async def test_an_interrupted_import_goes_on_where_it_stopped(store: Store, tmp_path: Path, source: Path) -> None:
    before = await interrupted(store, await opened(store, tmp_path), source, OPTIONS)
    job = await finished(await opened(store, tmp_path), before.id)
    assert job.state is ImportState.COMPLETED
    assert (job.counts.migrated, job.counts.skipped, job.counts.failed) == (35, 0, 0)
    assert len(await stored(store)) == 35


async def test_the_same_command_goes_on_with_an_import_whose_process_was_killed(
    store: Store, tmp_path: Path, source: Path
) -> None:
    killed = await opened(store, tmp_path, lease_seconds=0.2)
    claimed = await killed.begin(source, OPTIONS)
    await store.imports.begin_stage(claimed.lease, ImportStage.MIGRATING, claimed.job.created_at, 35)
    alive = await opened(store, tmp_path)
    async with asyncio.timeout(10):
        while True:
            try:
                again = await alive.begin(source, OPTIONS)
                break
            except ConflictError:
                await asyncio.sleep(0.05)
    assert again.job.id == claimed.job.id
    job = await alive.run(again)
    assert job is not None
    assert job.counts.migrated == 35
    assert await killed.run(claimed) is None


async def test_the_same_file_is_imported_although_the_copy_of_a_killed_process_is_out_of_reach(
    store: Store, tmp_path: Path, source: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    killed = await (await opened(store, elsewhere)).begin(source, OPTIONS)
    await store.imports.begin_stage(killed.lease, ImportStage.MIGRATING, killed.job.created_at, 35)
    here = await opened(store, tmp_path)
    with pytest.raises(ConflictError):
        await here.begin(source, OPTIONS)
    await store.imports.hand_back(killed.lease, killed.job.created_at)
    assert (await run(here, source)).counts.migrated == 35
    waiting = await here.get(killed.job.id, None)
    assert waiting.state is ImportState.QUEUED
    assert str(elsewhere / "spool") in str(waiting.notes)
    assert (await here.cancel(killed.job.id, None)).state is ImportState.CANCELLED


@pytest.mark.parametrize("change", ["rows", "validation", "project"])
async def test_an_interrupted_import_of_what_has_changed_gives_way_to_a_new_one(
    store: Store, imports: Imports, source: Path, change: str
) -> None:
    killed = await imports.begin(source, OPTIONS)
    await store.imports.begin_stage(killed.lease, ImportStage.MIGRATING, killed.job.created_at, 35)
    await store.imports.hand_back(killed.lease, killed.job.created_at)
    options = OPTIONS
    if change == "rows":
        with closing(sqlite3.connect(source)) as connection, connection:
            insert(connection, "code_memory", [entry(36)])
    elif change == "validation":
        options = replace(OPTIONS, validate=False)
    else:  # named, it takes in what a file of this service keeps elsewhere
        options = replace(OPTIONS, project="default")
    job = await run(imports, source, options)
    assert job.id != killed.job.id
    assert job.counts.migrated == (36 if change == "rows" else 35)
    assert job.validate == options.validate
    old = await imports.get(killed.job.id, None)
    assert (old.state, old.counts.migrated) == (ImportState.CANCELLED, 0)
    assert list(imports._limits.spool.glob("*.sqlite*")) == []


async def test_an_interrupted_import_is_kept_while_what_stands_in_the_place_of_its_file_is_no_source(
    store: Store, imports: Imports, source: Path
) -> None:
    killed = await imports.begin(source, OPTIONS)
    await store.imports.hand_back(killed.lease, killed.job.created_at)
    with closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("DROP TABLE code_memory")
    with pytest.raises(SourceError):
        await imports.begin(source, OPTIONS)
    assert (await imports.get(killed.job.id, None)).state is ImportState.RUNNING
    assert [copy.stem for copy in imports._limits.spool.glob("*.sqlite")] == [str(killed.job.id)]


async def test_what_was_sent_before_a_lease_was_handed_back_and_comes_later_is_refused(
    store: Store, imports: Imports, source: Path
) -> None:
    claimed = await imports.begin(source, OPTIONS)
    await store.imports.hand_back(claimed.lease, datetime.now(UTC))
    with pytest.raises(LeaseLostError):
        await store.imports.renew(claimed.lease, datetime.now(UTC) + timedelta(minutes=1))
    now = datetime.now(UTC)
    assert await store.imports.claim(imports._spool.id, now, now, claimed.job.id) is not None
    await store.imports.hand_back(claimed.lease, now)  # of an old lease it does nothing


async def test_a_stop_at_any_moment_leaves_no_lease_behind(store: Store, tmp_path: Path) -> None:
    source = write_ai_afterimage(tmp_path / "memory.db", [entry(number) for number in range(1, 1000)])
    service = await opened(store, tmp_path)
    job = await service.queue_file(source.name, OPTIONS)
    for half_milliseconds in range(30):
        service.start()
        await asyncio.sleep(half_milliseconds / 2000)
        await service.stop()
        now = datetime.now(UTC)
        assert await store.imports.claim(service._spool.id, now, now, job.id) is not None
