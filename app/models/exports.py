"""Exports."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field

from app.models.imports import Progress


class ExportState(StrEnum):
    """Where an export stands; the last two are final."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """True if nothing follows."""
        return self in (ExportState.COMPLETED, ExportState.FAILED)


@dataclass(frozen=True, slots=True)
class ExportCounts:
    """Every memory that was read: `written` or `failed`."""

    written: int = 0
    with_vector: Annotated[int, Field(description="Of the written: those whose vector AI-AfterImage can use.")] = 0
    new_times: Annotated[
        int, Field(description="Of the written: those a microsecond or more later, as file and time were taken.")
    ] = 0
    new_ids: Annotated[int, Field(description="Of the written: those with another id, as another project had it.")] = 0
    failed: Annotated[int, Field(description="Those for which no time is left before the year 10000.")] = 0


@dataclass(frozen=True, slots=True)
class Export:
    """One run that writes an AI-AfterImage file."""

    id: UUID
    state: ExportState
    projects: Annotated[Sequence[str] | None, Field(description="Whose memories are written; null: all.")]
    progress: Progress
    counts: ExportCounts
    not_carried_over: Annotated[
        dict[str, int], Field(description="Fields without a place in the file, and how many memories have them.")
    ]
    size_bytes: Annotated[int | None, Field(description="Size of the file, once it is complete.")]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: Annotated[datetime | None, Field(description="When it is removed with its file.")]
    error: Annotated[str | None, Field(description="Why it failed.")]
