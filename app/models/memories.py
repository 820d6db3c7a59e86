"""Memories, and what is made of them before they are stored."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, NamedTuple, TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from app.models.values import value

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


@value
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


@value
class StoredMemory(Memory):
    """A memory, as the answer to its writing."""

    redacted: Annotated[int, Field(description="Secrets that were taken out of it before it was stored.")] = 0


class MemoryKey(NamedTuple):
    """Identifies a memory: the same id may stand in several projects."""

    project: str
    id: UUID


@value
class Words:
    """The searchable words of a memory, in reading order, as `tokens.document_words` makes them."""

    code: Sequence[str]
    identifiers: Sequence[str]
    path: Sequence[str]
    context: Sequence[str]
    names: Sequence[str] = ()


@value
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
