"""What can be done with memories: add, get, list, delete."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from uuid_utils.compat import uuid7

from app.backfill import Backfill
from app.embedding.worker import EmbeddingWorker, Priority
from app.errors import ConflictError, NotFoundError, SecretError
from app.languages import language_of
from app.models import EmbeddingStatus, Memory, MemoryKey, NewMemory, Scope, Stats, Vector
from app.redaction import Redaction
from app.store.protocol import MemoryStore, Position
from app.tokens import document_words


class AddStatus(StrEnum):
    """What became of a memory that was sent."""

    CREATED = "created"
    EXISTING = "existing"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Draft:
    """A memory as a client sends it; what it leaves out the server fills in."""

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
    redacted: int = 0


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a draft; `error` says why it was rejected, `redacted` how many secrets it held."""

    status: AddStatus
    memory: Memory
    error: str | None = None
    redacted: int = 0


class Memories:
    """The service behind the routes of memories."""

    def __init__(
        self,
        store: MemoryStore,
        worker: EmbeddingWorker,
        backfill: Backfill,
        redaction: Redaction,
    ) -> None:
        self._store = store
        self._worker = worker
        self._backfill = backfill
        self._redaction = redaction

    async def add(self, draft: Draft, *, wait_for_embedding: bool = False) -> Added:
        """Stores a memory; it can be found by words when this answers, and by meaning too if told to wait.

        Raises:
            ConflictError: its id is taken by a memory with other content.
            SecretError: it holds a secret, and the service is set to refuse such.
            UnavailableError: told to wait, and there is no vector; the memory is stored and gets it later.
        """
        [added] = await self._add([self._clean(draft)])
        if added.error is not None:
            raise ConflictError(added.error)
        memory = added.memory
        if memory.embedding_status is EmbeddingStatus.READY:
            return added
        if not wait_for_embedding:
            self._backfill.offer([memory] if added.status is AddStatus.CREATED else [])
            return added
        await self._backfill.embed([memory], Priority.WRITE)
        return replace(added, memory=replace(memory, embedding_status=EmbeddingStatus.READY))

    async def add_all(self, drafts: Sequence[Draft]) -> list[Added]:
        """Stores memories in one transaction; answers in the same order. A rejected one never sinks the others."""
        refused: dict[int, Added] = {}
        cleaned: list[Draft] = []
        for index, draft in enumerate(drafts):
            try:
                cleaned.append(self._clean(draft))
            except SecretError as error:
                memory = _new_memory(draft, datetime.now(UTC)).memory
                refused[index] = Added(AddStatus.REJECTED, memory, str(error))
        stored = iter(await self._add(cleaned) if cleaned else [])
        answers = [refused[index] if index in refused else next(stored) for index in range(len(drafts))]
        self._backfill.offer(
            [
                added.memory
                for added in answers
                if added.status is AddStatus.CREATED and added.memory.embedding_status is EmbeddingStatus.PENDING
            ]
        )
        return answers

    async def get(self, memory_id: UUID, projects: Sequence[str] | None) -> Memory:
        """One memory.

        Raises:
            NotFoundError: there is none in these projects (None: any).
            ConflictError: there is one in several of them.
        """
        found = await self._store.find(memory_id, projects)
        if not found:
            raise NotFoundError(f"there is no memory {memory_id}{_within(projects)}")
        if len(found) > 1:
            names = ", ".join(memory.project for memory in found)
            raise ConflictError(f"memory {memory_id} stands in several projects ({names}): add ?project=")
        return found[0]

    async def page(self, scope: Scope, limit: int, after: Position | None) -> list[Memory]:
        """Newest first, by (timestamp, project, id); `after` continues behind a place."""
        return await self._store.page(scope, limit, after, may_lag=True)

    async def delete(self, memory_id: UUID, projects: Sequence[str] | None) -> None:
        """Deletes one memory; errors as `get`."""
        memory = await self.get(memory_id, projects)
        if not await self._store.delete(memory.key):
            raise NotFoundError(f"there is no memory {memory_id}{_within(projects)}")

    async def stats(self, projects: Sequence[str] | None) -> Stats:
        """What the store holds."""
        return await self._store.stats(projects, self._worker.model)

    def _clean(self, draft: Draft) -> Draft:
        """The draft without secrets.

        Raises:
            SecretError: it holds one, and the service is set to refuse such.
        """
        texts, count = self._redaction.clean(new_code=draft.new_code, old_code=draft.old_code, context=draft.context)
        return replace(draft, redacted=count, **texts) if count else draft

    async def _add(self, drafts: Sequence[Draft]) -> list[Added]:
        now = datetime.now(UTC)
        new = [_new_memory(draft, now) for draft in drafts]
        first: dict[MemoryKey, NewMemory] = {}
        for row in new:
            first.setdefault(row.memory.key, row)
        stored = await self._store.add(list(first.values()), self._backfill.due_at(now))
        others = [key for key in first if key not in stored]
        there = await self._store.get(others) if others else {}
        answers = []
        for draft, row in zip(drafts, new, strict=True):
            key = row.memory.key
            if key in stored and first[key] is row:
                answers.append(Added(AddStatus.CREATED, row.memory, redacted=draft.redacted))
            else:
                answers.append(_compare(draft, row.memory, there.get(key) or first[key].memory))
        return answers


def _new_memory(draft: Draft, now: datetime) -> NewMemory:
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
        embedding_status=EmbeddingStatus.PENDING if draft.vector is None else EmbeddingStatus.READY,
        import_id=None,
    )
    return NewMemory(memory, document_words(memory.file_path, memory.new_code, memory.context), draft.vector)


COMPARED = ("file_path", "new_code", "old_code", "context", "session_id", "agent_id", "language", "timestamp")
"""The fields that must be the same for a memory to be taken for one that is there."""


def _compare(draft: Draft, memory: Memory, there: Memory) -> Added:
    """A repeated write meets the memory that is there; what the server had filled in is not compared."""
    filled_in = {"timestamp"} if draft.timestamp is None else set()
    differing = [name for name in COMPARED if name not in filled_in and getattr(memory, name) != getattr(there, name)]
    if not differing:
        return Added(AddStatus.EXISTING, there, redacted=draft.redacted)
    error = f"id {memory.id} is taken by a memory of project {memory.project} with another {', '.join(differing)}"
    return Added(AddStatus.REJECTED, there, error)


def _within(projects: Sequence[str] | None) -> str:
    return "" if projects is None else f" in project {', '.join(projects)}"
