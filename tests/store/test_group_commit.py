"""Memories that are stored at the same time: each is answered for itself, whatever they share."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import pytest

from app.errors import InvalidInputError, UnavailableError
from app.models import MemoryKey, NewMemory
from app.store.group_commit import MAX_CHARACTERS, MAX_ROWS, GroupCommit
from app.store.protocol import Store
from tests.memories import NOON, new

Add = Callable[[Sequence[NewMemory], Sequence[datetime]], Awaitable[set[MemoryKey]]]

AT_MOST = 2


class Table:
    """Stores what it is given, notes who came together, and refuses some."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.groups: list[list[str]] = []
        self.keys: set[MemoryKey] = set()

    async def add(self, rows: Sequence[NewMemory], embed_after: Sequence[datetime]) -> set[MemoryKey]:
        assert embed_after == len(rows) * [NOON]
        self.groups.append([row.memory.new_code for row in rows])
        await self.gate.wait()
        if any(row.memory.new_code == "refused" for row in rows):
            raise InvalidInputError("not this one")
        if any(row.memory.new_code == "gone" for row in rows):
            raise UnavailableError("the server is gone")
        stored = {row.memory.key for row in rows} - self.keys
        self.keys |= stored
        return stored


@pytest.fixture
def table() -> Table:
    return Table()


async def begin(group_commit: GroupCommit, *rows: NewMemory) -> list[asyncio.Task[set[MemoryKey]]]:
    tasks = []
    for row in rows:
        tasks.append(asyncio.create_task(group_commit.add(row, NOON)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return tasks


async def occupied(table: Table) -> tuple[GroupCommit, list[asyncio.Task[set[MemoryKey]]]]:
    """A group is being stored, until the gate opens."""
    made = GroupCommit(table.add, AT_MOST, patience_seconds=60)
    return made, await begin(made, new(new_code="first"))


async def test_one_alone_is_stored_at_once(table: Table) -> None:
    table.gate.set()
    row = new()
    assert await GroupCommit(table.add, AT_MOST).add(row, NOON) == {row.memory.key}


async def test_those_that_come_meanwhile_share_statements(table: Table) -> None:
    made, first = await occupied(table)
    rows = [new(new_code=f"later {number}") for number in range(5)]
    later = await begin(made, *rows)
    table.gate.set()
    assert await asyncio.gather(*later) == [{row.memory.key} for row in rows]
    await asyncio.gather(*first)
    assert table.groups[1:] == [[f"later {number}" for number in numbers] for numbers in ((0, 1, 2), (3, 4))]


async def test_groups_of_writers_without_a_pause_become_of_a_size() -> None:
    table = Table()
    made = GroupCommit(table.add, AT_MOST, patience_seconds=60)

    async def write(name: str) -> None:
        for _ in range(4):
            await made.add(new(new_code=name), NOON)

    [first] = await begin(made, new(new_code="first"))  # the others come while it is stored
    writers = [asyncio.create_task(write(f"{number}")) for number in range(15)]
    await asyncio.sleep(0)
    table.gate.set()
    await asyncio.gather(first, *writers)
    assert [len(group) for group in table.groups[:6]] == [1, 8, 7, 8, 7, 8]


async def test_a_group_that_takes_long_keeps_no_other_waiting() -> None:
    table, opened = Table(), asyncio.Event()
    made = GroupCommit(table.add, AT_MOST, patience_seconds=0.01)
    [silent] = await begin(made, new(new_code="silent"))
    table.gate, gate = opened, table.gate
    opened.set()
    assert await made.add(new(new_code="other"), NOON)
    assert not silent.done()
    gate.set()
    assert await silent


async def test_there_are_no_more_groups_at_once_than_allowed(table: Table) -> None:
    made = GroupCommit(table.add, AT_MOST, patience_seconds=0.001)
    tasks = []
    for number in range(5):
        tasks += await begin(made, new(new_code=f"{number}"))
        await asyncio.sleep(0.01)
    assert len(table.groups) == AT_MOST
    table.gate.set()
    await asyncio.gather(*tasks)
    assert sum(map(len, table.groups)) == 5


async def test_a_group_is_bounded(table: Table) -> None:
    made, first = await occupied(table)
    large = "x" * (MAX_CHARACTERS // 2)
    later = await begin(made, *(new(new_code=large) for _ in range(3)), *(new() for _ in range(MAX_ROWS)))
    table.gate.set()
    await asyncio.gather(*first, *later)
    sizes = [len(group) for group in table.groups[1:]]
    assert sum(sizes) == 3 + MAX_ROWS
    assert max(sizes) <= MAX_ROWS
    assert all(sum(map(len, group)) <= MAX_CHARACTERS for group in table.groups)


async def test_one_that_is_refused_takes_no_other_with_it(table: Table) -> None:
    made, first = await occupied(table)
    later = await begin(made, new(new_code="a"), new(new_code="refused"), new(new_code="b"))
    table.gate.set()
    one, refused, other = await asyncio.gather(*later, return_exceptions=True)
    await asyncio.gather(*first)
    assert isinstance(refused, InvalidInputError)
    assert isinstance(one, set)
    assert isinstance(other, set)
    assert len(one) == len(other) == 1


async def test_all_learn_that_the_server_is_gone(table: Table) -> None:
    made, first = await occupied(table)
    later = await begin(made, new(new_code="a"), new(new_code="gone"))
    table.gate.set()
    answers = await asyncio.gather(*later, return_exceptions=True)
    await asyncio.gather(*first)
    assert [type(answer) for answer in answers] == [UnavailableError, UnavailableError]
    assert await made.add(new(), NOON)


async def test_one_whose_caller_has_gone_before_its_turn_is_not_stored(table: Table) -> None:
    made, first = await occupied(table)
    gone, stays = new(new_code="nobody waits"), new(new_code="stays")
    tasks = await begin(made, gone, stays)
    tasks[0].cancel()
    await asyncio.wait([tasks[0]])
    table.gate.set()
    await asyncio.gather(*first, tasks[1])
    assert gone.memory.key not in table.keys
    assert stays.memory.key in table.keys


async def test_the_same_memory_sent_often_at_once_is_created_once(store: Store) -> None:
    row = new()
    answers = await asyncio.gather(*(store.memories.add([row], NOON) for _ in range(20)))
    assert sorted(map(len, answers)) == [0] * 19 + [1]
    assert list(await store.memories.get([row.memory.key])) == [row.memory.key]


async def test_many_at_once_are_all_stored(store: Store) -> None:
    rows = [new(new_code=f"x = {number}") for number in range(300)]
    answers = await asyncio.gather(*(store.memories.add([row], NOON) for row in rows))
    assert answers == [{row.memory.key} for row in rows]
    assert len(await store.memories.get([row.memory.key for row in rows])) == 300


async def test_a_memory_that_the_store_refuses_takes_no_other_with_it(store: Store) -> None:
    if store.backend == "sqlite":
        pytest.skip("SQLite takes what PostgreSQL refuses")
    rows = [new(new_code=f"x = {number}") for number in range(20)] + [new(new_code="half \0 of it")]
    *answers, refused = await asyncio.gather(*(store.memories.add([row], NOON) for row in rows), return_exceptions=True)
    assert isinstance(refused, InvalidInputError)
    assert answers == [{row.memory.key} for row in rows[:-1]]


async def test_a_write_that_follows_at_once_does_not_wait_for_a_group_that_has_ended(table: Table) -> None:
    table.gate.set()
    made = GroupCommit(table.add, at_most=1)
    async with asyncio.timeout(5):
        for _ in range(3):
            assert await made.add(new(), NOON)
