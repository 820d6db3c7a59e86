"""The values that travel between routes, services and stores; one word of the design each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

Vector: TypeAlias = NDArray[np.float32]
"""Shape (dimensions,), unit length."""

MAX_PROJECT_CHARACTERS = 200
MAX_NAME_CHARACTERS = 200
"""Limit of `session_id`, `agent_id` and `language`."""
MAX_PATH_CHARACTERS = 4096
MAX_TEXT_BYTES = 1024 * 1024
"""Limit of `new_code`, `old_code` and `context`, in bytes of UTF-8."""


class EmbeddingStatus(StrEnum):
    """Whether a memory can be found by meaning yet."""

    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Memory:
    """One remembered edit, verbatim."""

    id: Annotated[UUID, Field(description="Made by the server (UUID version 7) unless the client sent one.")]
    project: Annotated[str, Field(description="The namespace it belongs to, usually a repository.")]
    file_path: Annotated[str, Field(description="The file that was edited.")]
    new_code: Annotated[str, Field(description="What was written.")]
    old_code: Annotated[str | None, Field(description="What it replaced.")]
    context: Annotated[str | None, Field(description="What the edit was about, such as the agent's task.")]
    session_id: Annotated[str | None, Field(description="The agent's session.")]
    agent_id: Annotated[str | None, Field(description="The agent.")]
    language: Annotated[str | None, Field(description="Programming language, from the file name when not given.")]
    timestamp: Annotated[datetime, Field(description="When the edit happened.")]
    created_at: Annotated[datetime, Field(description="When the server stored it.")]
    embedding_status: Annotated[
        EmbeddingStatus, Field(description="`ready` once it can be found by meaning; by words it can be found at once.")
    ]
    import_id: Annotated[UUID | None, Field(description="The import that brought it in.")]

    @property
    def key(self) -> "MemoryKey":
        """What identifies it."""
        return MemoryKey(self.project, self.id)


@dataclass(frozen=True, slots=True, order=True)
class MemoryKey:
    """Identifies a memory: the same id may stand in several projects."""

    project: str
    id: UUID


@dataclass(frozen=True, slots=True)
class Words:
    """The searchable words of a memory, in reading order, as `tokens.document_words` makes them."""

    code: Sequence[str]
    identifiers: Sequence[str]
    path: Sequence[str]
    context: Sequence[str]


@dataclass(frozen=True, slots=True)
class NewMemory:
    """A memory to be stored, with its words and, when it is known already, its vector."""

    memory: Memory
    words: Words
    vector: Vector | None


@dataclass(frozen=True, slots=True)
class QueryWords:
    """Distinct words and whole identifiers to look for, in the order of the query."""

    words: tuple[str, ...]
    identifiers: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.words or self.identifiers)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which memories may be seen: projects (None: all of them) and filters, all of which must hold."""

    projects: Sequence[str] | None = None
    session_id: str | None = None
    agent_id: str | None = None
    file_path: str | None = None
    path_prefix: str | None = None
    language: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """A memory that one arm of a search found; a higher score is better."""

    key: MemoryKey
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory with its scores."""

    memory: Memory
    score: Annotated[float, Field(description="What the hits are ordered by, 0 to 1.")]
    fts_score: Annotated[float | None, Field(description="Score of the text search, 0 to 1.")]
    semantic_score: Annotated[float | None, Field(description="Cosine of query and memory, -1 to 1.")]
    fts_rank: Annotated[
        int | None, Field(description="Place in the text search, from 1; null if it was not found there.")
    ]
    semantic_rank: Annotated[
        int | None, Field(description="Place in the semantic search, from 1; null if it was not found there.")
    ]


@dataclass(frozen=True, slots=True)
class EmbeddingStats:
    """The state of the vectors."""

    model: Annotated[str, Field(description="The model whose vectors are searched.")]
    dimensions: Annotated[int | None, Field(description="Length of a vector; null until the model was first used.")]
    pending: Annotated[int, Field(description="Memories whose vector is still to be made.")]
    failed: Annotated[int, Field(description="Memories whose vector could not be made.")]


@dataclass(frozen=True, slots=True)
class Stats:
    """What the store holds."""

    backend_type: Annotated[str, Field(description="`postgresql` or `sqlite`.")]
    total_entries: int
    entries_with_embeddings: int
    unique_files: int
    unique_sessions: int
    oldest_entry: Annotated[datetime | None, Field(description="`timestamp` of the oldest memory.")]
    newest_entry: Annotated[datetime | None, Field(description="`timestamp` of the newest memory.")]
    db_size_bytes: Annotated[int, Field(description="Size of the whole database.")]
    embedding: EmbeddingStats


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


@dataclass(frozen=True, slots=True)
class Validation:
    """The comparison of every row of the source with what is stored; null fields until it has run."""

    checked: int | None = None
    mismatched: int | None = None
    missing: int | None = None


@dataclass(frozen=True, slots=True)
class NewImport:
    """What is asked of an import.

    `source_key` is the same for the same file, `spool` identifies the folder that holds the private copy. With
    `keep_projects` the memories of this service's own files stay in their projects.
    """

    id: UUID
    project: str
    keep_projects: bool
    source_name: str
    source_key: str
    source_size_bytes: int
    source_format: str
    spool: UUID
    validate: bool
    dry_run: bool
    batch_size: int


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
    notes: Annotated[str | None, Field(description="What the source holds that has no place here.")]


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


@dataclass(frozen=True, slots=True)
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
