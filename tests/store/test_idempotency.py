"""The contract of IdempotencyStore, on every store."""

import asyncio
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from app.errors import ConflictError, OutstandingError
from app.models import Memory, MemoryKey, NewMemory
from app.store.idempotency import Answer, RepeatableRequest
from app.store.postgresql import PostgresStore
from app.store.postgresql.connections import Connections
from app.store.protocol import Store
from app.sweep import KEPT_TIME, Sweep
from tests.conftest import MODEL
from tests.memories import NOON, minutes, new

ANSWER = Answer(201, b'{"caf\xc3\xa9": "\\u0000"}', uuid4())


def request(key: str = "key", owner: str = "owner", fingerprint: bytes = b"1" * 32) -> RepeatableRequest:
    return RepeatableRequest(owner, key, fingerprint)


async def add(
    store: Store,
    *rows: NewMemory,
    key: str = "key",
    owner: str = "owner",
    answer: Answer = ANSWER,
    now: datetime = NOON,
) -> Answer:
    return await store.idempotency.add(request(key, owner), rows, NOON, now, lambda *_: (answer, True))


async def total(store: Store) -> int:
    return (await store.memories.stats(None, MODEL)).total_entries


@pytest.mark.parametrize("answer", [ANSWER, Answer(200, b"")])
async def test_an_answer_is_kept_with_what_was_stored(store: Store, answer: Answer) -> None:
    row = new()
    assert await store.idempotency.find("owner", "key") is None
    assert await add(store, row, answer=answer) == answer
    kept = Answer(answer.status, answer.body, answer.memory_id, replayed=True)
    assert await store.idempotency.find("owner", "key") == (kept, b"1" * 32)
    assert await store.memories.get([row.memory.key]) == {row.memory.key: row.memory}


async def test_the_answer_is_made_of_what_was_stored_and_what_was_there(store: Store) -> None:
    old, fresh = new(), new()
    await store.memories.add([old], NOON)

    def outcome(stored: AbstractSet[MemoryKey], there: Mapping[MemoryKey, Memory]) -> tuple[Answer, bool]:
        assert stored == {fresh.memory.key}
        assert there == {old.memory.key: old.memory}
        return ANSWER, True

    assert await store.idempotency.add(request(), [old, fresh], NOON, NOON, outcome) == ANSWER


async def test_a_key_that_is_taken_stores_nothing_more(store: Store) -> None:
    await add(store, new())
    with pytest.raises(OutstandingError, match="'key'"):
        await add(store, new())
    assert await total(store) == 1


async def test_each_owner_has_keys_of_its_own(store: Store) -> None:
    await add(store, new(), owner="a")
    await add(store, new(), owner="b")
    await add(store, new(), owner="a", key="KEY")
    assert await total(store) == 3
    assert await store.idempotency.find("c", "key") is None


async def test_what_fails_leaves_nothing_behind_and_the_key_free(store: Store) -> None:
    def outcome(*_: object) -> tuple[Answer, bool]:
        raise ConflictError("no")

    with pytest.raises(ConflictError):
        await store.idempotency.add(request(), [new()], NOON, NOON, outcome)
    assert (await total(store), await store.idempotency.find("owner", "key")) == (0, None)
    assert await add(store, new()) == ANSWER


async def test_an_answer_need_not_be_kept(store: Store) -> None:
    assert await store.idempotency.add(request(), [], NOON, NOON, lambda *_: (ANSWER, False)) == ANSWER
    assert await store.idempotency.find("owner", "key") is None


async def test_of_many_at_once_one_stores(store: Store) -> None:
    found = await asyncio.gather(*(add(store, new()) for _ in range(20)), return_exceptions=True)
    assert found.count(ANSWER) == 1
    assert sum(isinstance(one, OutstandingError) for one in found) == 19
    assert await total(store) == 1


async def test_old_answers_are_swept_in_portions_the_oldest_first(store: Store) -> None:
    for age in (3, 1, 2, 0):
        await add(store, key=f"{age}", now=NOON - minutes(age))
    assert await store.idempotency.sweep(NOON, 2) == 2
    left = [age for age in range(4) if await store.idempotency.find("owner", f"{age}")]
    assert left == [0, 1]
    assert await store.idempotency.sweep(NOON, 2) == 1
    assert await store.idempotency.sweep(NOON, 2) == 0
    assert await store.idempotency.find("owner", "0")


async def test_any_number_of_processes_may_sweep_at_once(store: Store) -> None:
    for number in range(20):
        await add(store, key=f"{number}", now=NOON - minutes(number))
    swept = await asyncio.gather(*(store.idempotency.sweep(NOON - minutes(1), 6) for _ in range(4)))
    swept.append(await store.idempotency.sweep(NOON - minutes(1), 20))
    assert sum(swept) == 18


async def test_the_sweep_takes_what_is_a_day_old_and_leaves_the_rest(store: Store) -> None:
    now = datetime.now(NOON.tzinfo)
    for number in range(5):
        await add(store, key=f"old {number}", now=now - KEPT_TIME - timedelta(seconds=number))
    await add(store, key="young", now=now - KEPT_TIME + minutes(1))
    sweep = Sweep(store.idempotency, portion=2)
    sweep.start()
    async with asyncio.timeout(10):
        while any([await store.idempotency.find("owner", f"old {number}") for number in range(5)]):
            await asyncio.sleep(0.01)
    await sweep.stop()
    assert await store.idempotency.find("owner", "young")


async def test_a_process_that_stands_still_in_the_middle_frees_the_key_in_time(database: str) -> None:
    hanging = PostgresStore(Connections({"dsn": database}, 1, 1, 20, statement_timeout_seconds=3), MODEL)
    other = PostgresStore(Connections({"dsn": database}, 1, 1, 20, statement_timeout_seconds=20), MODEL)
    await hanging.open()
    await other.open()
    async with hanging._connections.acquire() as connection:
        await connection.execute("BEGIN")
        await connection.execute(
            "INSERT INTO idempotency_keys VALUES ('owner', 'key', $1, 201, NULL, '', now())", b"2" * 32
        )
        async with asyncio.timeout(10):
            assert await add(other, new()) == ANSWER
    await hanging.close()
    await other.close()
