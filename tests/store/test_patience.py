"""Nobody waits without an end: not for a connection, not for the writer, not for a statement."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.errors import UnavailableError
from app.models import Scope
from app.store.postgresql.connections import Connections
from app.store.sqlite import SqliteStore
from app.store.sqlite.connections import READERS, SqliteConnections
from app.store.sqlite.work_connection import Work
from tests.conftest import MODEL, emptied
from tests.memories import NOON, new

PATIENCE = 1.0
ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"


@dataclass(frozen=True)
class Lender:
    """Connections to a store: what keeps one lent, what runs a statement on one, and how many there are."""

    hold: Callable[[], AbstractAsyncContextManager[object]]
    execute: Callable[[str], Awaitable[object]]
    count: int
    endless: str


def busy(begun: threading.Event, end: threading.Event) -> Work[None]:
    def work(connection: sqlite3.Connection) -> None:
        begun.set()
        assert end.wait(10)

    return work


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteConnections]:
    opened = SqliteConnections(tmp_path / "store.db", PATIENCE, PATIENCE)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(params=["postgresql", "sqlite"])
async def lender(
    request: pytest.FixtureRequest, sqlite: SqliteConnections, postgres_url: Callable[[int], str]
) -> AsyncIterator[Lender]:
    if request.param == "sqlite":

        @asynccontextmanager
        async def hold() -> AsyncIterator[None]:
            begun, end = threading.Event(), threading.Event()
            reading = asyncio.create_task(sqlite.read(busy(begun, end)))
            await asyncio.to_thread(begun.wait, 10)
            try:
                yield
            finally:
                end.set()
                await reading

        async def read(statement: str) -> object:
            return await sqlite.read(lambda connection: connection.execute(statement).fetchall())

        yield Lender(hold, read, READERS, ENDLESS)
        return
    pool = Connections({"dsn": await emptied(postgres_url(18))}, 2, 2, PATIENCE, PATIENCE)
    await pool.open()

    async def execute(statement: str) -> object:
        async with pool.acquire() as connection:
            return await connection.execute(statement)

    yield Lender(pool.acquire, execute, 2, "SELECT pg_sleep(60)")
    await pool.close()


async def test_who_waits_for_a_connection_is_told_to_come_back(lender: Lender) -> None:
    async with asyncio.timeout(30):
        async with AsyncExitStack() as lent:
            for _ in range(lender.count):
                await lent.enter_async_context(lender.hold())
            with pytest.raises(UnavailableError, match=r"(?s)within 1 s.*AFTERIMAGE_"):
                await lender.execute("SELECT 1")
        await lender.execute("SELECT 1")


async def test_a_statement_that_takes_too_long_is_ended(lender: Lender) -> None:
    async with asyncio.timeout(30):
        for _ in range(lender.count + 1):
            with pytest.raises(UnavailableError, match=r"ran longer than 1 s .AFTERIMAGE_STATEMENT_TIMEOUT_SECONDS"):
                await lender.execute(lender.endless)
        await lender.execute("SELECT 1")


def count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])


def insert(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO t VALUES (1)")


def make(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE t (i INTEGER)")


async def test_who_reads_no_longer_does_not_give_up_its_connection_before_the_statement_ends(
    sqlite: SqliteConnections,
) -> None:
    begun, end = threading.Event(), threading.Event()
    for _ in range(READERS + 1):
        begun.clear()
        end.clear()
        reading = asyncio.create_task(sqlite.read(busy(begun, end)))
        await asyncio.to_thread(begun.wait, 10)
        reading.cancel()
        await asyncio.wait([reading])
        idle = sqlite.load().idle
        end.set()
        assert idle == READERS - 1
        async with asyncio.timeout(10):
            while sqlite.load().idle < READERS:
                await asyncio.sleep(0.01)


async def test_a_write_whose_turn_does_not_come_is_never_stored(sqlite: SqliteConnections) -> None:
    await sqlite.write(make)
    begun, end = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        begun.set()
        assert end.wait(10)
        insert(connection)

    first = asyncio.create_task(sqlite.write(slow))
    await asyncio.to_thread(begun.wait, 10)
    with pytest.raises(UnavailableError, match=r"the writer did not become free within 1 s"):
        await sqlite.write(insert)
    assert not first.done()  # what has begun is waited for: it may be stored
    end.set()
    await first
    assert await sqlite.read(count) == 1
    await sqlite.write(insert)
    assert await sqlite.read(count) == 2


async def test_a_write_that_nobody_waits_for_is_not_stored_with_others(
    sqlite: SqliteConnections, tmp_path: Path
) -> None:
    await sqlite.write(make)
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        first, late = [asyncio.create_task(sqlite.write(insert)) for _ in range(2)]  # wait for the other process
        await asyncio.sleep(PATIENCE / 10)
        late.cancel()
        await asyncio.wait([late])
        other.execute("ROLLBACK")
    await first
    assert await sqlite.read(count) == 1


async def test_work_that_ends_an_iteration_is_an_error_and_not_a_wait_without_end(sqlite: SqliteConnections) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(RuntimeError, match="ended an iteration"):
            await sqlite.read(lambda _: next(iter(())))
    assert sqlite.load().idle == READERS


async def test_an_error_in_a_row_leaves_no_reader_in_the_past(tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    store = SqliteStore(path, MODEL)
    await store.open()
    try:
        await store.memories.add([new(new_code=f"value = {number}") for number in range(3)], NOON)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("UPDATE memories SET id = printf('%036d', seq)")
        errors = []  # kept, and with them what stands half read
        for _ in range(READERS):
            with pytest.raises(ValueError, match="UUID") as raised:
                await store.memories.page(Scope(), 10, None)
            errors.append(raised.value)
        await store.memories.add([new(new_code="value = 3")], NOON)
        for _ in range(READERS):
            assert (await store.memories.stats(None, MODEL)).total_entries == 4
    finally:
        await store.close()


async def test_a_write_that_takes_too_long_leaves_nothing(sqlite: SqliteConnections) -> None:
    await sqlite.write(make)

    def endless(connection: sqlite3.Connection) -> None:
        insert(connection)
        connection.execute(f"INSERT INTO t {ENDLESS}")

    with pytest.raises(UnavailableError, match=r"did not store: the statements ran longer than 1 s"):
        await sqlite.write(endless)
    assert await sqlite.read(count) == 0
    await sqlite.write(insert)
    assert await sqlite.read(count) == 1
