"""Lending of connections: how long one is waited for, who comes next, what befalls one that is lent."""

import asyncio

import asyncpg
import pytest

from app.errors import UnavailableError
from app.store.postgresql import PostgresStore, pool_connection
from app.store.postgresql.connections import Connections
from app.store.postgresql.pool_connection import PLAN_EACH_TIME, PLAN_ONCE
from tests.conftest import MODEL, connections
from tests.memories import NOON, new


async def test_a_busy_pool_is_unavailable_and_not_an_endless_wait(database: str) -> None:
    pool = Connections({"dsn": database}, 1, 1, acquire_timeout_seconds=1, statement_timeout_seconds=20)
    await pool.open()
    async with pool.acquire():
        with pytest.raises(UnavailableError, match="AFTERIMAGE_MAX_POOL_SIZE"):
            async with pool.acquire():
                pass
    await pool.close()


async def test_who_gives_a_connection_back_is_not_ahead_of_those_who_wait(database: str) -> None:
    pool = Connections({"dsn": database}, 1, 1, acquire_timeout_seconds=5, statement_timeout_seconds=20)
    await pool.open()
    order = []

    async def take(name: str) -> None:
        async with pool.acquire() as connection:
            order.append(name)
            await connection.execute("SELECT 1")

    for steps in range(12):
        async with pool.acquire():
            waiting = asyncio.create_task(take("waits"))
            while not pool.load().waiting:
                await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        await take("comes again")
        await waiting
    assert order == 12 * ["waits", "comes again"]
    await pool.close()


async def test_a_slow_statement_is_unavailable(database: str) -> None:
    pool = Connections({"dsn": database}, 1, 1, acquire_timeout_seconds=5, statement_timeout_seconds=1)
    await pool.open()
    with pytest.raises(UnavailableError, match="AFTERIMAGE_STATEMENT_TIMEOUT_SECONDS"):
        async with pool.acquire() as connection:
            await connection.execute("SELECT pg_sleep(60)")
    await pool.close()


async def test_a_lost_connection_is_unavailable_and_the_next_request_works(database: str) -> None:
    pool = connections(database)
    await pool.open()
    with pytest.raises(UnavailableError):
        async with pool.acquire() as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await pool.close()


async def test_writers_never_use_more_connections_than_allowed(database: str) -> None:
    store = PostgresStore(connections(database, max_size=3), MODEL)
    await store.open()
    watcher = await asyncpg.connect(database)
    count = """
        SELECT count(*)
        FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
    """
    writers = asyncio.gather(*(store.memories.add([new()], NOON) for _ in range(200)))
    most = 0
    while not writers.done():
        most = max(most, await watcher.fetchval(count))
    assert sum(len(stored) for stored in await writers) == 200
    assert 0 < most <= 3
    await watcher.close()
    await store.close()


async def test_plans_are_kept_for_a_while_where_that_is_asked_for(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Connections({"dsn": database}, 1, 1, acquire_timeout_seconds=5, statement_timeout_seconds=20)
    await pool.open()
    sent: list[str] = []

    async def lend(keep_plans: bool | None) -> str:
        async with pool.acquire(keep_plans=keep_plans) as connection:
            connection._con.add_query_logger(lambda record: sent.append(record.query))  # heard from the next loan on
            mode: str = await connection.fetchval("SHOW plan_cache_mode")
        return mode

    modes = {False: PLAN_EACH_TIME, True: PLAN_ONCE}
    assert [await lend(kept) for kept in (False, True)] == [PLAN_EACH_TIME, PLAN_ONCE]
    sent.clear()
    asked = [True, False, True]
    assert [await lend(kept) for kept in asked] == [modes[kept] for kept in asked]
    assert not any("DISCARD" in query for query in sent)
    sent.clear()
    assert await lend(None) == PLAN_ONCE
    assert not any("SET" in query for query in sent)
    monkeypatch.setattr(pool_connection, "PLAN_SECONDS", 0.0)
    await lend(keep_plans=True)
    assert "DISCARD PLANS" in sent
    await pool.close()
