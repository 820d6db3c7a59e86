"""What clients send and get, with the limits of each field and an example that works."""

import math
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
)

from app.access import AuditEntry, Key, KeyScope
from app.api.fields import Body, Code, FilePath, Finite, Name, Project, Text, Time
from app.drafts import Added, AddStatus, Draft
from app.embedding.worker import EmbeddingWorker
from app.errors import InvalidInputError, UnavailableError
from app.models import (
    MAX_PATH_CHARACTERS,
    Export,
    Finding,
    Hit,
    Import,
    Memory,
    Scope,
    Vector,
)
from app.search import SearchMode

MAX_BATCH = 1000
MAX_PAGE = 1000
MAX_QUERY_CHARACTERS = 100_000
MAX_PROJECTS = 100
MAX_DIMENSIONS = 16_000
"""The most that a vector of pgvector has."""


class MemoryIn(Body):
    """An edit to remember."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "project": "shop",
                    "file_path": "src/http/headers.py",
                    "new_code": "def parse_header(line: str) -> tuple[str, str]:\n"
                    '    name, _, value = line.partition(":")\n'
                    "    return name.strip().lower(), value.strip()\n",
                    "context": "Parse an HTTP header",
                    "session_id": "session-1",
                    "agent_id": "claude-code",
                }
            ]
        }
    )

    file_path: Annotated[FilePath, Field(description="The file that was edited.")]
    new_code: Annotated[Code, Field(description="What was written, at most 1 MiB.")]
    project: Annotated[Project, Field(description="The namespace it belongs to, usually a repository.")] = "default"
    old_code: Annotated[Text | None, Field(description="What it replaced.")] = None
    context: Annotated[Text | None, Field(description="What the edit was about.")] = None
    session_id: Annotated[Name | None, Field(description="The agent's session.")] = None
    agent_id: Annotated[Name | None, Field(description="The agent.")] = None
    language: Annotated[Name | None, Field(description="Taken from the file name when absent.")] = None
    timestamp: Annotated[Time | None, Field(description="When the edit happened; now if absent.")] = None
    id: Annotated[
        UUID | None,
        Field(description="Makes the write repeatable: sent again with the same content it changes nothing."),
    ] = None
    embedding: Annotated[
        list[Finite] | None,
        FailFast(),
        Field(
            max_length=MAX_DIMENSIONS,
            description="The vector of the memory, of the model's dimension; skips the model.",
        ),
    ] = None

    def draft(self, worker: EmbeddingWorker) -> Draft:
        """The draft for the service; a vector must be as those of the worker's model are.

        Raises:
            InvalidInputError: the embedding does not fit.
        """
        return Draft(
            project=self.project,
            file_path=self.file_path,
            new_code=self.new_code,
            id=self.id,
            old_code=self.old_code,
            context=self.context,
            session_id=self.session_id,
            agent_id=self.agent_id,
            language=self.language,
            timestamp=self.timestamp,
            vector=None if self.embedding is None else _unit(self.embedding, worker.dimensions),
            model=worker.model,
        )


def _unit(values: list[float], dimensions: int | None) -> Vector:
    if dimensions is None:
        raise UnavailableError("embedding: the model is still loading, and with it the length of its vectors")
    if len(values) != dimensions:
        raise InvalidInputError(f"embedding: must have the model's {dimensions} numbers, got {len(values)}")
    length = math.hypot(*values)
    if length == 0:
        raise InvalidInputError("embedding: must not be all zero, a zero vector has no direction")
    if not 1e-300 < length < math.inf:  # too small to be exact, or too large to be a number
        largest = max(map(abs, values))
        return _unit([value / largest for value in values], dimensions)
    return (np.fromiter(values, np.float64, dimensions) / length).astype(np.float32)


class BatchIn(Body):
    """Many edits to remember, in one transaction."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"memories": [{"project": "shop", "file_path": "src/cart.py", "new_code": "total = 0\n"}]}]
        }
    )

    memories: Annotated[
        list[MemoryIn],
        Field(
            min_length=1,
            max_length=MAX_BATCH,
            description="Each as the body of `POST /v1/memories`; a bad one is rejected alone.",
        ),
    ]


class RoughBatchIn(Body):
    """A batch of which some may be bad."""

    memories: Annotated[list[Any], Field(min_length=1, max_length=MAX_BATCH)]


class BatchResult(BaseModel):
    """What became of one memory of a batch."""

    index: Annotated[int, Field(description="Its place in the request, from 0.")]
    id: Annotated[UUID | None, Field(description="Null if it was rejected without one.")]
    status: AddStatus
    error: Annotated[str | None, Field(description="Why it was rejected.")] = None
    redacted: Annotated[int, Field(description="Secrets that were taken out of it before it was stored.")] = 0

    @classmethod
    def of(cls, index: int, draft: Draft, added: Added) -> Self:
        """The result of a memory that was sent as this draft."""
        memory_id = draft.id if added.status is AddStatus.REJECTED else added.memory.id
        error = None if added.error is None else str(added.error)
        return cls(index=index, id=memory_id, status=added.status, error=error, redacted=added.redacted)


class BatchOut(BaseModel):
    """What became of each memory, in the order of the request."""

    results: list[BatchResult]


class Filters(Body):
    """Which memories to look at; all that are given must hold."""

    projects: Annotated[
        list[Project] | None, Field(max_length=MAX_PROJECTS, description="Absent: all that you may read.")
    ] = None
    session_id: Name | None = None
    agent_id: Name | None = None
    file_path: Annotated[FilePath | None, Field(description="This file and no other.")] = None
    path_prefix: Annotated[FilePath | None, Field(description="Files whose path begins so.")] = None
    language: Name | None = None
    since: Annotated[Time | None, Field(description="Edits at or after this time.")] = None
    until: Annotated[Time | None, Field(description="Edits before this time.")] = None

    def scope(self) -> Scope:
        """The filters for the service."""
        return Scope(
            projects=self.projects,
            session_id=self.session_id,
            agent_id=self.agent_id,
            file_path=self.file_path,
            path_prefix=self.path_prefix,
            language=self.language,
            since=self.since,
            until=self.until,
        )


class ListQuery(Filters):
    """A page of memories."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 50
    cursor: Annotated[str | None, Field(max_length=1000, description="`next_cursor` of the page before.")] = None


class MemoryPage(BaseModel):
    """Memories, newest first."""

    items: list[Memory]
    next_cursor: Annotated[str | None, Field(description="For the next page; null on the last.")]


class SearchIn(Filters):
    """A question, and where to look."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "parse an http header", "projects": ["shop"], "limit": 5}]}
    )

    query: Annotated[
        str, Field(min_length=1, max_length=MAX_QUERY_CHARACTERS, description="Plain English, identifiers or code.")
    ]
    limit: Annotated[
        int | None, Field(ge=1, le=100, strict=True, description="Hits at most; 10 unless set otherwise.")
    ] = None
    threshold: Annotated[float | None, Field(ge=0, le=1, strict=True, description="Least `score` of a hit.")] = None
    match: Annotated[
        Literal["any", "all"], Field(description="`all`: a hit must hold every word of the query, in every mode.")
    ] = "any"
    explain: Annotated[bool, Field(strict=True, description="Say how each score came about.")] = False


class SearchOut(BaseModel):
    """Hits, best first."""

    mode: SearchMode
    took_ms: float
    hits: list[Hit]


class ImportQuery(Body):
    """How to import."""

    project: Annotated[
        Project | None,
        Field(description="Where the memories go: `default` if absent; this service's own files keep their projects."),
    ] = None
    validate_rows: Annotated[
        bool, Field(alias="validate", description="Compare every row with what is stored, afterwards.")
    ] = True
    dry_run: Annotated[bool, Field(description="Read and check everything, store nothing.")] = False


class ImportIn(ImportQuery):
    """A file on the server to import."""

    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [{"path": "memory.db", "project": "shop"}]})

    path: Annotated[
        Text, Field(min_length=1, max_length=MAX_PATH_CHARACTERS, description="Below the import folder of the server.")
    ]


class ImportPage(BaseModel):
    """Imports, newest first."""

    items: list[Import]
    next_cursor: Annotated[str | None, Field(description="For the next page; null on the last.")]


class FindingPage(BaseModel):
    """Rows of a source, by their rowid."""

    items: list[Finding]
    next_cursor: Annotated[str | None, Field(description="For the next page; null on the last.")]


class ExportIn(Body):
    """What to export."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"projects": ["shop"]}, {}]})

    projects: Annotated[
        list[Project] | None, Field(min_length=1, max_length=MAX_PROJECTS, description="Absent: all.")
    ] = None


class ExportList(BaseModel):
    """Exports, newest first."""

    items: list[Export]


class Undone(BaseModel):
    """What an undo did."""

    deleted: Annotated[int, Field(description="Memories that the import had brought in and that are gone now.")]


class KeyIn(Body):
    """A key to make."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "ci", "scopes": ["read", "write"], "projects": ["shop"]}]}
    )

    name: Annotated[Name, Field(description="What it is for.")]
    scopes: Annotated[
        list[KeyScope], Field(min_length=1, max_length=3, description="What it may be used for; `admin` includes all.")
    ]
    projects: Annotated[
        list[Project] | None, Field(min_length=1, max_length=MAX_PROJECTS, description="Absent: all.")
    ] = None
    expires_at: Annotated[Time | None, Field(description="Absent: never.")] = None


class KeyMade(BaseModel):
    """A key, and its text."""

    key: Annotated[str, Field(description="To be sent as `Authorization: Bearer …`. It is shown this once.")]
    details: Key


class KeyList(BaseModel):
    """Keys, newest first."""

    items: list[Key]


class AuditPage(BaseModel):
    """What administrators did, newest first."""

    items: list[AuditEntry]
    next_cursor: Annotated[str | None, Field(description="For the next page; null on the last.")]
