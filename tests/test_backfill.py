"""The background makes what memories lack: each once, whatever fails and whoever else does the same."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from app.backfill import FIRST_PAUSE, MAX_ATTEMPTS, Backfill
from app.embedding.hashing import HashingEmbedder
from app.embedding.worker import EmbeddingWorker
from app.models import EmbeddingStatus
from app.store.embedding_protocol import Backlog
from app.store.protocol import Store
from tests.conftest import MODEL
from tests.memories import NOON, new

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
    # What the stopped one held belongs to it for a minute; here its time is up at once.
    now = datetime.now(UTC)
    await store.embeddings.claim(MODEL, 300, now + timedelta(minutes=5), now)
    left = (await store.embeddings.backlog(MODEL)).pending
    async with running(store, second):
        await until(store, lambda backlog: backlog.pending == 0)
    assert len(set(second.texts)) == left


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
            soon = timedelta(seconds=2)
            assert await store.embeddings.claim(MODEL, 10, now + pause - soon, now) == []
            [claimed] = await store.embeddings.claim(MODEL, 10, now + pause, now)
            assert claimed.attempts == attempt
        await until(store, lambda backlog: backlog.failed == 1)
    assert await store.embeddings.backlog(MODEL) == Backlog(pending=0, failed=1, pieces_pending=0)
    [failure] = await store.embeddings.failures(MODEL, 10)
    assert (failure.given_up, failure.reason) == (True, "attempt 5 of 5: cannot embed this")
    assert (await store.memories.find(bad.memory.id, None))[0].embedding_status is EmbeddingStatus.FAILED
