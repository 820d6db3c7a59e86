"""Nobody waits without an end: not for a connection, not for the writer, not for a statement."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from app.errors import UnavailableError
from app.store.postgresql.connections import Connections
from app.store.sqlite.connections import READERS, SqliteConnections
from tests.conftest import emptied

PATIENCE = 0.2
ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"


@dataclass(frozen=True)
class Lender:
    """Connections to a store: how one is lent, how many there are, and what runs a statement without an end."""

    lend: Callable[[], AbstractAsyncContextManager[Any]]
    count: int
    endless: str


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
        yield Lender(sqlite.read, READERS, ENDLESS)
        return
    pool = Connections({"dsn": await emptied(postgres_url(18))}, 2, 2, PATIENCE, PATIENCE)
    await pool.open()
    yield Lender(pool.acquire, 2, "SELECT pg_sleep(60)")
    await pool.close()


async def test_who_waits_for_a_connection_is_told_to_come_back(lender: Lender) -> None:
    async with asyncio.timeout(10):
        async with AsyncExitStack() as lent:
            for _ in range(lender.count):
                await lent.enter_async_context(lender.lend())
            with pytest.raises(UnavailableError, match=r"(?s)within 0\.2 s.*AFTERIMAGE_"):
                async with lender.lend():
                    pass
        async with lender.lend() as connection:
            await connection.execute("SELECT 1")


async def test_a_statement_that_takes_too_long_is_ended(lender: Lender) -> None:
    async with asyncio.timeout(10):
        for _ in range(lender.count + 1):
            with pytest.raises(UnavailableError, match=r"ran longer than 0\.2 s .AFTERIMAGE_STATEMENT_TIMEOUT_SECONDS"):
                async with lender.lend() as connection:
                    await connection.execute(lender.endless)
        async with lender.lend() as connection:
            await connection.execute("SELECT 1")


async def count(sqlite: SqliteConnections) -> int:
    async with sqlite.read() as connection, connection.execute("SELECT count(*) FROM t") as cursor:
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def insert(connection: aiosqlite.Connection) -> None:
    await connection.execute("INSERT INTO t VALUES (1)")


async def make(connection: aiosqlite.Connection) -> None:
    await connection.execute("CREATE TABLE t (i INTEGER)")


async def test_a_write_whose_turn_does_not_come_is_never_stored(sqlite: SqliteConnections) -> None:
    await sqlite.write(make)
    begun, end = asyncio.Event(), asyncio.Event()

    async def slow(connection: aiosqlite.Connection) -> None:
        begun.set()
        await end.wait()
        await insert(connection)

    first = asyncio.create_task(sqlite.write(slow))
    await begun.wait()
    with pytest.raises(UnavailableError, match=r"the writer did not become free within 0\.2 s"):
        await sqlite.write(insert)
    assert not first.done()  # what has begun is waited for: it may be stored
    end.set()
    await first
    assert await count(sqlite) == 1
    await sqlite.write(insert)
    assert await count(sqlite) == 2


async def test_a_write_that_takes_too_long_leaves_nothing(sqlite: SqliteConnections) -> None:
    await sqlite.write(make)

    async def endless(connection: aiosqlite.Connection) -> None:
        await insert(connection)
        await connection.execute(f"INSERT INTO t {ENDLESS}")

    with pytest.raises(UnavailableError, match=r"did not store: the statements ran longer than 0\.2 s"):
        await sqlite.write(endless)
    assert await count(sqlite) == 0
    await sqlite.write(insert)
    assert await count(sqlite) == 1
