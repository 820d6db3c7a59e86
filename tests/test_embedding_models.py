"""A change of the model while memories come and searches go on, on every store."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from app import embedding_models
from app.backfill import CLAIM_BATCH
from app.drafts import Draft
from app.embedding.hashing import HashingEmbedder
from app.embedding_models import EmbeddingModels
from app.embedding_progress import EmbeddingProgress
from app.errors import UnavailableError
from app.memories import Memories
from app.models import EmbeddingStatus, MemoryKey, NewMemory, Scope
from app.redaction import Redaction
from app.store.embedding_protocol import Backlog, ModelsInUse
from app.store.protocol import Store
from tests.conftest import MODEL
from tests.memories import NOON, new, vector

NEXT = "next"
THIRD = "third"
DIMENSIONS = {MODEL: 384, NEXT: 100, THIRD: 500}
COUNT = 100
"""More than one claim of the background."""


class Gated(HashingEmbedder):
    """A hashing model of another name, which loads once it is there, and makes no more than so many vectors."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.dimensions = DIMENSIONS[model]
        self.texts_per_call = 4
        self.present = True
        self.gate = threading.Event()
        self.gate.set()
        self.limit = COUNT * 10

    def load(self) -> None:
        if not self.present:
            raise UnavailableError(f"{self.model} was removed from the hub")

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.limit -= len(texts)
        if self.limit < 0:
            assert self.gate.wait(timeout=20)
        return super().embed(texts)

    def stop_after(self, count: int) -> None:
        self.limit = count
        self.gate.clear()

    def go_on(self) -> None:
        self.limit = COUNT * 10
        self.gate.set()


Embedders = dict[str, Gated]


@pytest.fixture
def embedders() -> Embedders:
    return {model: Gated(model) for model in DIMENSIONS}


@asynccontextmanager
async def process(
    store: Store, embedders: Embedders, target: str | None = None, kept_time: timedelta = timedelta(minutes=2)
) -> AsyncIterator[EmbeddingModels]:
    """One process of the service, as far as it has to do with models."""
    models = EmbeddingModels(
        store.embeddings, store.models, lambda model: embedders[model], kept_time=kept_time, poll_seconds=0.01
    )
    await models.start(target)
    try:
        yield models
    finally:
        for embedder in embedders.values():
            embedder.gate.set()
        await models.stop()


async def filled(store: Store, embedders: Embedders) -> list[NewMemory]:
    """Memories with the vectors of the first model."""
    rows = [new(new_code=f"value_{number}") for number in range(COUNT)]
    await store.memories.add(rows, NOON)
    async with process(store, embedders):
        await until(store, lambda: _is_left(store, MODEL, 0))
    return rows


async def until(store: Store, reached: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not await reached():  # type: ignore[misc]
            await asyncio.sleep(0.01)


async def _is_any_left(store: Store, model: str) -> bool:
    return (await store.embeddings.backlog(model)).pending > 0


async def _is_left(store: Store, model: str, count: int) -> bool:
    return (await store.embeddings.backlog(model)).pending == count


async def _is_used(store: Store, *names: str) -> bool:
    return (await store.models.get()).names == [*names]


async def find(store: Store, models: EmbeddingModels, text: str) -> list[MemoryKey]:
    query, model = await models.query_vector(text)
    assert len(query) == DIMENSIONS[model]
    return [match.key for match in await store.memories.search_vectors(Scope(), query, model, COUNT)]


async def test_a_start_goes_before_the_model_which_whoever_only_searches_has_at_once(
    store: Store, embedders: Embedders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_models, "LOAD_DELAY_SECONDS", 60)
    async with process(store, embedders) as models, asyncio.timeout(10):
        await asyncio.sleep(0.05)
        assert not models.active.worker.ready
        reader = EmbeddingModels(store.embeddings, store.models, lambda model: embedders[model])
        await reader.open()
        await reader.active.worker.wait_ready()
        await reader.stop()
        assert not models.active.worker.ready
        await models.query_vector("question")
        assert models.active.worker.ready


async def test_searches_go_on_with_the_old_vectors_and_then_with_the_new(store: Store, embedders: Embedders) -> None:
    rows = await filled(store, embedders)
    embedders[NEXT].stop_after(COUNT // 2)
    searched_by: set[str] = set()
    async with process(store, embedders, NEXT) as models, process(store, embedders) as other:
        await until(store, lambda: _is_any_left(store, NEXT))
        while len(searched_by) < 2 or not await _is_used(store, NEXT):
            for one in (models, other):
                number = len(searched_by)
                found = await find(store, one, f"value_{number}")
                assert found[0] == rows[number].memory.key
                assert len(found) == COUNT
                searched_by.add(one.used.active)
            embedders[NEXT].go_on()
    assert searched_by == {MODEL, NEXT}


async def test_a_memory_stored_during_the_change_is_found_before_and_after(store: Store, embedders: Embedders) -> None:
    await filled(store, embedders)
    embedders[NEXT].stop_after(8)
    async with process(store, embedders, NEXT) as models:
        row = new(new_code="zebra")
        await store.memories.add([row], models.due_at(NOON, 1))
        models.offer([row.memory])
        async with asyncio.timeout(20):
            while (await find(store, models, "zebra"))[0] != row.memory.key:
                await asyncio.sleep(0.01)
        assert models.used.changing
        embedders[NEXT].go_on()
        await until(store, lambda: _is_used(store, NEXT))
        async with asyncio.timeout(20):
            while models.used.changing:
                await asyncio.sleep(0.01)
        assert (await find(store, models, "zebra"))[0] == row.memory.key


async def test_who_waits_for_the_vector_of_a_memory_waits_for_that_of_the_next_model_too(
    store: Store, embedders: Embedders
) -> None:
    await filled(store, embedders)
    embedders[NEXT].stop_after(0)
    async with process(store, embedders, NEXT) as models:
        async with asyncio.timeout(20):
            while not models.target.worker.ready:
                await asyncio.sleep(0.01)
        row = new()
        await store.memories.add([row], NOON)
        waiting = asyncio.create_task(models.embed([row.memory]))
        embedders[NEXT].go_on()
        await waiting
        for model in (MODEL, NEXT):
            assert await store.embeddings.vectors(model, [row.memory.key])


async def test_a_sent_vector_is_of_the_next_model_and_the_memory_is_found_by_the_old_one_at_once(
    store: Store, embedders: Embedders
) -> None:
    await filled(store, embedders)
    embedders[NEXT].stop_after(0)
    async with process(store, embedders, NEXT) as models:
        progress = EmbeddingProgress(store.embeddings, store.models)
        memories = Memories(store.memories, models, progress, Redaction())
        sent = vector(1, dimensions=DIMENSIONS[NEXT])
        draft = Draft(project="p", file_path="a.py", new_code="zebra", vector=sent)
        assert (await memories.add(draft)).memory.embedding_status is EmbeddingStatus.PENDING
        added = await memories.add(replace(draft, new_code="gnu"), wait_for_embedding=True)
        assert added.memory.embedding_status is EmbeddingStatus.READY
        assert (await find(store, models, "gnu"))[0] == added.memory.key
        [kept] = (await store.embeddings.vectors(NEXT, [added.memory.key])).values()
        assert np.array_equal(kept, sent)
        assert (await memories.stats(None)).embedding.change is not None


async def test_who_repeats_a_write_with_a_vector_and_waits_gets_the_memory_found_all_the_same(
    store: Store, embedders: Embedders
) -> None:
    embedders[MODEL].stop_after(0)
    async with process(store, embedders) as models:
        progress = EmbeddingProgress(store.embeddings, store.models)
        memories = Memories(store.memories, models, progress, Redaction())
        first = await memories.add(Draft(project="p", file_path="a.py", new_code="zebra", id=uuid4()))
        assert first.memory.embedding_status is EmbeddingStatus.PENDING
        again = Draft(project="p", file_path="a.py", new_code="zebra", id=first.memory.id, vector=vector(1))
        waiting = asyncio.create_task(memories.add(again, wait_for_embedding=True))
        await asyncio.wait([waiting], timeout=0.2)
        assert not waiting.done()
        embedders[MODEL].go_on()
        assert (await waiting).memory.embedding_status is EmbeddingStatus.READY
        assert await find(store, models, "zebra") == [first.memory.key]


@pytest.mark.parametrize("then", [MODEL, NEXT, THIRD])
async def test_a_change_can_be_ended_resumed_or_turned_at_a_restart_in_the_middle(
    store: Store, embedders: Embedders, then: str
) -> None:
    rows = await filled(store, embedders)
    embedders[NEXT].stop_after(CLAIM_BATCH)
    async with process(store, embedders, NEXT):
        async with asyncio.timeout(20):
            while not await store.embeddings.vectors(NEXT, [row.memory.key for row in rows]):
                await asyncio.sleep(0.01)
        assert await _is_used(store, MODEL, NEXT)
    embedders[NEXT].go_on()
    async with process(store, embedders, then, kept_time=timedelta(0)) as models:
        await until(store, lambda: _is_used(store, then))
        async with asyncio.timeout(20):
            while models.used.active != then:
                await asyncio.sleep(0.01)
        assert (await find(store, models, "value_7"))[0] == rows[7].memory.key
        keys = [row.memory.key for row in rows]
        async with asyncio.timeout(20):
            for model in DIMENSIONS:
                while bool(await store.embeddings.vectors(model, keys)) != (model == then):
                    await asyncio.sleep(0.01)
                assert model == then or await store.embeddings.backlog(model) == Backlog(0, 0, 0)


async def test_all_processes_follow_the_one_that_begins_a_change(store: Store, embedders: Embedders) -> None:
    await filled(store, embedders)
    embedders[NEXT].stop_after(0)
    async with process(store, embedders, MODEL) as older, process(store, embedders, NEXT):
        async with asyncio.timeout(20):
            while older.used != ModelsInUse(MODEL, NEXT):
                await asyncio.sleep(0.01)
        embedders[NEXT].go_on()
        async with asyncio.timeout(20):
            while older.used != ModelsInUse(NEXT, NEXT):
                await asyncio.sleep(0.01)
    assert await _is_used(store, NEXT)


async def test_without_the_old_model_searches_say_so_until_the_new_one_is_complete(
    store: Store, embedders: Embedders
) -> None:
    rows = await filled(store, embedders)
    embedders[MODEL].present = False
    embedders[NEXT].stop_after(COUNT // 2)
    async with process(store, embedders, NEXT) as models:
        await until(store, lambda: _is_left(store, NEXT, COUNT))
        said = rf"the model {MODEL}, whose .* was removed from the hub; those of {NEXT} are being made .*, \d+ memories"
        with pytest.raises(UnavailableError, match=said):
            await models.query_vector("value_7")
        embedders[NEXT].go_on()
        await until(store, lambda: _is_used(store, NEXT))
        async with asyncio.timeout(20):
            while models.used.changing:
                await asyncio.sleep(0.01)
        assert (await find(store, models, "value_7"))[0] == rows[7].memory.key


async def test_a_new_model_that_does_not_load_stops_nothing(store: Store, embedders: Embedders) -> None:
    rows = await filled(store, embedders)
    embedders[NEXT].present = False
    async with process(store, embedders, NEXT) as models:
        async with asyncio.timeout(20):
            while models.target.worker.problem is None:
                await asyncio.sleep(0.01)
        row = new(new_code="zebra")
        await store.memories.add([row], NOON)
        await models.embed([row.memory])
        assert (await find(store, models, "zebra"))[0] == row.memory.key
        assert (await find(store, models, "value_7"))[0] == rows[7].memory.key


async def test_former_vectors_stay_for_searches_that_began_before_the_switch(
    store: Store, embedders: Embedders
) -> None:
    rows = await filled(store, embedders)
    async with process(store, embedders, NEXT) as models:
        query, model = await models.query_vector("value_7")
        await until(store, lambda: _is_used(store, NEXT))
        assert model == MODEL
        matches = await store.memories.search_vectors(Scope(), query, model, COUNT)
        assert (len(matches), matches[0].key) == (COUNT, rows[7].memory.key)
