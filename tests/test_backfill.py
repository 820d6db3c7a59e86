"""The background makes what memories lack: each once, whatever fails and whoever else does the same."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from app.backfill import CLAIM_BATCH, FIRST_PAUSE, GRACE, MAX_ATTEMPTS, Backfill
from app.embedding.hashing import HashingEmbedder
from app.embedding.worker import EmbeddingWorker
from app.errors import UnavailableError
from app.models import MAX_WHOLE_CHARACTERS, EmbeddingStatus
from app.store.embedding_protocol import Backlog
from app.store.protocol import Store
from tests.conftest import MODEL
from tests.memories import NOON, new, vector

BAD = "this breaks the model"


class Counting(HashingEmbedder):
    """Under the name of the store's model; notes its texts, and cannot embed one of them."""

    model = MODEL

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += texts
        if any(BAD in text for text in texts):
            raise ValueError("cannot embed this")
        return super().embed(texts)


class Held(HashingEmbedder):
    """Under the same name; makes nothing until it is let go."""

    model = MODEL

    def __init__(self) -> None:
        self.gate = threading.Event()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        assert self.gate.wait(timeout=20)
        return super().embed(texts)


@asynccontextmanager
async def running(store: Store, embedder: HashingEmbedder) -> AsyncIterator[None]:
    """One process that makes vectors."""
    worker = EmbeddingWorker(embedder)
    await worker.start()
    backfill = Backfill(store.embeddings, worker)
    backfill.start()
    try:
        yield
    finally:
        await backfill.stop()
        await worker.stop()


async def until(store: Store, reached: Callable[[Backlog], bool]) -> None:
    async with asyncio.timeout(20):
        while not reached(await store.embeddings.backlog(MODEL)):
            await asyncio.sleep(0.01)


async def test_several_processes_make_each_vector_once(store: Store) -> None:
    await store.memories.add([new(new_code=f"value = {number}") for number in range(300)], NOON)
    first, second = Counting(), Counting()
    async with running(store, first), running(store, second):
        await until(store, lambda backlog: backlog.pending == 0)
    assert len(first.texts) + len(second.texts) == len({*first.texts, *second.texts}) == 300


async def test_a_restart_goes_on_where_it_stopped(store: Store) -> None:
    await store.memories.add([new(new_code=f"value = {number}") for number in range(300)], NOON)
    first, second = Counting(), Counting()
    async with running(store, first):
        await until(store, lambda backlog: backlog.pending < 300)
    left = (await store.embeddings.backlog(MODEL)).pending
    async with running(store, second):
        await until(store, lambda backlog: backlog.pending == 0)
    # What the first was saving when it was stopped may be stored just after that.
    assert len(second.texts) <= left
    assert len({*first.texts, *second.texts}) == 300


@asynccontextmanager
async def held_worker() -> AsyncIterator[EmbeddingWorker]:
    embedder = Held()
    worker = EmbeddingWorker(embedder)
    await worker.start()
    await worker.wait_ready()
    try:
        yield worker
    finally:
        embedder.gate.set()
        await worker.stop()


async def due(store: Store, *, whole: bool = True) -> int:
    """How many memories whoever comes next may take, which are due still."""
    now = datetime.now(UTC)
    return len(await store.embeddings.claim(MODEL, 1000, now, now, whole=whole))


async def test_a_stop_hands_back_what_was_claimed_even_while_the_store_still_gives_it(store: Store) -> None:
    await store.memories.add([new(new_code=f"value = {number}") for number in range(100)], NOON)
    async with held_worker() as worker:
        for milliseconds in range(20):
            backfill = Backfill(store.embeddings, worker)
            backfill.start()
            await asyncio.sleep(milliseconds / 1000)
            await backfill.stop()
            async with asyncio.timeout(20):  # a statement that was broken off may hold its rows for a moment
                while await due(store) != 100:
                    await asyncio.sleep(0.01)
        backfill = Backfill(store.embeddings, worker)
        backfill.start()
        async with asyncio.timeout(20):
            while not worker.waiting:  # to look what is due holds rows for a moment, and claims pass them over
                await asyncio.sleep(0.01)
        assert await due(store) == 100 - CLAIM_BATCH
        await backfill.stop()
    assert await due(store) == 100


async def test_what_is_queued_does_not_wait_for_the_look_for_what_is_not(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def takes_too_long(model: str, now: datetime) -> int:
        raise UnavailableError("the statement ran too long", 60)

    await store.memories.add([new()], NOON)
    monkeypatch.setattr(store.embeddings, "queue_missing", takes_too_long)
    async with running(store, Counting()):
        await until(store, lambda backlog: backlog.pending == 0)


async def test_a_stop_hands_back_the_long_ones_whose_pieces_are_not_made(store: Store) -> None:
    rows = [new(vector(1), new_code="x = 1\n" * MAX_WHOLE_CHARACTERS) for _ in range(6)]
    await store.memories.add(rows, NOON)
    async with held_worker() as worker:
        backfill = Backfill(store.embeddings, worker)
        backfill.start()
        async with asyncio.timeout(20):
            while await due(store, whole=False) == 6:
                await asyncio.sleep(0.01)
        await backfill.stop()
    assert await due(store, whole=False) == 6


@pytest.mark.parametrize("sent", ["in a batch", "one by one"])
async def test_a_stop_hands_back_new_memories_that_were_kept_for_this_process(store: Store, sent: str) -> None:
    async with held_worker() as worker:
        backfill = Backfill(store.embeddings, worker)
        backfill.start()
        now = datetime.now(UTC)
        if sent == "in a batch":
            rows = [new(new_code=f"value = {number}", created_at=now) for number in range(40)]
            await store.memories.add(rows, backfill.due_at(now, len(rows)))
        else:  # which are stored together too
            times = [now + timedelta(milliseconds=number) for number in range(40)]
            rows = [new(new_code=f"value = {time}", created_at=time) for time in times]
            await asyncio.gather(
                *(store.memories.add([row], backfill.due_at(row.memory.created_at, 1)) for row in rows)
            )
        backfill.offer([row.memory for row in rows])
        await asyncio.sleep(0.05)
        assert await due(store) == 0
        await backfill.stop()
    assert await due(store) == 40


async def test_new_memories_that_others_may_take_by_now_are_left_to_the_queue(store: Store) -> None:
    now = datetime.now(UTC)
    rows = [new(new_code=f"value = {number}", created_at=now - GRACE) for number in range(60)]
    await store.memories.add(rows, now)
    embedder = Counting()
    worker = EmbeddingWorker(embedder)
    await worker.start()
    backfill = Backfill(store.embeddings, worker)
    backfill.offer([row.memory for row in rows])
    backfill.start()
    await until(store, lambda backlog: backlog.pending == 0)
    await backfill.stop()
    await worker.stop()
    assert len(embedder.texts) == len({*embedder.texts}) == 60


async def test_what_is_handed_back_late_is_left_to_who_has_taken_it_since(store: Store) -> None:
    rows = [new(new_code=f"value = {number}") for number in range(3)]
    await store.memories.add(rows, NOON)
    taken, late = NOON + timedelta(minutes=1), NOON + timedelta(minutes=2)
    keys = [claim.memory.key for claim in await store.embeddings.claim(MODEL, 3, NOON, taken)]
    await store.embeddings.save(MODEL, {keys[0]: vector(1)})
    await store.embeddings.postpone(MODEL, [keys[1]], "no luck", late)
    await store.embeddings.hand_back(MODEL, dict.fromkeys(keys, taken), NOON)
    again = await store.embeddings.claim(MODEL, 3, NOON, late)
    assert [claim.memory.key for claim in again] == [keys[2]]
    await store.embeddings.hand_back(MODEL, {keys[2]: taken}, NOON)
    assert await store.embeddings.claim(MODEL, 3, NOON, late) == []


async def test_what_cannot_be_embedded_is_tried_again_after_growing_pauses_and_then_failed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.backfill.POLL_SECONDS", 0.02)
    bad = new(new_code=BAD)
    await store.memories.add([bad, new()], NOON)
    async with running(store, Counting()):
        for attempt in range(1, MAX_ATTEMPTS):
            reason = f"attempt {attempt} of {MAX_ATTEMPTS}: cannot embed this"
            async with asyncio.timeout(20):
                while [one.reason for one in await store.embeddings.failures(MODEL, 10)] != [reason]:
                    await asyncio.sleep(0.01)
            now, pause = datetime.now(UTC), FIRST_PAUSE * 4 ** (attempt - 1)
            soon = timedelta(seconds=4)
            assert await store.embeddings.claim(MODEL, 10, now + pause - soon, now) == []
            [claimed] = await store.embeddings.claim(MODEL, 10, now + pause, now)
            assert claimed.attempts == attempt
        await until(store, lambda backlog: backlog.failed == 1)
    assert await store.embeddings.backlog(MODEL) == Backlog(pending=0, failed=1, pieces_pending=0)
    [failure] = await store.embeddings.failures(MODEL, 10)
    assert (failure.given_up, failure.reason) == (True, "attempt 5 of 5: cannot embed this")
    assert (await store.memories.find(bad.memory.id, None))[0].embedding_status is EmbeddingStatus.FAILED
