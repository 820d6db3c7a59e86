"""The one place where a row of `imports` becomes an Import; the stores bring its values to Python types first."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.models import Counts, Import, ImportStage, ImportState, Progress, Source, Validation


def import_from(row: Mapping[str, Any], now: datetime) -> Import:
    """The import as it stands at `now`, which rates and times are reckoned to."""
    state = ImportState(row["state"])
    started, finished = row["started_at"], row["finished_at"]
    return Import(
        id=row["id"],
        state=state,
        stage=ImportStage(row["stage"]),
        source=Source(name=row["source_name"], size_bytes=row["source_size_bytes"], format=row["source_format"]),
        project=row["project"],
        validate=bool(row["validate"]),
        dry_run=bool(row["dry_run"]),
        batch_size=row["batch_size"],
        progress=_progress(row, now, moving=state is ImportState.RUNNING),
        counts=counts_from(row),
        validation=Validation(checked=row["checked"], mismatched=row["mismatched"], missing=row["missing"]),
        created_at=row["created_at"],
        started_at=started,
        finished_at=finished,
        elapsed_seconds=round(((finished or now) - started).total_seconds(), 3) if started else 0.0,
        error=row["error"],
        notes=_waits_for(row) if state is ImportState.QUEUED else row["notes"],
    )


def counts_from(row: Mapping[str, Any]) -> Counts:
    """The counts of a row of `imports`."""
    return Counts(
        source_entries=row["source_entries"],
        migrated=row["migrated"],
        skipped=row["skipped"],
        failed=row["failed"],
        reembedded=row["reembedded"],
        redacted=row["redacted"],
        altered=row["altered"],
        unusable_vectors=row["unusable_vectors"],
    )


def _waits_for(row: Mapping[str, Any]) -> str:
    """What a queued import needs to go on."""
    began = "its process has ended, and " if row["started_at"] is not None else ""
    place = row["spool_folder"] or f"of id {row['spool']}"
    return (
        f"{began}it waits for a service with the spool folder {place} (AFTERIMAGE_SPOOL_FOLDER), where its copy of the "
        "source is; if there is none any more, cancel it and start it again: what is stored already will be skipped"
    )


def _progress(row: Mapping[str, Any], now: datetime, *, moving: bool) -> Progress:
    processed, total = row["processed"], row["total"]
    rate = eta = None
    if moving and row["stage_started_at"] is not None:
        seconds = (now - row["stage_started_at"]).total_seconds()
        done = processed - row["stage_processed_before"]
        if seconds > 0 and done > 0:
            rate = done / seconds
            eta = round((total - processed) / rate, 1)
    if total:
        percent = round(100 * processed / total, 1)
    else:
        percent = 100.0 if row["state"] == ImportState.COMPLETED else 0.0
    return Progress(
        processed=processed,
        total=total,
        percent=percent,
        rows_per_second=round(rate, 1) if rate else None,
        eta_seconds=eta,
    )
