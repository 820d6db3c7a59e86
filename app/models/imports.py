"""Imports, and the rows that they read."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field

from app.models.memories import Vector
from app.models.values import value


class ImportState(StrEnum):
    """Where an import stands; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True if nothing follows."""
        return self not in (ImportState.QUEUED, ImportState.RUNNING)


class ImportStage(StrEnum):
    """What a running import does; in this order."""

    SNAPSHOT = "snapshot"
    READING = "reading"
    MIGRATING = "migrating"
    VALIDATING = "validating"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Source:
    """The SQLite file of an import."""

    name: Annotated[str, Field(description="File name, or `upload`.")]
    size_bytes: int
    format: Annotated[str, Field(description="What wrote the file, such as `AI-AfterImage 0.8`.")]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the present stage is."""

    processed: int
    total: int
    percent: float
    rows_per_second: float | None
    eta_seconds: float | None


@dataclass(frozen=True, slots=True)
class Counts:
    """Every row of the source: `source_entries = migrated + skipped + failed` when the import has completed."""

    source_entries: int = 0
    migrated: Annotated[int, Field(description="Rows that this import stored.")] = 0
    skipped: Annotated[int, Field(description="Rows that were there already, with the same content.")] = 0
    failed: Annotated[int, Field(description="Rows that were not taken; each is listed under `rejects`.")] = 0
    reembedded: Annotated[int, Field(description="Of the migrated: those whose vector is made anew.")] = 0
    redacted: Annotated[int, Field(description="Secrets that were taken out of the migrated.")] = 0
    altered: Annotated[
        int,
        Field(description="Of the migrated: those with NUL characters, an id that is no UUID, or text that is none."),
    ] = 0
    unusable_vectors: Annotated[
        int,
        Field(description="Of the migrated: those whose vector is damaged, not finite, all zero or of another length."),
    ] = 0


@dataclass(frozen=True, slots=True)
class Validation:
    """The comparison of every row of the source with what is stored; null fields until it has run."""

    checked: int | None = None
    mismatched: int | None = None
    missing: int | None = None


@dataclass(frozen=True, slots=True)
class NewImport:
    """What is asked of an import.

    `source_key` is the same for the same file, `spool` identifies the folder that holds the private copy, which
    `spool_folder` names for people. With `keep_projects` the memories of this service's own files stay in their
    projects. Vectors of `model` are kept.
    """

    id: UUID
    project: str
    keep_projects: bool
    source_name: str
    source_key: str
    source_size_bytes: int
    source_format: str
    spool: UUID
    spool_folder: str
    validate: bool
    dry_run: bool
    batch_size: int
    model: str


@dataclass(frozen=True, slots=True)
class Import:
    """One run that brings a SQLite file in."""

    id: UUID
    state: ImportState
    stage: ImportStage
    source: Source
    project: Annotated[str, Field(description="Where the memories go.")]
    validate: Annotated[bool, Field(description="Whether every row is compared afterwards.")]
    dry_run: Annotated[bool, Field(description="Whether rows are only read and checked.")]
    batch_size: Annotated[int, Field(description="Rows per transaction.")]
    progress: Progress
    counts: Counts
    validation: Validation
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    elapsed_seconds: float
    error: Annotated[str | None, Field(description="Why it failed.")]
    notes: Annotated[
        str | None,
        Field(
            description="What the source holds that has no place here; while the import is queued, what it waits for."
        ),
    ]


class FindingKind(StrEnum):
    """What an import has to say about a row."""

    REJECT = "reject"
    MISMATCHED = "mismatched"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """A row of a source that was not taken, or that validation found to differ from what is stored."""

    kind: FindingKind
    rowid: Annotated[int, Field(description="`rowid` in the source.")]
    source_id: Annotated[str | None, Field(description="`id` in the source, as far as it can be read.")]
    reason: str


@dataclass(frozen=True, slots=True)
class Reject:
    """A row of a source that cannot be taken."""

    rowid: int
    source_id: str | None
    reason: str


@value
class SourceRow:
    """A row of a source that can be taken.

    `vector` is None when the source has none, or an unusable one (`vector_problem` then says why). `altered` says what
    was changed to make the row fit, such as a NUL character that was replaced. The fields from `project` on are known
    only to this service's own files.
    """

    rowid: int
    id: UUID
    file_path: str
    new_code: str
    old_code: str | None
    context: str | None
    session_id: str | None
    timestamp: datetime
    vector: Vector | None
    vector_problem: str | None = None
    altered: str | None = None
    project: str | None = None
    agent_id: str | None = None
    language: str | None = None
