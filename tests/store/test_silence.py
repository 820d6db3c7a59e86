"""A server that falls silent while its connections stay open, as behind a network that drops all packets."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from app.errors import UnavailableError
from app.store.postgresql.connections import GRACE_SECONDS, Connections
from tests.faulty_proxy import FaultyProxy
from tests.servers import socket_folder

STATEMENT_SECONDS = 1
GIVEN_UP_SECONDS = STATEMENT_SECONDS + GRACE_SECONDS


@asynccontextmanager
async def proxied(database: str) -> AsyncIterator[tuple[FaultyProxy, Connections]]:
    """A pool with three open connections through a proxy."""
    name = database.partition("?")[0].rpartition("/")[2]
    async with FaultyProxy(f"{socket_folder(database)}/.s.PGSQL.5432", random.Random(1)) as proxy:
        url = f"postgresql://afterimage@127.0.0.1:{proxy.port}/{name}"
        pool = Connections({"dsn": url}, 3, 3, acquire_timeout_seconds=5, statement_timeout_seconds=STATEMENT_SECONDS)
        await pool.open()
        yield proxy, pool
        await pool.close()


async def test_the_first_statement_that_is_not_answered_has_all_idle_connections_replaced(database: str) -> None:
    async with proxied(database) as (proxy, pool):
        proxy.silence()
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=r"PostgreSQL was silent for 2 s"):
            async with pool.acquire() as connection:
                await connection.execute("SELECT 1")
        assert time.monotonic() - began > STATEMENT_SECONDS
        for _ in range(3):
            async with pool.acquire() as connection:
                assert await connection.fetchval("SELECT 1") == 1


async def test_a_transaction_is_given_up_once_and_not_again_for_its_rollback(database: str) -> None:
    async with proxied(database) as (proxy, pool):

        async def work() -> None:
            async with pool.transaction() as connection:
                proxy.silence()
                await connection.execute("SELECT 1")

        began = time.monotonic()
        with pytest.raises(UnavailableError, match="silent"):
            await work()
        assert time.monotonic() - began < 2 * GIVEN_UP_SECONDS


async def test_a_transaction_whose_settings_are_refused_is_ended(database: str) -> None:
    async with proxied(database) as (_, pool):
        for _ in range(6):  # more than there are connections
            async with pool.acquire() as connection:
                assert not connection.is_in_transaction()
                with pytest.raises(asyncpg.UndefinedObjectError):
                    await connection.execute("BEGIN; SET LOCAL no_such_setting = 1")


async def test_a_transaction_that_only_read_ends_behind_its_reader(database: str) -> None:
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    pool = Connections({"dsn": database}, 1, 1, acquire_timeout_seconds=5, statement_timeout_seconds=20)
    await pool.open()
    async with pool.acquire() as connection:
        await connection.execute("BEGIN READ ONLY; SET LOCAL enable_seqscan = off")
        pid = connection.get_server_pid()
    async with pool.acquire() as connection:
        assert connection.get_server_pid() == pid
        assert not connection.is_in_transaction()
        assert await connection.fetchval("SHOW enable_seqscan") == "on"
    await pool.close()
    assert complaints == []  # asyncpg would end it too, and complain


async def test_who_has_read_does_not_wait_for_a_server_that_falls_silent(database: str) -> None:
    async with proxied(database) as (proxy, pool):
        async with pool.acquire() as connection:
            await connection.execute("BEGIN READ ONLY")
            proxy.silence()
            began = time.monotonic()
        assert time.monotonic() - began < STATEMENT_SECONDS


async def test_a_statement_that_its_caller_gives_up_leaves_its_answer_to_nobody(database: str) -> None:
    pool = Connections({"dsn": database}, 1, 1, acquire_timeout_seconds=5, statement_timeout_seconds=20)
    await pool.open()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), pool.acquire() as connection:
            await connection.fetchval("SELECT 1 FROM pg_sleep(60)")
    async with asyncio.timeout(15), pool.acquire() as connection:
        assert await connection.fetchval("SELECT 2") == 2
    await pool.close()


async def test_a_primary_that_takes_no_more_writes_is_unavailable_and_looked_for_anew(database: str) -> None:
    pool = Connections({"dsn": database}, 1, 1, acquire_timeout_seconds=5, statement_timeout_seconds=20)
    await pool.open()
    name = database.partition("?")[0].rpartition("/")[2]
    watcher = await asyncpg.connect(database)
    await watcher.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await pool.close()
    await pool.open_pool("public")
    async with pool.acquire() as connection:
        before = await connection.fetchval("SELECT pg_backend_pid()")
    with pytest.raises(UnavailableError, match="read-only"):
        async with pool.acquire() as connection:
            await connection.execute("CREATE TABLE t ()")
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT pg_backend_pid()") != before
    await pool.close()
    await watcher.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await watcher.close()
