import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from app.embedding.hashing import HashingEmbedder
from app.embedding.lane import BACKGROUND_NICENESS
from app.embedding.worker import EmbeddingWorker, Priority
from app.errors import UnavailableError

BAD_TEXT = "bad"


class GatedEmbedder(HashingEmbedder):
    """Hashes when its gate is open, notes each call, and cannot embed one text."""

    texts_per_call = 4

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.calls: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls.append(list(texts))
        assert self.gate.wait(timeout=10)
        if BAD_TEXT in texts:
            raise ValueError("cannot embed this")
        return super().embed(texts)


class ParallelEmbedder(GatedEmbedder):
    """Does two things at once; a question is answered though the gate is shut."""

    parallel_calls = 2

    def __init__(self) -> None:
        super().__init__()
        self.niceness: dict[str, int] = {}

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.niceness[texts[0]] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        if texts == ["question"]:
            self.calls.append(list(texts))
            return HashingEmbedder.embed(self, texts)
        return super().embed(texts)


class MissingModel(HashingEmbedder):
    """Loads only once its weights are there."""

    def __init__(self) -> None:
        self.attempts = 0
        self.present = False

    def load(self) -> None:
        self.attempts += 1
        if not self.present:
            raise UnavailableError("the weights are missing; install them")


@pytest.fixture
def embedder() -> GatedEmbedder:
    return GatedEmbedder()


@pytest.fixture
async def worker(embedder: GatedEmbedder) -> AsyncIterator[EmbeddingWorker]:
    worker = EmbeddingWorker(embedder, limit_texts=8)
    await worker.start()
    await worker.wait_ready()
    yield worker
    embedder.gate.set()
    await worker.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def ask(worker: EmbeddingWorker, priority: Priority, *texts: str) -> asyncio.Task[NDArray[np.float32]]:
    """Begins to embed and returns when the texts wait."""
    task = asyncio.create_task(worker.embed(texts, priority))
    await asyncio.sleep(0)
    return task


async def occupy(worker: EmbeddingWorker, embedder: GatedEmbedder) -> asyncio.Task[NDArray[np.float32]]:
    """Puts a call in hand that ends when the gate opens."""
    task = await ask(worker, Priority.BACKFILL, "in hand")
    await until(lambda: embedder.calls == [["in hand"]])
    return task


async def test_vectors_come_in_the_order_of_the_texts() -> None:
    worker = EmbeddingWorker(HashingEmbedder())
    await worker.start()
    texts = [f"text number {number}" for number in range(3 * HashingEmbedder.texts_per_call + 1)]
    vectors = await worker.embed(texts, Priority.BACKFILL)
    await worker.stop()
    assert np.array_equal(vectors, HashingEmbedder().embed(texts))


async def test_no_texts_give_no_vectors(worker: EmbeddingWorker) -> None:
    assert (await worker.embed([], Priority.WRITE)).shape == (0, 384)


async def test_queries_are_served_before_writes_before_backfill(
    worker: EmbeddingWorker, embedder: GatedEmbedder
) -> None:
    tasks = [
        await occupy(worker, embedder),
        await ask(worker, Priority.BACKFILL, "old"),
        await ask(worker, Priority.WRITE, "new"),
        await ask(worker, Priority.QUERY, "question"),
    ]
    embedder.gate.set()
    await asyncio.gather(*tasks)
    assert embedder.calls == [["in hand"], ["question"], ["new"], ["old"]]


async def test_a_query_waits_for_one_small_call_of_a_large_request(
    worker: EmbeddingWorker, embedder: GatedEmbedder
) -> None:
    large = await ask(worker, Priority.BACKFILL, *"abcdefgh")
    await until(lambda: len(embedder.calls) == 1)
    query = await ask(worker, Priority.QUERY, "question")
    embedder.gate.set()
    await asyncio.gather(large, query)
    assert embedder.calls == [["a", "b", "c", "d"], ["question"], ["e", "f", "g", "h"]]


async def test_a_query_waits_for_no_other_where_calls_can_run_at_once() -> None:
    embedder = ParallelEmbedder()
    worker = EmbeddingWorker(embedder)
    await worker.start()
    await worker.wait_ready()
    others = [await ask(worker, Priority.BACKFILL, *"abcdefghijkl"), await ask(worker, Priority.WRITE, "new")]
    await until(lambda: len(embedder.calls) == 2)
    assert (await worker.embed(["question"], Priority.QUERY)).shape == (1, 384)
    assert len(embedder.calls) == 3
    embedder.gate.set()
    await asyncio.gather(*others)
    await worker.stop()
    assert len(embedder.calls) == 5


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority is the whole process's")
async def test_who_searches_goes_before_the_background_on_the_processor() -> None:
    embedder = ParallelEmbedder()
    embedder.gate.set()
    worker = EmbeddingWorker(embedder)
    await worker.start()
    await worker.embed(["question"], Priority.QUERY)
    await worker.embed(["old"], Priority.BACKFILL)
    await worker.stop()
    assert embedder.niceness == {"question": os.nice(0), "old": os.nice(0) + BACKGROUND_NICENESS}


async def test_waiting_writes_share_a_call(worker: EmbeddingWorker, embedder: GatedEmbedder) -> None:
    first = await occupy(worker, embedder)
    writes = [await ask(worker, Priority.WRITE, f"write {number}") for number in range(3)]
    embedder.gate.set()
    await asyncio.gather(first, *writes)
    assert embedder.calls[1:] == [["write 0", "write 1", "write 2"]]


async def test_a_cancelled_caller_leaves_the_others_of_its_call_alone(
    worker: EmbeddingWorker, embedder: GatedEmbedder
) -> None:
    first = await occupy(worker, embedder)
    gone, stays = await ask(worker, Priority.WRITE, "gone"), await ask(worker, Priority.WRITE, "stays")
    gone.cancel()
    embedder.gate.set()
    await asyncio.gather(first, stays)
    assert gone.cancelled()
    assert embedder.calls[1:] == [["stays"]]


async def test_a_caller_may_leave_during_its_call(worker: EmbeddingWorker, embedder: GatedEmbedder) -> None:
    gone = await occupy(worker, embedder)
    gone.cancel()
    stays = await ask(worker, Priority.WRITE, "stays")
    embedder.gate.set()
    assert (await stays).shape == (1, 384)


async def test_an_error_reaches_those_of_its_call_and_no_others(
    worker: EmbeddingWorker, embedder: GatedEmbedder
) -> None:
    first = await occupy(worker, embedder)
    in_the_call = [await ask(worker, Priority.WRITE, BAD_TEXT), await ask(worker, Priority.WRITE, "its neighbour")]
    other = await ask(worker, Priority.BACKFILL, "other")
    embedder.gate.set()
    for task in in_the_call:
        with pytest.raises(ValueError, match="cannot embed this"):
            await task
    assert (await first).shape == (await other).shape == (1, 384)


async def test_more_texts_than_may_wait_are_refused(worker: EmbeddingWorker, embedder: GatedEmbedder) -> None:
    waiting = [await occupy(worker, embedder), await ask(worker, Priority.BACKFILL, *"abcdefgh")]
    with pytest.raises(UnavailableError, match="8 texts wait to be embedded already and 1 more would") as refusal:
        await worker.embed(["i"], Priority.BACKFILL)
    assert refusal.value.headers == {"Retry-After": "1"}
    embedder.gate.set()
    await asyncio.gather(*waiting)


async def test_each_priority_has_its_own_room(worker: EmbeddingWorker, embedder: GatedEmbedder) -> None:
    waiting = [await occupy(worker, embedder), await ask(worker, Priority.BACKFILL, *"abcdefgh")]
    query = await ask(worker, Priority.QUERY, "question")
    embedder.gate.set()
    assert (await query).shape == (1, 384)
    await asyncio.gather(*waiting)


async def test_a_cancelled_caller_makes_room(worker: EmbeddingWorker, embedder: GatedEmbedder) -> None:
    first, gone = await occupy(worker, embedder), await ask(worker, Priority.BACKFILL, *"abcdefgh")
    gone.cancel()
    await asyncio.wait([gone])
    stays = await ask(worker, Priority.BACKFILL, *"ijklmnop")
    embedder.gate.set()
    assert (await stays).shape == (8, 384)
    await first


async def test_a_repeated_query_needs_no_call(worker: EmbeddingWorker, embedder: GatedEmbedder) -> None:
    embedder.gate.set()
    first = await worker.embed(["question"], Priority.QUERY)
    second = await worker.embed(["question"], Priority.QUERY)
    assert np.array_equal(first, second)
    assert embedder.calls == [["question"]]


async def test_the_query_used_longest_ago_is_forgotten() -> None:
    embedder = GatedEmbedder()
    embedder.gate.set()
    worker = EmbeddingWorker(embedder, limit_cached=2)
    await worker.start()
    for query in ("a", "b", "a", "c", "a", "b"):
        await worker.embed([query], Priority.QUERY)
    await worker.stop()
    assert embedder.calls == [["a"], ["b"], ["c"], ["b"]]


async def test_stopping_ends_the_call_in_hand_and_refuses_who_waits_and_who_comes(
    worker: EmbeddingWorker, embedder: GatedEmbedder
) -> None:
    in_hand = await occupy(worker, embedder)
    waiting = await ask(worker, Priority.WRITE, "waiting")
    stopping = asyncio.create_task(worker.stop())
    with pytest.raises(UnavailableError, match="the service is stopping"):
        await waiting
    embedder.gate.set()
    assert (await in_hand).shape == (1, 384)
    await stopping
    with pytest.raises(UnavailableError, match="the service is stopping"):
        await worker.embed(["late"], Priority.QUERY)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("embedding")]


async def test_a_stop_leaves_nobody_without_an_answer() -> None:
    for _ in range(100):
        worker = EmbeddingWorker(HashingEmbedder())
        await worker.start()
        await worker.embed(["the thread is there"], Priority.WRITE)
        asked = await ask(worker, Priority.WRITE, "just asked")
        await worker.stop()
        async with asyncio.timeout(5):
            await asyncio.wait([asked])
        if asked.exception() is not None:
            with pytest.raises(UnavailableError, match="the service is stopping"):
                await asked


async def test_a_worker_that_never_started_can_be_stopped() -> None:
    worker = EmbeddingWorker(HashingEmbedder())
    await worker.stop()
    with pytest.raises(UnavailableError, match="the service is stopping"):
        await worker.wait_ready()


async def test_a_model_nobody_has_texts_for_is_loaded_after_the_delay() -> None:
    embedder = MissingModel()
    embedder.present = True
    worker = EmbeddingWorker(embedder)
    began = time.monotonic()
    await worker.start(delay_seconds=0.1)
    await worker.wait_ready()  # as the background does, which does not end the delay
    assert time.monotonic() - began >= 0.1
    assert embedder.attempts == 1
    await worker.stop()


async def test_texts_end_the_delay() -> None:
    worker = EmbeddingWorker(HashingEmbedder())
    await worker.start(delay_seconds=60)
    await asyncio.sleep(0.01)
    assert not worker.ready
    async with asyncio.timeout(10):
        assert (await worker.embed(["question"], Priority.QUERY)).shape == (1, 384)
    await worker.stop()


async def test_a_stop_does_not_wait_for_the_end_of_the_delay() -> None:
    embedder = MissingModel()
    worker = EmbeddingWorker(embedder)
    await worker.start(delay_seconds=60)
    await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        await worker.stop()
    assert embedder.attempts == 0


async def test_a_model_that_does_not_load_is_a_named_problem() -> None:
    worker = EmbeddingWorker(MissingModel())
    await worker.start()
    with pytest.raises(UnavailableError, match="the weights are missing; install them"):
        await worker.wait_ready()
    with pytest.raises(UnavailableError, match="the weights are missing") as refusal:
        await worker.embed(["question"], Priority.QUERY)
    await worker.stop()
    assert (worker.ready, worker.problem) == (False, "the weights are missing; install them")
    assert 20 < refusal.value.retry_after_seconds <= 30


async def test_texts_that_wait_for_the_model_learn_why_it_did_not_load() -> None:
    worker = EmbeddingWorker(MissingModel())
    waiting = await ask(worker, Priority.WRITE, "early")
    await worker.start()
    with pytest.raises(UnavailableError, match="the weights are missing; install them"):
        await waiting
    await worker.stop()


async def test_a_model_that_did_not_load_is_left_alone_during_the_pause() -> None:
    embedder = MissingModel()
    worker = EmbeddingWorker(embedder)
    await worker.start()
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await worker.wait_ready()
    await worker.stop()
    assert embedder.attempts == 1


@pytest.mark.parametrize("use", ["embed", "wait_ready"])
async def test_a_model_that_did_not_load_is_tried_again_at_the_next_use(use: str) -> None:
    embedder = MissingModel()
    worker = EmbeddingWorker(embedder, retry_seconds=0)
    await worker.start()
    await until(lambda: worker.problem is not None)
    embedder.present = True
    if use == "embed":
        assert (await worker.embed(["question"], Priority.QUERY)).shape == (1, 384)
    else:
        await worker.wait_ready()
    await worker.stop()
    assert (worker.ready, worker.problem) == (True, None)


async def test_as_many_texts_wait_as_is_documented_and_no_more(embedder: GatedEmbedder) -> None:
    worker = EmbeddingWorker(embedder)
    await worker.start()
    await worker.wait_ready()
    assert worker.limit_texts == 1024
    in_hand = await occupy(worker, embedder)
    waiting = await ask(worker, Priority.QUERY, *(f"text {number}" for number in range(1024)))
    with pytest.raises(UnavailableError, match="1024"):
        await worker.embed(["one more"], Priority.QUERY)
    embedder.gate.set()
    assert len(await waiting) == 1024
    await in_hand
    assert len(await worker.embed(["one more"], Priority.QUERY)) == 1
    await worker.stop()
