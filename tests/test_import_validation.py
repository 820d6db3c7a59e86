"""What an import compares and counts beyond the plain case, on each store."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from app.imports import ImportOptions, Imports
from app.models import FindingKind, Import, ImportStage, ImportState, MemoryKey, Validation
from app.store.protocol import Lease, Store
from tests.memories import NOON, new
from tests.source_files import (
    LOOSE_SCHEMA,
    entry,
    row_page,
    vector_blob,
    write_ai_afterimage,
    write_service,
    zero_page,
)
from tests.test_imports import OPTIONS, opened, run

KEY = MemoryKey("default", UUID(entry(1)["id"]))
SERVICE_ROW = {
    "project": "default",
    "id": entry(1)["id"],
    "file_path": "a.py",
    "new_code": "x",
    "agent_id": "me",
    "language": "klingon",
    "timestamp": "2026-05-01T12:00:00.000000Z",
    "created_at": "2026-05-01T12:00:00.000000Z",
}


@pytest.fixture
async def imports(store: Store, tmp_path: Path) -> Imports:
    return await opened(store, tmp_path)


async def run_with(
    imports: Imports, store: Store, path: Path, before_validating: Callable[[], Awaitable[None]]
) -> Import:
    """Imports a file; something happens between migrating and validating."""
    kept = store.imports.begin_stage

    async def begin_stage(lease: Lease, stage: ImportStage, now: datetime, total: int) -> int | None:
        if stage is ImportStage.VALIDATING:
            await before_validating()
        return await kept(lease, stage, now, total)

    store.imports.begin_stage = begin_stage  # type: ignore[method-assign]
    try:
        job = await imports.run(await imports.begin(path, OPTIONS))
    finally:
        store.imports.begin_stage = kept  # type: ignore[method-assign]
    assert job is not None
    return job


@pytest.mark.parametrize(("field", "other"), [("agent_id", "you"), ("language", "python")])
async def test_fields_that_only_our_own_files_have_are_compared_as_well(
    store: Store, imports: Imports, tmp_path: Path, field: str, other: str
) -> None:
    path = write_service(tmp_path / "service.db", [SERVICE_ROW])

    async def exchange() -> None:
        [there] = (await store.memories.get([KEY])).values()
        assert (there.agent_id, there.language) == ("me", "klingon")
        fields: dict[str, Any] = {name: SERVICE_ROW[name] for name in ("file_path", "new_code", "agent_id", "language")}
        fields[field] = other
        await store.memories.delete(KEY)
        await store.memories.add([new(id=KEY.id, **fields)], NOON)

    job = await run_with(imports, store, path, exchange)
    assert job.validation == Validation(checked=1, mismatched=1, missing=0)
    [finding] = await imports.findings(job.id, None, FindingKind.MISMATCHED, 10, None)
    assert finding.reason == f"stored with another {field}"
    again = await run(imports, path)
    [reject] = await imports.findings(again.id, None, FindingKind.REJECT, 10, None)
    assert reject.reason == f"the id is taken by a memory of project default with another {field}"


async def test_fields_that_a_file_does_not_have_make_no_difference(
    store: Store, imports: Imports, tmp_path: Path
) -> None:
    row = entry(1)
    content: dict[str, Any] = {
        name: row[name] for name in ("file_path", "new_code", "old_code", "context", "session_id")
    }
    time = datetime.fromisoformat(row["timestamp"])
    await store.memories.add([new(id=KEY.id, agent_id="me", language="klingon", timestamp=time, **content)], NOON)
    job = await run(imports, write_ai_afterimage(tmp_path / "memory.db", [{**row, "embedding": None}]))
    assert (job.counts.skipped, job.counts.failed) == (1, 0)
    assert job.validation == Validation(checked=1, mismatched=0, missing=0)


async def test_a_row_that_cannot_be_read_again_is_listed(store: Store, imports: Imports, tmp_path: Path) -> None:
    source = write_ai_afterimage(tmp_path / "memory.db", [entry(number) for number in range(1, 36)])

    async def die() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await run_with(imports, store, source, die)
    [copy] = (tmp_path / "spool").glob("*.sqlite")
    zero_page(copy, row_page(copy, "/module_7.py"))
    now = datetime.now(UTC)
    claimed = await store.imports.claim(imports._spool.id, now, now + timedelta(minutes=1), only=None)
    assert claimed is not None
    job = await imports.run(claimed)
    assert job is not None
    assert (job.state, job.counts.migrated) == (ImportState.COMPLETED, 35)
    unread = await imports.findings(job.id, None, FindingKind.MISMATCHED, 100, None)
    assert job.validation == Validation(checked=35, mismatched=len(unread), missing=0)
    assert 7 in [finding.rowid for finding in unread]
    assert all("it was taken, and now the row cannot be read" in finding.reason for finding in unread)


async def test_what_was_changed_to_take_a_row_is_counted(store: Store, imports: Imports, tmp_path: Path) -> None:
    nothing_finite = np.full(384, np.nan, "<f4").tobytes()
    rows = [
        entry(1),
        entry(2, new_code="a\0b"),
        entry(3, id="not a UUID"),
        entry(4, context=5),
        entry(5, embedding=vector_blob(5, dimensions=3)),
        entry(6, embedding=nothing_finite),
        entry(7, embedding=None),
        entry(8, new_code="\0", embedding=bytes(384 * 4)),
        entry(9, timestamp="yesterday"),
    ]
    path = write_ai_afterimage(tmp_path / "memory.db", rows, schema=LOOSE_SCHEMA)
    counts = (await run(imports, path, ImportOptions(dry_run=True))).counts
    assert counts == (job := await run(imports, path)).counts
    assert (counts.migrated, counts.failed, counts.reembedded) == (8, 1, 5)
    assert (counts.altered, counts.unusable_vectors) == (4, 4)
    assert job.validation == Validation(checked=8, mismatched=0, missing=0)
    again = (await run(imports, path)).counts
    assert (again.skipped, again.altered, again.unusable_vectors) == (8, 0, 0)
