"""The values that travel between routes, services and stores; one word of the design each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, NamedTuple, TypeAlias
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
MAX_WHOLE_CHARACTERS = 1000
"""Code up to this length is embedded as a whole only: longer code exceeds what usual models read."""
MAX_PIECES = 64
"""Limit of the vectors of a memory besides that of the whole."""


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


@dataclass(frozen=True, slots=True)
class StoredMemory(Memory):
    """A memory, as the answer to its writing."""

    redacted: Annotated[int, Field(description="Secrets that were taken out of it before it was stored.")] = 0


class MemoryKey(NamedTuple):
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
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class NewMemory:
    """A memory to be stored, with its words and, when it is known already, its vector.

    `model` made the vector; None stands for the one that vectors are made for. `indexed` are the words as the store
    keeps them, where they were made beforehand; `redacted` is how many secrets were taken out. `altered` and
    `unusable_vector` say what an import had to do to the row, as in `Counts`.
    """

    memory: Memory
    words: Words
    vector: Vector | None
    indexed: str | None = None
    redacted: int = 0
    altered: bool = False
    unusable_vector: bool = False
    model: str | None = None


@dataclass(frozen=True, slots=True)
class QueryWords:
    """Distinct words and whole identifiers to look for, in the order of the query.

    A memory must hold every phrase (words side by side), none of the excluded words, and, where `match_all` is set,
    every word.
    """

    words: tuple[str, ...]
    identifiers: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...] = ()
    excluded: tuple[str, ...] = ()
    match_all: bool = False

    def __bool__(self) -> bool:
        return bool(self.words or self.identifiers)

    @property
    def required(self) -> tuple[tuple[str, ...], ...]:
        """Phrases, of one word or more, that a memory must hold."""
        return (*self.phrases, *((word,) for word in self.words if self.match_all))


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
class Piece:
    """A part of long code that has a vector of its own."""

    first_line: Annotated[int, Field(description="Its first line in `new_code`, from 1.")]
    last_line: Annotated[int, Field(description="Its last line.")]


@dataclass(frozen=True, slots=True)
class Match:
    """A memory that one arm of a search found; a higher score is better. `piece` is the part that matched, if any."""

    key: MemoryKey
    score: float
    piece: Piece | None = None


@dataclass(frozen=True, slots=True)
class Copies:
    """What is known of a memory's code without reading it: a hash, and the memories in a scope that have the same.

    `timestamp` is the memory's own, `last_timestamp` that of the newest of them.
    """

    code_hash: int
    timestamp: datetime
    count: int
    last_timestamp: datetime


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A few lines of `new_code` around what matched."""

    text: str
    first_line: Annotated[int, Field(description="Where it begins in `new_code`, from 1.")]
    highlights: Annotated[
        Sequence[tuple[int, int]],
        Field(description="Begin and end, in characters of `text`, of each word that matched."),
    ]


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a score came about: it is the sum of the two parts."""

    fts_weight: Annotated[
        float,
        Field(description="Share of the words, 0 to 1: the greater, the more clearly they single out a few memories."),
    ]
    semantic_weight: Annotated[float, Field(description="Share of the meaning.")]
    fts_part: Annotated[float, Field(description="What the words add to the score.")]
    semantic_part: Annotated[float, Field(description="What the meaning adds.")]
    words: Annotated[Sequence[str], Field(description="What was looked for; `=` marks the name of a definition.")]


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory with its scores. Memories with the same code are one hit, of which the best is shown."""

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
    piece: Annotated[
        Piece | None, Field(description="The part of long code that the semantic search matched; null: all of it.")
    ]
    copies: Annotated[int, Field(description="Memories with this code that the search may see, itself included.")]
    last_timestamp: Annotated[datetime, Field(description="`timestamp` of the newest of them.")]
    excerpt: Excerpt
    explanation: Annotated[Explanation | None, Field(description="With `explain` only.")] = None


class VectorIndexKind(StrEnum):
    """How searches among many vectors find the nearest."""

    EXACT = "exact"
    HNSW = "hnsw"


class VectorIndexState(StrEnum):
    """Where the index of the vectors stands."""

    NONE = "none"
    BUILDING = "building"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class VectorIndexStats:
    """What searches among many vectors use; those among few compare every vector whatever it says."""

    kind: Annotated[VectorIndexKind, Field(description="`exact` until an HNSW index is ready.")]
    state: Annotated[VectorIndexState, Field(description="Of the HNSW index; `none` while every search is exact.")]
    percent: Annotated[float | None, Field(description="How much of it is built, while it is being built.")] = None


@dataclass(frozen=True, slots=True)
class ModelChangeStats:
    """How far the vectors of the next model are: it is searched once nothing is pending and its index is ready."""

    model: Annotated[str, Field(description="The model whose vectors are being made.")]
    pending: Annotated[int, Field(description="Memories whose vector of it is still to be made.")]
    failed: Annotated[int, Field(description="Memories whose vector of it could not be made; they hold nothing up.")]
    pieces_pending: Annotated[int, Field(description="Memories of long code whose pieces are to follow.")]
    index: VectorIndexStats
    problem: Annotated[str | None, Field(description="Why it cannot be used.")] = None


@dataclass(frozen=True, slots=True)
class EmbeddingStats:
    """The state of the vectors."""

    model: Annotated[str, Field(description="The model whose vectors are searched.")]
    dimensions: Annotated[int | None, Field(description="Length of a vector; null until the model was first used.")]
    pending: Annotated[int, Field(description="Memories whose vector is still to be made.")]
    failed: Annotated[int, Field(description="Memories whose vector could not be made.")]
    pieces_pending: Annotated[
        int,
        Field(description="Memories of long code that are found as a whole, and whose pieces are to follow."),
    ]
    index: VectorIndexStats
    problem: Annotated[str | None, Field(description="Why the model cannot be used.")] = None
    rate: Annotated[
        float | None,
        Field(
            description="Vectors of memories a second: by how much `pending` (of the next model during a change; then "
            "`pieces_pending`) has fallen in the last minute, whichever processes made them. Null where nothing is "
            "pending, where it does not fall, and where only some projects are asked for."
        ),
    ] = None
    seconds_left: Annotated[float | None, Field(description="Until that is 0, at this rate.")] = None
    change: Annotated[
        ModelChangeStats | None, Field(description="While the vectors of another model are being made.")
    ] = None


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

    `source_key` is the same for the same file, `spool` identifies the folder that holds the private copy. With
    `keep_projects` the memories of this service's own files stay in their projects. Vectors of `model` are kept.
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
    notes: Annotated[str | None, Field(description="What the source holds that has no place here.")]


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
