"""Makes the vectors that memories still lack: of new ones at once, of others in the background, of pieces last."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import structlog

from app.embedding.embedder import document_text
from app.embedding.worker import EmbeddingWorker, Priority
from app.errors import AfterImageError, UnavailableError
from app.logs import describe
from app.models import Memory, MemoryKey, Vector
from app.pieces import cut
from app.store.embedding_protocol import ClaimedMemory, EmbeddingStore, PieceVector
from app.traffic import Traffic

FRESH_LIMIT = 256
"""New memories that wait in this process; more are left to the queue in the database."""

FRESH_BATCH = 16

GRACE = timedelta(seconds=10)
"""How long a new memory belongs to the process that took it, before any may embed it."""

CLAIM_BATCH = 64
POLITE_CLAIM_BATCH = 16
"""Where each text gives way to requests, so that what is made is soon stored."""

LONG_CLAIM_BATCH = 4
"""Long memories, each of many pieces; they are few, so that a new memory need not wait for many of them."""

CLAIM_TIME = timedelta(seconds=60)
"""How long a claimed memory belongs to the process that claimed it."""

LEAST_WAIT_SECONDS = 0.1
"""How long a call waits for a moment without requests: under load without end so it is some eight texts a second.

On two cores, with four clients that write without a pause, the p95 of writes beside a backfill was 2.4 times the usual
without waiting, 1.7 with 0.03 s, 1.3 with 0.05 s and 1.1 with 0.1 s. There a call took 8 ms.
"""

WAIT_PER_CALL = 10
"""A call waits for so many times as long as the one before took, if that is longer: on slower cores, and where other
programs use them, it is in the way for longer. With calls of 27 ms the p95 was 1.3 to 1.9 times the usual with 0.1 s,
and 1.1 with 0.4 s.
"""

MOST_WAIT_SECONDS = 0.5
"""So the pieces of a memory, of which there are up to 64, are done before its claim ends."""

POLL_SECONDS = 1.0

MAX_ATTEMPTS = 5
FIRST_PAUSE = timedelta(seconds=5)
"""Before the second attempt; each further pause is four times as long."""

log = structlog.get_logger(__name__)


class Backfill:
    """Two loops over one worker: `offer` feeds the one, the queue in the database the other."""

    def __init__(self, store: EmbeddingStore, worker: EmbeddingWorker, traffic: Traffic | None = None) -> None:
        """Old memories are embedded out of the way of `traffic`, where the embedder asks for it."""
        self._store = store
        self._worker = worker
        self._traffic = traffic or Traffic()
        self._claim_batch = POLITE_CLAIM_BATCH if worker.gives_way else CLAIM_BATCH
        self._long_claim_batch = 1 if worker.gives_way else LONG_CLAIM_BATCH
        self._call_seconds = 0.0
        self._fresh: asyncio.Queue[Memory] = asyncio.Queue()
        self._fresh_in_hand: list[Memory] = []
        self._claimed: dict[MemoryKey, datetime] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins both loops."""
        self._tasks = [
            asyncio.create_task(self._embed_fresh(), name="embed-fresh"),
            asyncio.create_task(self._embed_queued(), name="embed-queued"),
        ]

    async def stop(self) -> None:
        """Ends both loops; what is not embedded stays in the queue, and any process may take it at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        waiting = [self._fresh.get_nowait() for _ in range(self._fresh.qsize())]
        held = {memory.key: memory.created_at + GRACE for memory in [*self._fresh_in_hand, *waiting]} | self._claimed
        if held:
            with suppress(AfterImageError):  # the store is away: they are due once their time is up
                await self._store.hand_back(self._worker.model, held, datetime.now(UTC))

    def due_at(self, now: datetime, count: int) -> datetime:
        """From when on others may embed so many memories that are stored now and offered next."""
        return now + GRACE if self._has_room(count) else now

    def offer(self, memories: Sequence[Memory]) -> None:
        """Embeds new memories soon, if there is room for all; the queue in the database holds all of them."""
        if self._has_room(len(memories)):
            for memory in memories:
                self._fresh.put_nowait(memory)

    def _has_room(self, count: int) -> bool:
        return self._fresh.qsize() + count <= FRESH_LIMIT

    async def embed(self, memories: Sequence[Memory], priority: Priority) -> None:
        """Makes and stores the vectors of memories.

        Raises:
            UnavailableError: there is no model, or no store; the memories stay queued.
        """
        texts = [document_text(memory.file_path, memory.new_code) for memory in memories]
        vectors = await self._vectors(texts, priority)
        await self._store.save(
            self._worker.model, {memory.key: vector for memory, vector in zip(memories, vectors, strict=True)}
        )

    async def _vectors(self, texts: Sequence[str], priority: Priority) -> Sequence[Vector]:
        """In the order of the texts; those nobody waits for give way to requests where both need the same cores."""
        if priority is not Priority.BACKFILL or not self._worker.gives_way:
            return list(await self._worker.embed(texts, priority))
        vectors: list[Vector] = []
        for at in range(0, len(texts), self._worker.texts_per_call):
            wait = min(WAIT_PER_CALL * self._call_seconds, MOST_WAIT_SECONDS)
            await self._traffic.lull(max(wait, LEAST_WAIT_SECONDS))
            began = time.perf_counter()
            vectors.extend(await self._worker.embed(texts[at : at + self._worker.texts_per_call], priority))
            self._call_seconds = time.perf_counter() - began
        return vectors

    async def _embed_fresh(self) -> None:
        while True:
            self._fresh_in_hand = memories = [await self._fresh.get()]
            while len(memories) < FRESH_BATCH and not self._fresh.empty():
                memories.append(self._fresh.get_nowait())
            now = datetime.now(UTC)
            self._fresh_in_hand = memories = [memory for memory in memories if memory.created_at + GRACE > now]
            if not memories:  # any process may take them by now
                continue
            try:
                await self.embed(memories, Priority.WRITE)
            except Exception as error:  # noqa: BLE001 - the queue in the database still has them
                log.warning(
                    "memories are embedded later",
                    model=self._worker.model,
                    count=len(memories),
                    reason=describe(error),
                )

    async def _embed_queued(self) -> None:
        complete = False
        while True:
            try:
                await self._worker.wait_ready()
                if claims := await self._claim(self._claim_batch, whole=True):
                    await self._embed_claims(claims)
                elif not complete:  # behind what is queued: to look through many memories takes a while
                    complete = await self._store.queue_missing(self._worker.model, datetime.now(UTC)) == 0
                elif long := await self._claim(self._long_claim_batch, whole=False):
                    for claim in long:
                        await self._embed_pieces(claim)
                else:
                    await asyncio.sleep(POLL_SECONDS)
            except UnavailableError as error:
                log.warning("the background embedding waits", model=self._worker.model, reason=describe(error))
                await asyncio.sleep(error.retry_after_seconds)
            except Exception:
                log.exception("the background embedding failed and goes on", model=self._worker.model)
                await asyncio.sleep(POLL_SECONDS)

    async def _claim(self, limit: int, *, whole: bool) -> Sequence[ClaimedMemory]:
        """Takes due memories; if told to stop while the store gives them, `stop` knows them all the same."""
        now = datetime.now(UTC)
        until = now + CLAIM_TIME
        claiming = asyncio.ensure_future(self._store.claim(self._worker.model, limit, now, until, whole=whole))
        try:
            claims = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with suppress(AfterImageError):
                self._claimed = {claim.memory.key: until for claim in await claiming}
            raise
        self._claimed = {claim.memory.key: until for claim in claims}
        return claims

    async def _embed_claims(self, claims: Sequence[ClaimedMemory]) -> None:
        """Embeds all together, and one by one if that fails, so that one bad text holds up no other."""
        try:
            await self.embed([claim.memory for claim in claims], Priority.BACKFILL)
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a model throws at one text
            if len(claims) == 1:
                await self._postpone(claims[0], error)
                return
            for claim in claims:
                await self._embed_claims([claim])

    async def _embed_pieces(self, claim: ClaimedMemory) -> None:
        """Makes and stores the vectors of a long memory's pieces; the memory can be found already."""
        memory = claim.memory
        try:
            pieces = await asyncio.to_thread(cut, memory.new_code)
            texts = [document_text(memory.file_path, piece.text) for piece in pieces]
            vectors = await self._vectors(texts, Priority.BACKFILL)
            made = [PieceVector(piece.piece, vector) for piece, vector in zip(pieces, vectors, strict=True)]
            await self._store.save_pieces(self._worker.model, memory.key, made)
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a model throws at one text
            await self._postpone(claim, error)

    async def _postpone(self, claim: ClaimedMemory, error: Exception) -> None:
        attempt = claim.attempts + 1
        until = datetime.now(UTC) + FIRST_PAUSE * 4 ** (attempt - 1) if attempt < MAX_ATTEMPTS else None
        reason = f"attempt {attempt} of {MAX_ATTEMPTS}: {error}"
        await self._store.postpone(self._worker.model, [claim.memory.key], reason, until)
        what = "a memory could not be embedded" if until else "a memory could not be embedded and is given up"
        log.warning(what, memory_id=str(claim.memory.id), attempt=attempt, reason=describe(error))
