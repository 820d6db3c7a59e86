"""Memories as clients send them, on their way into a store, and what became of them."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from uuid_utils.compat import uuid7

from app.errors import AfterImageError, ConflictError, SecretError
from app.languages import language_of
from app.models import EmbeddingStatus, Memory, MemoryKey, NewMemory, Vector
from app.models.values import value
from app.redaction import Redaction
from app.store.embedding_protocol import ModelsInUse
from app.tokens import document_words


class AddStatus(StrEnum):
    """What became of a memory that was sent."""

    CREATED = "created"
    EXISTING = "existing"
    REJECTED = "rejected"


@value
class Draft:
    """A memory as a client sends it; what it leaves out the server fills in. `model` is that of the vector."""

    project: str
    file_path: str
    new_code: str
    id: UUID | None = None
    old_code: str | None = None
    context: str | None = None
    session_id: str | None = None
    agent_id: str | None = None
    language: str | None = None
    timestamp: datetime | None = None
    vector: Vector | None = None
    model: str | None = None
    redacted: int = 0


@value
class Added:
    """What became of a draft; `error` says why it was rejected, `redacted` how many secrets it held."""

    status: AddStatus
    memory: Memory
    error: AfterImageError | None = None
    redacted: int = 0


class DraftBatch:
    """Drafts that are stored together: `rows` go into the store, and of what it answers `outcome` makes the result."""

    def __init__(self, drafts: Sequence[Draft], redaction: Redaction, used: ModelsInUse) -> None:
        """Takes the secrets out; a draft that must not hold one is rejected alone.

        A memory with a vector is ready if that is of the model that is searched.
        """
        self.now = datetime.now(UTC)
        self._entries: list[tuple[Draft, NewMemory, SecretError | None]] = []
        self._first: dict[MemoryKey, NewMemory] = {}
        for draft in drafts:
            cleaned, refusal = _cleaned(draft, redaction)
            row = _new_memory(cleaned, self.now, used)
            self._entries.append((cleaned, row, refusal))
            if refusal is None:
                self._first.setdefault(row.memory.key, row)

    @property
    def rows(self) -> list[NewMemory]:
        """What is to be stored, each key once."""
        return list(self._first.values())

    def outcome(self, stored: AbstractSet[MemoryKey], there: Mapping[MemoryKey, Memory]) -> list[Added]:
        """What became of each draft: `stored` are the keys that the store took, `there` what it holds of the others."""
        answers = []
        for draft, row, refusal in self._entries:
            key = row.memory.key
            if refusal is not None:
                answers.append(Added(AddStatus.REJECTED, row.memory, refusal))
            elif key in stored and self._first[key] is row:
                answers.append(Added(AddStatus.CREATED, row.memory, redacted=draft.redacted))
            else:
                answers.append(_compare(draft, row.memory, there.get(key) or self._first[key].memory))
        return answers


def unembedded(added: Sequence[Added]) -> list[Memory]:
    """The new memories that lack their vector."""
    return [
        one.memory
        for one in added
        if one.status is AddStatus.CREATED and one.memory.embedding_status is EmbeddingStatus.PENDING
    ]


def redacted(added: Sequence[Added]) -> int:
    """How many secrets were taken out of the new memories."""
    return sum(one.redacted for one in added if one.status is AddStatus.CREATED)


def _cleaned(draft: Draft, redaction: Redaction) -> tuple[Draft, SecretError | None]:
    """The draft without secrets, or as it is and why it is refused."""
    try:
        texts, count = redaction.clean(new_code=draft.new_code, old_code=draft.old_code, context=draft.context)
    except SecretError as error:
        return draft, error
    return (replace(draft, redacted=count, **texts) if count else draft), None


def _new_memory(draft: Draft, now: datetime, used: ModelsInUse) -> NewMemory:
    model = draft.model or used.target
    ready = draft.vector is not None and model == used.active
    memory = Memory(
        id=draft.id or uuid7(),
        project=draft.project,
        file_path=draft.file_path,
        new_code=draft.new_code,
        old_code=draft.old_code,
        context=draft.context,
        session_id=draft.session_id,
        agent_id=draft.agent_id,
        language=draft.language or language_of(draft.file_path),
        timestamp=draft.timestamp or now,
        created_at=now,
        embedding_status=EmbeddingStatus.READY if ready else EmbeddingStatus.PENDING,
        import_id=None,
    )
    words = document_words(memory.file_path, memory.new_code, memory.context)
    return NewMemory(memory, words, draft.vector, model=model)


COMPARED = ("file_path", "new_code", "old_code", "context", "session_id", "agent_id", "language", "timestamp")
"""The fields that must be the same for a memory to be taken for one that is there."""


def _compare(draft: Draft, memory: Memory, there: Memory) -> Added:
    """A repeated write meets the memory that is there; what the server had filled in is not compared."""
    filled_in = {"timestamp"} if draft.timestamp is None else set()
    differing = [name for name in COMPARED if name not in filled_in and getattr(memory, name) != getattr(there, name)]
    if not differing:
        return Added(AddStatus.EXISTING, there, redacted=draft.redacted)
    error = f"id {memory.id} is taken by a memory of project {memory.project} with another {', '.join(differing)}"
    return Added(AddStatus.REJECTED, there, ConflictError(error))
