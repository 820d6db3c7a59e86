"""The contract of EmbeddingStore, on every store."""

import asyncio

import numpy as np

from app.models import EmbeddingStatus, Scope
from app.store.postgresql import PostgresStore
from app.store.protocol import Store
from tests.conftest import MODEL, connections
from tests.memories import NOON, minutes, new, vector

SOON = NOON + minutes(1)


async def test_a_memory_without_a_vector_can_be_claimed_when_it_is_due(store: Store) -> None:
    row = new()
    await store.memories.add([row, new(vector(1))], embed_after=SOON)
    assert await store.embeddings.claim(MODEL, 10, NOON, SOON) == []
    [claimed] = await store.embeddings.claim(MODEL, 10, SOON, SOON + minutes(1))
    assert (claimed.memory, claimed.attempts) == (row.memory, 0)


async def test_a_claimed_memory_belongs_to_one_process_until_its_time_is_up(store: Store) -> None:
    rows = [new() for _ in range(30)]
    await store.memories.add(rows, NOON)
    claims = await asyncio.gather(*(store.embeddings.claim(MODEL, 5, NOON, SOON) for _ in range(8)))
    claimed = [claim.memory.key for part in claims for claim in part]
    assert len(claimed) == len(set(claimed)) == 30
    assert await store.embeddings.claim(MODEL, 100, NOON, SOON) == []
    assert len(await store.embeddings.claim(MODEL, 100, SOON, SOON + minutes(1))) == 30


async def test_what_another_statement_is_at_is_not_waited_for_as_memories_are_handed_back(
    database: str,
) -> None:
    store = PostgresStore(connections(database), MODEL)
    await store.open()
    rows = [new() for _ in range(3)]
    keys = [row.memory.key for row in rows]
    await store.memories.add(rows, NOON)
    await store.embeddings.claim(MODEL, 3, NOON, SOON)
    lock = "SELECT FROM embedding_queue WHERE memory_id = $1 FOR UPDATE"
    async with store._connections.transaction() as connection, asyncio.timeout(15):
        await connection.execute(lock, keys[1].id)
        await store.embeddings.hand_back(MODEL, dict.fromkeys(keys, SOON), NOON)
    claimed = await store.embeddings.claim(MODEL, 3, NOON, SOON)
    assert {claim.memory.key for claim in claimed} == {keys[0], keys[2]}
    await store.close()


async def test_a_saved_vector_makes_the_memory_ready(store: Store) -> None:
    row = new()
    await store.memories.add([row], NOON)
    await store.embeddings.save(MODEL, {row.memory.key: vector(1, 2)})
    [found] = await store.memories.find(row.memory.id, None)
    assert found.embedding_status is EmbeddingStatus.READY
    stored = (await store.embeddings.vectors(MODEL, [row.memory.key]))[row.memory.key]
    assert np.array_equal(stored, vector(1, 2).astype(np.float16))
    assert await store.embeddings.claim(MODEL, 10, SOON, SOON) == []


async def test_saving_a_vector_twice_is_harmless(store: Store) -> None:
    row = new()
    await store.memories.add([row], NOON)
    for _ in range(2):
        await store.embeddings.save(MODEL, {row.memory.key: vector(1)})
    assert (await store.memories.stats(None, MODEL)).entries_with_embeddings == 1


async def test_a_memory_deleted_meanwhile_is_passed_over(store: Store) -> None:
    kept, deleted = new(), new()
    await store.memories.add([kept, deleted], NOON)
    await store.memories.delete(deleted.memory.key)
    await store.embeddings.save(MODEL, {kept.memory.key: vector(1), deleted.memory.key: vector(1)})
    [match] = await store.memories.search_vectors(Scope(), vector(1), MODEL, 10)
    assert match.key == kept.memory.key


async def test_a_failed_attempt_is_tried_again_later(store: Store) -> None:
    row = new()
    await store.memories.add([row], NOON)
    await store.embeddings.postpone(MODEL, [row.memory.key], "no luck", until=SOON)
    assert await store.embeddings.claim(MODEL, 10, NOON, SOON) == []
    [claimed] = await store.embeddings.claim(MODEL, 10, SOON, SOON + minutes(1))
    assert claimed.attempts == 1


async def test_a_memory_that_is_given_up_is_failed_and_stays_found_by_words(store: Store) -> None:
    row = new()
    await store.memories.add([row], NOON)
    await store.embeddings.postpone(MODEL, [row.memory.key], "no luck", until=None)
    [found] = await store.memories.find(row.memory.id, None)
    assert found.embedding_status is EmbeddingStatus.FAILED
    assert await store.embeddings.claim(MODEL, 10, SOON, SOON) == []
    stats = await store.memories.stats(None, MODEL)
    assert (stats.embedding.pending, stats.embedding.failed) == (0, 1)


async def test_after_a_change_of_the_model_all_memories_are_queued_once(store: Store) -> None:
    rows = [new(vector(1)), new(vector(1))]
    await store.memories.add(rows, NOON)
    for _ in range(2):
        await store.embeddings.queue_missing(MODEL, NOON)
    assert await store.embeddings.claim(MODEL, 10, NOON, SOON) == []
    for _ in range(2):
        await store.embeddings.queue_missing("another", NOON)
    assert len(await store.embeddings.claim("another", 10, NOON, SOON)) == 2
