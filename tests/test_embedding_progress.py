"""How fast vectors are made."""

from dataclasses import replace

import pytest

from app.embedding_progress import WINDOW_SECONDS, BacklogRate, EmbeddingProgress
from app.store.embedding_protocol import Backlog
from app.store.protocol import Store
from tests.conftest import MODEL
from tests.memories import NOON, minutes, new, vector


def rate_of(*seen: tuple[float, int]) -> float | None:
    rate = BacklogRate()
    for at, pending in seen:
        rate.note(at, MODEL, Backlog(pending, 0, 0))
    return rate.rate


def test_it_is_by_how_much_the_backlog_falls() -> None:
    assert rate_of((0, 100), (2, 90), (10, 50)) == 5


def test_it_is_unknown_where_nothing_is_left_or_nothing_moves() -> None:
    assert rate_of() is None
    assert rate_of((0, 100)) is None
    assert rate_of((0, 100), (10, 100)) is None
    assert rate_of((0, 100), (10, 0)) is None


def test_it_begins_anew_when_the_backlog_grows() -> None:
    assert rate_of((0, 100), (10, 1000)) is None
    assert rate_of((0, 100), (10, 1000), (12, 980)) == 10


def test_what_is_older_than_a_minute_does_not_count() -> None:
    assert rate_of((0, 1000), (10, 900), (10 + WINDOW_SECONDS, 300)) == 10
    assert rate_of((0, 1000), (10, 900), (11 + 2 * WINDOW_SECONDS, 900)) is None


def test_pieces_count_once_no_whole_memory_is_left() -> None:
    rate = BacklogRate()
    for at, backlog in enumerate([Backlog(2, 0, 50), Backlog(0, 0, 52), Backlog(0, 0, 48)]):
        rate.note(at, MODEL, backlog)
    assert rate.rate == 4


def rate_at(*seen: Backlog) -> BacklogRate:
    rate = BacklogRate()
    for at, backlog in enumerate(seen):
        rate.note(at, MODEL, backlog)
    return rate


def test_pieces_count_while_some_memories_without_a_vector_stay() -> None:
    assert rate_at(Backlog(0, 0, 1426), Backlog(64, 0, 1389), Backlog(64, 0, 1142)).rate == 142


def test_the_time_left_is_that_of_memories_and_then_that_of_pieces() -> None:
    assert rate_at(Backlog(100, 0, 50), Backlog(50, 0, 48)).seconds_left(50, 48) == 1
    assert rate_at(Backlog(100, 0, 1000), Backlog(50, 0, 1159)).seconds_left(50, 1159) == 1
    assert rate_at(Backlog(0, 0, 50), Backlog(0, 0, 48)).seconds_left(0, 48) == 24
    assert rate_at(Backlog(100, 0, 0), Backlog(50, 0, 0)).seconds_left(50, 0) == 1


def test_the_time_left_is_unknown_while_what_is_pending_does_not_fall() -> None:
    assert rate_at(Backlog(64, 0, 50), Backlog(64, 0, 48)).seconds_left(64, 48) is None


def test_another_model_begins_anew() -> None:
    rate = BacklogRate()
    rate.note(0, MODEL, Backlog(100, 0, 0))
    rate.note(1, "next", Backlog(90, 0, 0))
    assert rate.rate is None


@pytest.mark.parametrize("searched_at_once", [False, True])
async def test_what_lacks_a_vector_of_a_new_model_is_pending_before_it_is_queued(
    store: Store, searched_at_once: bool
) -> None:
    rows = [new(None if searched_at_once else vector(1), project=name) for name in "aab"]
    await store.memories.add(rows, NOON)
    used = await store.models.aim("next", NOON, NOON + minutes(1))
    assert used.changing is not searched_at_once
    progress = EmbeddingProgress(store.embeddings, store.models)

    async def pending(projects: list[str] | None) -> int:
        found = (await store.memories.stats(projects, used.active)).embedding
        told = await progress.complete(found, used, projects)
        return told.change.pending if told.change else told.pending

    assert [await pending(None), await pending(["a"]), await pending([])] == [3, 2, 0]
    await store.embeddings.queue_missing("next", NOON)
    await store.embeddings.postpone("next", [rows[0].memory.key], "no luck", until=None)
    assert [await pending(None), await pending(["a"]), await pending([])] == [2, 1, 0]
    await store.embeddings.save("next", {row.memory.key: vector(1) for row in rows[1:]})
    assert await pending(None) == 0


async def test_the_statistics_tell_the_rate_whichever_process_makes_the_vectors(store: Store) -> None:
    rows = [new(vector(1)) for _ in range(10)]
    await store.memories.add(rows, NOON)
    await store.models.aim("next", NOON, NOON + minutes(1))
    progress = EmbeddingProgress(store.embeddings, store.models)
    await progress.look()
    assert progress.backlog.pending == 10
    await store.embeddings.queue_missing("next", NOON)
    await progress.look()
    await store.embeddings.save("next", {row.memory.key: vector(1) for row in rows[:6]})
    await progress.look()
    used = await store.models.get()
    found = (await store.memories.stats(None, used.active)).embedding
    told = await progress.complete(found, used, None)
    assert told.rate is not None
    assert told.seconds_left is not None
    assert told.change is not None
    assert (told.model, told.pending, told.change.model, told.change.pending) == (MODEL, 0, "next", 4)
    # Who sees some projects only does not learn how busy the others are.
    some = await progress.complete(found, used, ["elsewhere"])
    assert (some.rate, some.seconds_left, some.change) == (None, None, replace(told.change, pending=0))
    await store.embeddings.save("next", {row.memory.key: vector(1) for row in rows[6:]})
    assert (await progress.complete(found, used, None)).rate is None
