"""What nobody waits for is embedded when nobody else needs the cores."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app import backfill
from app.backfill import Backfill
from app.embedding.hashing import HashingEmbedder
from app.embedding.onnx import OnnxEmbedder
from app.embedding.worker import EmbeddingWorker
from app.store.protocol import Store
from app.traffic import Kind, Traffic
from tests.conftest import MODEL
from tests.memories import NOON, new

COUNT = 5


class Polite(HashingEmbedder):
    """Under the name of the store's model; notes what was in flight at each call."""

    model = MODEL
    texts_per_call = 1
    gives_way = True

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.seen: list[int] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        assert len(texts) == 1
        self.seen.append(sum(self.traffic.in_flight.values()))
        return super().embed(texts)


async def embedded(store: Store, traffic: Traffic, embedder: HashingEmbedder) -> None:
    """Returns when a process has made the vectors of some memories."""
    await store.memories.add([new(new_code=f"value = {number}") for number in range(COUNT)], NOON)
    worker = EmbeddingWorker(embedder)
    await worker.start()
    filled = Backfill(store.embeddings, worker, traffic)
    filled.start()
    try:
        while (await store.embeddings.backlog(MODEL)).pending:
            await asyncio.sleep(0.01)
    finally:
        await filled.stop()
        await worker.stop()


@pytest.mark.parametrize("kind", [Kind.WRITES, Kind.SEARCHES])
async def test_old_memories_are_embedded_once_no_request_is_in_flight(
    store: Store, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "LEAST_WAIT_SECONDS", 60)
    traffic = Traffic()
    embedder = Polite(traffic)
    with traffic.counted(kind):
        work = asyncio.create_task(embedded(store, traffic, embedder))
        await asyncio.sleep(0.3)
        assert embedder.seen == []
    async with asyncio.timeout(20):
        await work
    assert embedder.seen == [0] * COUNT


async def test_requests_without_end_slow_the_background_and_do_not_stop_it(store: Store) -> None:
    traffic = Traffic()
    embedder = Polite(traffic)
    async with asyncio.timeout(20):
        with traffic.counted(Kind.WRITES):
            await embedded(store, traffic, embedder)
    assert embedder.seen == [1] * COUNT


async def test_who_takes_long_waits_long(store: Store) -> None:
    limits: list[float] = []

    class Noted(Traffic):
        async def lull(self, limit_seconds: float) -> None:
            limits.append(limit_seconds)

    class Slow(Polite):
        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            time.sleep(0.03)
            return super().embed(texts)

    traffic = Noted()
    async with asyncio.timeout(20):
        await embedded(store, traffic, Slow(traffic))
    first, *others = limits
    assert first == backfill.LEAST_WAIT_SECONDS
    assert len(others) == COUNT - 1
    assert all(0.3 < limit <= backfill.MOST_WAIT_SECONDS for limit in others)


async def test_nothing_waits_for_an_event_stream_or_where_cores_are_left(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "LEAST_WAIT_SECONDS", 60)
    traffic = Traffic()
    async with asyncio.timeout(20):
        with traffic.counted(Kind.EVENT_STREAMS):
            await embedded(store, traffic, Polite(traffic))
        embedder = Polite(traffic)
        embedder.gives_way = False
        embedder.texts_per_call = 1
        with traffic.counted(Kind.WRITES):
            await embedded(store, traffic, embedder)
        assert embedder.seen == [1] * COUNT


async def test_a_client_that_sends_one_request_after_the_other_leaves_no_lull() -> None:
    traffic = Traffic()
    waiting = asyncio.create_task(traffic.lull(60))
    for _ in range(200):
        with traffic.counted(Kind.WRITES):
            await asyncio.sleep(0.001)
    assert not waiting.done()
    async with asyncio.timeout(20):
        await waiting


@pytest.mark.parametrize(
    ("cores", "processes", "gives_way"),
    [(1, 1, True), (2, 1, True), (3, 1, False), (4, 1, False), (4, 4, True), (16, 2, False)],
)
def test_the_model_gives_way_where_the_service_and_its_database_have_no_two_cores_of_their_own(
    cores: int, processes: int, gives_way: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.embedding.onnx.cores", lambda: cores)
    assert OnnxEmbedder(tmp_path, processes).gives_way is gives_way
