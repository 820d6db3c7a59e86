"""What `afterimage migrate` shows: AI-AfterImage's lines, a live bar on a terminal, and the report."""

import asyncio
import sys
from collections.abc import Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from app.imports import Imports
from app.models import Finding, Import, ImportStage, ImportState
from app.store.protocol import ClaimedImport

POLL_SECONDS = 0.1

SHOWN_FINDINGS = 10

TITLES = {
    ImportStage.READING: "Reading source data",
    ImportStage.MIGRATING: "Migrating entries",
    ImportStage.VALIDATING: "Validating migration",
}

RULE = "=" * 60


async def follow(imports: Imports, claimed: ClaimedImport) -> Import:
    """Runs an import and shows how it goes on; Ctrl-C ends it after the batch in hand, with its counts."""
    run = asyncio.create_task(imports.run(claimed))
    show = _Bar() if sys.stdout.isatty() else _Lines()
    job = claimed.job
    try:
        while not run.done():
            show.update(await imports.get(job.id, None))
            await asyncio.wait({run}, timeout=POLL_SECONDS)
    except asyncio.CancelledError:
        await imports.cancel(job.id, None)
        await run
    ended = await run or await imports.get(job.id, None)
    show.end(ended)
    return ended


def print_report(job: Import, findings: Sequence[Finding]) -> None:
    """AI-AfterImage's report, and what it never said: which rows, and why."""
    counts = job.counts
    taken = counts.migrated + counts.skipped
    rate = 100 * taken / counts.source_entries if counts.source_entries else 100.0
    print()
    print(RULE)
    print("AI-AfterImage Migration Report")
    print(RULE)
    print(f"Source entries:     {counts.source_entries}")
    print(f"Migrated:           {counts.migrated}")
    print(f"Skipped (existing): {counts.skipped}")
    print(f"Failed:             {counts.failed}")
    print(f"Success rate:       {rate:.1f}%")
    print(f"Elapsed time:       {job.elapsed_seconds:.1f}s")
    if job.dry_run:
        print("Dry run:            nothing was stored")
    if counts.reembedded:
        print(f"To be embedded:     {counts.reembedded}")
    if counts.unusable_vectors:
        print(f"Unusable vectors:   {counts.unusable_vectors} (made anew)")
    if counts.altered:
        print(f"Altered to fit:     {counts.altered} (NUL characters, ids that are no UUID, text that is none)")
    if counts.redacted:
        print(f"Secrets redacted:   {counts.redacted}")
    if job.notes:
        print(f"Not carried over:   {job.notes}")
    if job.state is not ImportState.COMPLETED:
        print(f"State:              {job.state}{f': {job.error}' if job.error else ''}")
    if findings:
        print(f"\nErrors ({counts.failed + (job.validation.mismatched or 0) + (job.validation.missing or 0)}):")
        for finding in findings[:SHOWN_FINDINGS]:
            print(f"  - row {finding.rowid} ({_printable(str(finding.source_id))}): {_printable(finding.reason)}")
        if len(findings) > SHOWN_FINDINGS:
            print(f"  ... and more: GET /v1/admin/imports/{job.id}/rejects")
    print(RULE)


def _printable(text: str) -> str:
    """The text, or its form in quotes where a terminal would obey it."""
    return text if text.isprintable() else repr(text)


class _Lines:
    """A line for each stage when it is over."""

    def __init__(self) -> None:
        self._shown: set[ImportStage] = set()

    def update(self, job: Import) -> None:
        """Prints the stages that are behind the present one."""
        stages = list(ImportStage)
        for stage in stages[: stages.index(job.stage)]:
            self._print(stage, job)

    def end(self, job: Import) -> None:
        """Prints what is still missing."""
        if job.state is ImportState.COMPLETED:
            self.update(job)

    def _print(self, stage: ImportStage, job: Import) -> None:
        if stage not in TITLES or stage in self._shown:
            return
        if stage is ImportStage.VALIDATING:
            if not job.validate or job.dry_run:
                return
            done = total = 1
        else:
            done = total = job.counts.source_entries or job.progress.total
        self._shown.add(stage)
        print(f"{TITLES[stage]}: {done}/{total} (100.0%)", flush=True)


class _Bar:
    """A bar for each stage, with rate and time left."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.percentage:.1f}%"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self._progress.start()
        self._tasks: dict[ImportStage, TaskID] = {}

    def update(self, job: Import) -> None:
        """Moves the bar of the present stage, and fills those behind it."""
        if job.stage in TITLES and job.stage not in self._tasks:
            self._tasks[job.stage] = self._progress.add_task(TITLES[job.stage], total=None, rate="")
        for stage, task in self._tasks.items():
            if stage is job.stage:
                rate = job.progress.rows_per_second
                self._progress.update(
                    task,
                    completed=job.progress.processed,
                    total=job.progress.total,
                    rate=f"{rate:.0f} rows/s" if rate else "",
                )
            else:
                total = job.counts.source_entries
                self._progress.update(task, completed=total, total=total)

    def end(self, job: Import) -> None:
        """Leaves the last picture on the terminal."""
        self.update(job)
        self._progress.stop()
