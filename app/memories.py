"""What can be done with memories: add, get, list, delete."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from app.drafts import Added, AddStatus, Draft, DraftBatch, redacted, unembedded
from app.embedding_models import EmbeddingModels
from app.embedding_progress import EmbeddingProgress
from app.errors import ConflictError, NotFoundError
from app.models import EmbeddingStatus, Memory, MemoryKey, Scope, Stats
from app.redaction import Redaction
from app.store.protocol import MemoryStore, Position


class Memories:
    """The service behind the routes of memories."""

    def __init__(
        self,
        store: MemoryStore,
        models: EmbeddingModels,
        progress: EmbeddingProgress,
        redaction: Redaction,
    ) -> None:
        self._store = store
        self._models = models
        self._progress = progress
        self._redaction = redaction

    async def add(self, draft: Draft, *, wait_for_embedding: bool = False) -> Added:
        """Stores a memory; it can be found by words when this answers, and by meaning too if told to wait.

        Raises:
            ConflictError: its id is taken by a memory with other content.
            SecretError: it holds a secret, and the service is set to refuse such.
            UnavailableError: told to wait, and there is no vector; the memory is stored and gets it later.
        """
        [added] = await self._add([draft])
        if added.error is not None:
            raise added.error
        memory = added.memory
        if memory.embedding_status is EmbeddingStatus.READY:
            return added
        if not wait_for_embedding:
            self._models.offer(unembedded([added]))
            return added
        sent = draft.vector is not None and added.status is AddStatus.CREATED
        await self._models.embed([memory], with_target=not sent)
        return replace(added, memory=replace(memory, embedding_status=EmbeddingStatus.READY))

    async def add_all(self, drafts: Sequence[Draft]) -> list[Added]:
        """Stores memories in one transaction; answers in the same order. A rejected one never sinks the others."""
        answers = await self._add(drafts)
        self._models.offer(unembedded(answers))
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
        used = self._models.used
        found = await self._store.stats(projects, used.active)
        embedding = await self._progress.complete(found.embedding, used, projects)
        return replace(found, embedding=self._models.with_problems(embedding))

    async def _add(self, drafts: Sequence[Draft]) -> list[Added]:
        batch = DraftBatch(drafts, self._redaction, self._models.used)
        stored: set[MemoryKey] = set()
        there: dict[MemoryKey, Memory] = {}
        if batch.rows:
            stored = await self._store.add(batch.rows, self._models.due_at(batch.now, len(batch.rows)))
            others = [row.memory.key for row in batch.rows if row.memory.key not in stored]
            there = await self._store.get(others) if others else {}
        added = batch.outcome(stored, there)
        self._redaction.taken_out += redacted(added)
        return added


def _within(projects: Sequence[str] | None) -> str:
    return "" if projects is None else f" in project {', '.join(projects)}"
