"""A dry run tells what the import would, on each store."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from app.imports import Imports
from app.models import Counts, Finding, FindingKind, Import, Scope
from app.store.protocol import Store
from tests.source_files import LOOSE_SCHEMA, entry, write_ai_afterimage
from tests.test_imports import OPTIONS, interrupted, opened, run

DRY = replace(OPTIONS, dry_run=True)


@pytest.fixture
async def imports(store: Store, tmp_path: Path) -> Imports:
    return await opened(store, tmp_path)


@pytest.fixture
def repeating(tmp_path: Path) -> Path:
    """Ids twice in a batch of ten and in two of them, with the same content and with other."""
    numbers = [*range(1, 9), 8, 5, *range(9, 19), 18, 4, 1, *range(19, 36), 30, 8]
    rows = [entry(number) for number in numbers]
    rows += [entry(2, new_code="other"), entry(7, new_code="other"), entry(35, context="other"), entry(36), entry(36)]
    return write_ai_afterimage(tmp_path / "repeating.db", rows, schema=LOOSE_SCHEMA)


async def report(imports: Imports, job: Import) -> tuple[Counts, Sequence[Finding]]:
    return job.counts, await imports.findings(job.id, None, FindingKind.REJECT, 100, None)


async def test_a_dry_run_reports_what_the_import_does_also_of_ids_that_come_twice(
    store: Store, imports: Imports, repeating: Path, tmp_path: Path
) -> None:
    await run(imports, write_ai_afterimage(tmp_path / "before.db", [entry(number) for number in (1, 2, 3)]))
    dry = await report(imports, await run(imports, repeating, DRY))
    assert len(await store.memories.page(Scope(), 1000, None)) == 3
    job = await run(imports, repeating)
    assert dry == await report(imports, job)
    assert (job.counts.migrated, job.counts.skipped, job.counts.failed) == (33, 11, 3)


async def test_a_dry_run_that_was_interrupted_still_knows_the_ids_it_met(
    store: Store, imports: Imports, repeating: Path
) -> None:
    before = await interrupted(store, imports, repeating, DRY)
    again = await imports.begin(repeating, DRY)
    assert again.job.id == before.id
    dry = await imports.run(again)
    assert dry is not None
    assert await report(imports, dry) == await report(imports, await run(imports, repeating))
