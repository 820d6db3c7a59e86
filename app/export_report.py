"""What `afterimage export` shows: a live bar on a terminal or a line else, and the report."""

import asyncio
import sys

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.export_run import ExportRun

POLL_SECONDS = 0.1

TITLE = "Writing entries"

RULE = "=" * 60


async def follow(run: ExportRun) -> None:
    """Runs an export and shows how it goes on; Ctrl-C ends it, and nothing of the file remains."""
    print("Starting export...", flush=True)
    task = asyncio.create_task(run.run())
    try:
        if sys.stdout.isatty():
            await _show_bar(run, task)
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    done = run.progress
    if not sys.stdout.isatty():
        print(f"{TITLE}: {done.processed}/{done.total} ({done.percent:.1f}%)")


async def _show_bar(run: ExportRun, task: asyncio.Task[None]) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.percentage:.1f}%"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        row = bar.add_task(TITLE, total=None, rate="")
        while True:
            seen = run.progress
            rate = f"{seen.rows_per_second:.0f} rows/s" if seen.rows_per_second else ""
            bar.update(row, completed=seen.processed, total=seen.total, rate=rate)
            if task.done():
                return
            await asyncio.wait({task}, timeout=POLL_SECONDS)


def print_report(run: ExportRun, seconds: float) -> None:
    """The counts, and all that is not in the file as it was in the store."""
    counts = run.counts
    print()
    print(RULE)
    print("AI-AfterImage Export Report")
    print(RULE)
    print(f"Memories:           {counts.written + counts.failed}")
    print(f"Written:            {counts.written}")
    print(f"With vector:        {counts.with_vector}")
    print(f"Failed:             {counts.failed}")
    print(f"Elapsed time:       {seconds:.1f}s")
    if counts.failed:
        print("                    (their file and time are taken, and no later time is left before the year 10000)")
    if counts.new_times:
        print(f"Later times:        {counts.new_times} (another memory has the same file and time)")
    if counts.new_ids:
        print(f"New ids:            {counts.new_ids} (another project has a memory of the same id)")
    if unmapped := [f"{field} of {memories} memories" for field, memories in run.not_carried_over.items() if memories]:
        print(f"Not carried over:   {', '.join(unmapped)}")
    print(RULE)
