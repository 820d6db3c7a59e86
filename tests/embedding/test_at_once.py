"""A brief query is embedded on the event loop, where that keeps nobody waiting, and in a thread otherwise."""

import threading
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from app.embedding.hashing import HashingEmbedder
from app.embedding.worker import EmbeddingWorker, Priority
from app.embedding_models import EmbeddingModels
from app.models import Scope
from app.ranking import Weights
from app.search import Fusion, Searches, SearchMode
from app.store.protocol import Store
from app.traffic import Kind, Traffic
from tests.conftest import MODEL
from tests.memories import NOON, new

HERE = "the event loop"
THERE = "a thread"


class Noting(HashingEmbedder):
    """Under the name of the store's model; notes where each call ran."""

    model = MODEL
    brief_bytes = 10

    def __init__(self) -> None:
        self.seen: list[str] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.seen.append(HERE if threading.current_thread() is threading.main_thread() else THERE)
        return super().embed(texts)


@pytest.fixture
def embedder() -> Noting:
    return Noting()


@pytest.fixture
async def worker(embedder: Noting) -> AsyncIterator[EmbeddingWorker]:
    worker = EmbeddingWorker(embedder)
    await worker.start()
    await worker.wait_ready()
    yield worker
    await worker.stop()


@pytest.mark.parametrize(
    ("texts", "priority", "at_once", "where"),
    [
        (["123456789"], Priority.QUERY, True, HERE),
        (["123456789"], Priority.QUERY, False, THERE),
        (["0123456789"], Priority.QUERY, True, THERE),
        (["ééééé"], Priority.QUERY, True, THERE),
        (["a", "b"], Priority.QUERY, True, THERE),
        (["123456789"], Priority.WRITE, True, THERE),
    ],
)
async def test_a_brief_query_alone_is_embedded_at_once(
    worker: EmbeddingWorker, embedder: Noting, texts: list[str], priority: Priority, at_once: bool, where: str
) -> None:
    vectors = await worker.embed(texts, priority, at_once=at_once)
    assert embedder.seen == [where]
    assert np.array_equal(vectors, HashingEmbedder().embed(texts))


async def test_what_was_embedded_at_once_is_kept(worker: EmbeddingWorker, embedder: Noting) -> None:
    first = await worker.embed(["again"], Priority.QUERY, at_once=True)
    assert await worker.embed(["again"], Priority.QUERY) is first
    assert embedder.seen == [HERE]


async def test_no_query_is_brief_for_some_models(worker: EmbeddingWorker, embedder: Noting) -> None:
    embedder.brief_bytes = 0
    await worker.embed([""], Priority.QUERY, at_once=True)
    assert embedder.seen == [THERE]


async def test_a_query_waits_for_a_model_that_is_being_loaded() -> None:
    embedder = Noting()
    worker = EmbeddingWorker(embedder)
    assert (await worker.embed(["again"], Priority.QUERY, at_once=True)).shape == (1, 384)
    assert embedder.seen == [THERE]
    await worker.stop()


@pytest.mark.parametrize(
    ("mode", "in_flight", "where"),
    [
        (SearchMode.SEMANTIC, [Kind.SEARCHES], HERE),
        (SearchMode.SEMANTIC, [Kind.SEARCHES, Kind.EVENT_STREAMS], HERE),
        (SearchMode.SEMANTIC, [Kind.SEARCHES, Kind.SEARCHES], THERE),
        (SearchMode.SEMANTIC, [Kind.SEARCHES, Kind.WRITES], THERE),
        (SearchMode.HYBRID, [Kind.SEARCHES], THERE),
    ],
)
async def test_the_event_loop_is_held_for_a_semantic_search_while_nobody_else_waits(
    store: Store, embedder: Noting, mode: SearchMode, in_flight: list[Kind], where: str
) -> None:
    await store.memories.add([new(new_code="a = b")], NOON)
    traffic = Traffic()
    models = EmbeddingModels(store.embeddings, store.models, lambda _: embedder, traffic)
    await models.open()
    try:
        await models.active.worker.wait_ready()
        for kind in in_flight:
            traffic.in_flight[kind] += 1
        await Searches(store.memories, models, Weights(fts=1, semantic=1), Fusion.CONVEX).search(
            mode, "a", Scope(), 10, 0
        )
    finally:
        await models.stop()
    assert embedder.seen == [where]
