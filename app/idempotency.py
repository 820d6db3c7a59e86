"""Writes that may be repeated: the first answer is kept with what it stored, and given again."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from uuid import UUID

from app.drafts import Added, Draft, DraftBatch, redacted, unembedded
from app.embedding_models import EmbeddingModels
from app.errors import KeyReusedError, OutstandingError
from app.models import EmbeddingStatus, Memory, MemoryKey
from app.redaction import Redaction
from app.store.idempotency import Answer, RepeatableRequest
from app.store.protocol import Store


class Idempotency:
    """The service behind the routes that take an idempotency key.

    A key is taken by the transaction that stores: whatever ends a request before (an error, a crash) leaves it free.
    """

    def __init__(self, store: Store, models: EmbeddingModels, redaction: Redaction) -> None:
        self._store = store
        self._models = models
        self._redaction = redaction
        self._running: set[tuple[str, str]] = set()

    async def add(
        self,
        request: RepeatableRequest,
        drafts: Sequence[Draft],
        answer_of: Callable[[Sequence[Added]], Answer],
        *,
        wait_for_embedding: bool = False,
    ) -> Answer:
        """Stores drafts, and keeps what `answer_of` makes of the outcome; a repeated request gets what was kept.

        Nothing is kept where `answer_of` raises, which undoes all, or every draft was rejected. Told to wait, this
        answers once the memory that the answer is about has its vector, or was deleted.

        Raises:
            KeyReusedError: the key belongs to another request.
            OutstandingError: the first request is still running.
            UnavailableError: told to wait, and there is no vector; a repetition goes on waiting.
        """
        running = (request.owner, request.key)
        if running in self._running:
            raise OutstandingError(request.key)
        self._running.add(running)
        try:
            answer = await self._kept(request)
            if answer is None:
                answer = await self._store_once(request, drafts, answer_of, offer=not wait_for_embedding)
            if wait_for_embedding and answer.memory_id is not None:
                await self._embed(drafts[0].project, answer.memory_id)
            return answer
        finally:
            self._running.remove(running)

    async def _kept(self, request: RepeatableRequest) -> Answer | None:
        found = await self._store.idempotency.find(request.owner, request.key)
        if found is None:
            return None
        answer, fingerprint = found
        if fingerprint != request.fingerprint:
            raise KeyReusedError(
                f"the Idempotency-Key {request.key!r} was used for another request (route, query or body differ); "
                "send this one with a new key"
            )
        return answer

    async def _store_once(
        self,
        request: RepeatableRequest,
        drafts: Sequence[Draft],
        answer_of: Callable[[Sequence[Added]], Answer],
        *,
        offer: bool,
    ) -> Answer:
        batch = DraftBatch(drafts, self._redaction, self._models.used)
        added: list[Added] = []

        def outcome(stored: AbstractSet[MemoryKey], there: Mapping[MemoryKey, Memory]) -> tuple[Answer, bool]:
            added.extend(batch.outcome(stored, there))
            return answer_of(added), any(one.error is None for one in added)

        try:
            answer = await self._store.idempotency.add(
                request, batch.rows, self._models.due_at(batch.now, len(batch.rows)), batch.now, outcome
            )
        except OutstandingError:  # another process was first, and has just ended
            kept = await self._kept(request)
            if kept is None:
                raise
            return kept
        self._redaction.taken_out += redacted(added)
        if offer:
            self._models.offer(unembedded(added))
        return answer

    async def _embed(self, project: str, memory_id: UUID) -> None:
        key = MemoryKey(project, memory_id)
        memory = (await self._store.memories.get([key])).get(key)
        if memory is not None and memory.embedding_status is not EmbeddingStatus.READY:
            await self._models.embed([memory])
