"""The contract of ModelStore, and what the other stores do while the model is being changed, on every store."""

import asyncio
from datetime import datetime

import pytest

from app.models import MAX_WHOLE_CHARACTERS, EmbeddingStatus, MemoryKey, NewMemory, Scope
from app.store.embedding_protocol import Backlog, EmbeddingFailure, ModelsInUse
from app.store.protocol import Store
from tests.conftest import MODEL
from tests.memories import NOON, minutes, new, vector

NEXT = "next"
"""Another model, with vectors of another length."""

SOON = NOON + minutes(1)
LATER = NOON + minutes(2)


async def begin_change(store: Store, *rows: NewMemory) -> None:
    """Memories with vectors of the active model, of which the next one lacks all."""
    await store.memories.add(rows, NOON)
    assert await store.models.aim(NEXT, SOON, LATER) == ModelsInUse(MODEL, NEXT)
    assert await store.embeddings.queue_missing(NEXT, SOON) == len(rows)


async def complete(store: Store) -> None:
    claims = await store.embeddings.claim(NEXT, 1000, LATER, LATER)
    await store.embeddings.save(NEXT, {claim.memory.key: vector(1, dimensions=5) for claim in claims})


async def found(store: Store, model: str, dimensions: int = 384) -> set[MemoryKey]:
    matches = await store.memories.search_vectors(Scope(), vector(1, dimensions=dimensions), model, 100)
    return {match.key for match in matches}


async def sweep(store: Store, limit: int = 2) -> int:
    """Sweeps to the end; answers in how many portions."""
    portions = 0
    last = await store.models.sweep(None, limit)
    while last is not None:
        portions += 1
        last = await store.models.sweep(last, limit)
    return portions


async def test_an_empty_store_begins_with_its_model(store: Store) -> None:
    used = await store.models.get()
    assert (used, used.changing, used.names) == (ModelsInUse(MODEL, MODEL), False, [MODEL])


async def test_without_vectors_another_model_is_active_at_once(store: Store) -> None:
    await store.memories.add([new()], NOON)
    assert await store.models.aim(NEXT, NOON, SOON) == await store.models.get() == ModelsInUse(NEXT, NEXT)


async def test_while_there_are_vectors_their_model_stays_active(store: Store) -> None:
    await begin_change(store, new(vector(1)))
    assert (await store.models.get()).names == [MODEL, NEXT]


async def test_during_a_change_a_new_memory_waits_for_both_models(store: Store) -> None:
    await begin_change(store, new(vector(1)))
    row = new()
    await store.memories.add([row], SOON)
    for model in (MODEL, NEXT):
        assert row.memory.key in {one.memory.key for one in await store.embeddings.claim(model, 10, SOON, LATER)}


async def test_a_given_vector_is_of_the_target_unless_it_says_otherwise(store: Store) -> None:
    await begin_change(store, new(vector(1)))
    mine, old = new(vector(1, dimensions=5)), new(vector(1))
    old = NewMemory(old.memory, old.words, old.vector, model=MODEL)
    await store.memories.add([mine, old], SOON)
    assert await found(store, NEXT, 5) == {mine.memory.key}
    assert old.memory.key in await found(store, MODEL)
    [waits] = await store.embeddings.claim(MODEL, 10, SOON, LATER)
    assert waits.memory == (await store.memories.find(mine.memory.id, None))[0]


async def test_a_vector_of_a_model_that_is_not_in_use_is_left_out_and_made_anew(store: Store) -> None:
    row = new(vector(1))
    await store.memories.add([NewMemory(row.memory, row.words, row.vector, model="former")], NOON)
    assert (await store.embeddings.vectors("former", [row.memory.key])) == {}
    assert len(await store.embeddings.claim(MODEL, 10, NOON, SOON)) == 1


async def test_a_memory_is_ready_once_it_has_a_vector_of_the_active_model(store: Store) -> None:
    old, row = new(vector(1)), new()
    await begin_change(store, old)
    await store.memories.add([row], SOON)
    for model, status in ((NEXT, EmbeddingStatus.PENDING), (MODEL, EmbeddingStatus.READY)):
        await store.embeddings.save(model, {row.memory.key: vector(1)})
        assert (await store.memories.get([row.memory.key]))[row.memory.key].embedding_status is status
        [listed, *_] = [one for one in await store.memories.page(Scope(), 10, None) if one.id == row.memory.id]
        assert listed.embedding_status is status
    assert (await store.memories.find(old.memory.id, None))[0].embedding_status is EmbeddingStatus.READY


async def test_each_model_is_searched_alone(store: Store) -> None:
    rows = [new(vector(1)) for _ in range(3)]
    await begin_change(store, *rows)
    await store.embeddings.save(NEXT, {rows[0].memory.key: vector(1, dimensions=5)})
    assert len(await found(store, MODEL)) == 3
    assert await found(store, NEXT, 5) == {rows[0].memory.key}


@pytest.mark.parametrize("before", [SOON, NOON])
async def test_the_switch_waits_for_all_that_was_there_when_the_change_began(store: Store, before: datetime) -> None:
    rows = [new(vector(1)) for _ in range(3)]
    await begin_change(store, *rows)
    await store.embeddings.save(NEXT, {row.memory.key: vector(1, dimensions=5) for row in rows[:2]})
    assert not await store.models.is_complete(NEXT, before)
    assert not await store.models.switch(NEXT, before, LATER)
    await complete(store)
    assert await store.models.is_complete(NEXT, before)
    assert await store.models.switch(NEXT, before, LATER)
    assert await store.models.get() == ModelsInUse(NEXT, NEXT)


async def test_what_was_given_up_holds_no_switch_up(store: Store) -> None:
    row = new(vector(1))
    await begin_change(store, row)
    await store.embeddings.postpone(NEXT, [row.memory.key], "no luck", until=None)
    assert await store.models.switch(NEXT, LATER, LATER)


async def test_pieces_hold_the_switch_up(store: Store) -> None:
    row = new(vector(1), new_code="x" * (MAX_WHOLE_CHARACTERS + 1))
    await begin_change(store, row)
    await complete(store)
    assert not await store.models.switch(NEXT, LATER, LATER)
    await store.embeddings.save_pieces(NEXT, row.memory.key, [])
    assert await store.models.switch(NEXT, LATER, LATER)


async def test_the_newest_memories_hold_no_switch_up(store: Store) -> None:
    await begin_change(store, new(vector(1)))
    await complete(store)
    await store.memories.add([new(created_at=SOON + minutes(0.5))], SOON)
    assert not await store.models.switch(NEXT, LATER, LATER)
    assert await store.models.switch(NEXT, SOON + minutes(0.25), LATER)


async def test_of_many_processes_one_switches(store: Store) -> None:
    await begin_change(store, new(vector(1)))
    await complete(store)
    assert sorted(await asyncio.gather(*(store.models.switch(NEXT, LATER, LATER) for _ in range(4)))) == [False] * 3 + [
        True
    ]


async def test_there_is_no_switch_to_a_model_that_is_no_longer_the_target(store: Store) -> None:
    await begin_change(store, new(vector(1)))
    await complete(store)
    assert await store.models.aim("third", LATER, LATER) == ModelsInUse(MODEL, "third")
    assert not await store.models.switch(NEXT, LATER, LATER)
    assert await store.models.aim(MODEL, LATER, LATER) == ModelsInUse(MODEL, MODEL)
    assert not await store.models.switch(MODEL, LATER, LATER)


async def test_the_sweep_removes_what_is_of_other_models_in_portions(store: Store) -> None:
    rows = [new(vector(1), project=project) for project in "aab"] + [new(project="b"), new(project="c")]
    await store.memories.add(rows, NOON)
    await store.models.aim(NEXT, SOON, SOON)
    assert await store.embeddings.queue_missing(NEXT, SOON) == 5
    await complete(store)
    assert await store.models.switch(NEXT, LATER, LATER)
    assert await sweep(store) == 3
    assert await store.embeddings.vectors(MODEL, [row.memory.key for row in rows]) == {}
    assert await store.embeddings.backlog(MODEL) == Backlog(0, 0, 0)
    assert await found(store, NEXT, 5) == {row.memory.key for row in rows}


async def test_the_sweep_leaves_both_models_of_a_change_alone(store: Store) -> None:
    rows = [new(vector(1)), new(vector(1)), new()]
    await begin_change(store, *rows[:2])
    await store.memories.add(rows[2:], SOON)
    await store.embeddings.save(NEXT, {rows[0].memory.key: vector(1, dimensions=5)})
    await sweep(store)
    assert len(await found(store, MODEL)) == 2
    assert len(await found(store, NEXT, 5)) == 1
    assert await store.embeddings.backlog(MODEL) == Backlog(1, 0, 0)
    assert await store.embeddings.backlog(NEXT) == Backlog(2, 0, 0)


async def test_a_model_that_was_swept_can_be_made_and_searched_again(store: Store) -> None:
    row = new(vector(1))
    await begin_change(store, row)
    await store.embeddings.ensure_index(MODEL)
    await complete(store)
    assert await store.models.switch(NEXT, LATER, LATER)
    await store.models.drop_unused_indexes()
    await sweep(store)
    await store.models.aim(MODEL, LATER, LATER)
    assert await store.embeddings.queue_missing(MODEL, LATER) == 1
    assert await found(store, MODEL) == set()
    await store.embeddings.save(MODEL, {row.memory.key: vector(1)})
    assert await found(store, MODEL) == {row.memory.key}


async def test_one_process_sweeps_from_its_time_on(store: Store) -> None:
    await begin_change(store, new(vector(1)))  # to be swept at LATER
    assert not await store.models.claim_sweep(SOON, LATER)
    until = LATER + minutes(5)
    claims = await asyncio.gather(*(store.models.claim_sweep(LATER, until) for _ in range(4)))
    assert sorted(claims) == [False, False, False, True]
    assert await store.models.renew_sweep(until, until + minutes(1))
    assert not await store.models.renew_sweep(until, None)
    assert await store.models.renew_sweep(until + minutes(1), None)
    assert not await store.models.claim_sweep(until + minutes(9), until + minutes(10))


async def test_a_sweep_that_a_crash_ended_is_taken_over(store: Store) -> None:
    await begin_change(store, new(vector(1)))
    assert await store.models.claim_sweep(LATER, LATER + minutes(1))
    assert await store.models.claim_sweep(LATER + minutes(1), LATER + minutes(2))


async def test_a_change_of_the_models_ends_a_sweep(store: Store) -> None:
    await begin_change(store, new(vector(1)))
    assert await store.models.claim_sweep(LATER, LATER + minutes(1))
    await store.models.aim(MODEL, LATER, LATER + minutes(2))
    assert not await store.models.renew_sweep(LATER + minutes(1), LATER + minutes(3))


async def test_the_backlog_counts_what_lacks_a_vector_what_lacks_pieces_and_what_was_given_up(store: Store) -> None:
    rows = [new(project=project) for project in "aab"]
    long = new(vector(1), project="a", new_code="x" * (MAX_WHOLE_CHARACTERS + 1))
    await store.memories.add([*rows, long], NOON)
    await store.embeddings.postpone(MODEL, [rows[0].memory.key], "no luck", until=None)
    assert await store.embeddings.backlog(MODEL) == Backlog(pending=2, failed=1, pieces_pending=1)
    assert await store.embeddings.backlog(MODEL, ["b"]) == Backlog(pending=1, failed=0, pieces_pending=0)


async def test_what_is_missing_is_queued_in_portions(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"app.store.{store.backend}.embeddings.QUEUED_AT_ONCE", 2)
    await store.memories.add([new(vector(1)) for _ in range(5)], NOON)
    assert [await store.embeddings.queue_missing(NEXT, NOON) for _ in range(4)] == [2, 2, 1, 0]
    assert await store.embeddings.backlog(NEXT) == Backlog(5, 0, 0)


async def test_failures_keep_their_reason(store: Store) -> None:
    rows = [new() for _ in range(4)]
    await store.memories.add(rows, NOON)
    for row, reason, until in zip(rows, ("a", "a", "b", "a"), (None, None, None, SOON), strict=True):
        await store.embeddings.postpone(MODEL, [row.memory.key], reason, until)
    failures = await store.embeddings.failures(MODEL, 10)
    assert [(one.given_up, one.reason, one.memories) for one in failures] == [
        (True, "a", 2),
        (True, "b", 1),
        (False, "a", 1),
    ]
    assert failures[1] == EmbeddingFailure(True, True, "b", 1, f"default/{rows[2].memory.id}")
    assert len(await store.embeddings.failures(MODEL, 1)) == 1


async def test_what_was_given_up_can_be_queued_anew(store: Store) -> None:
    row = new()
    await store.memories.add([row], NOON)
    await store.embeddings.postpone(MODEL, [row.memory.key], "no luck", until=None)
    assert await store.embeddings.queue_failed(NEXT, SOON) == 0
    assert await store.embeddings.queue_failed(MODEL, SOON) == 1
    [claimed] = await store.embeddings.claim(MODEL, 10, SOON, LATER)
    assert claimed.attempts == 0
    assert await store.embeddings.failures(MODEL, 10) == []
