"""Real parts for all tests: a server from the wheel for each PostgreSQL that we support, and a store of each kind."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from uuid import uuid4

import asyncpg
import hypothesis
import pytest
from hypothesis import HealthCheck

from app.store.embedded import EmbeddedPostgres
from app.store.postgresql import PostgresStore
from app.store.postgresql.connections import Connections
from app.store.protocol import Store
from app.store.sqlite import SqliteStore

hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")  # other processes may take all there is of the processor for a while

MODEL = "all-MiniLM-L6-v2"

STORES = ["postgresql-18", "postgresql-16", "sqlite"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asyncpg runs on asyncio alone."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], str]]:
    """The URL of a server of a major version, started when it is first asked for."""
    with ExitStack() as running:

        @cache
        def start(version: int) -> str:
            server = EmbeddedPostgres(tmp_path_factory.mktemp(f"pg{version}") / "postgres", version)
            url = server.start()
            running.callback(shutil.rmtree, server.home, ignore_errors=True)
            running.callback(server.stop)
            return url

        yield start


WITHOUT_DISK = ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
"""What these tests store need not survive a power loss, and so they run sooner."""


async def new_database(server: str) -> str:
    """The URL of a database of its own on a server."""
    name = f"test_{uuid4().hex}"
    await execute(server, f"CREATE DATABASE {name}")
    return server.replace("/afterimage?", f"/{name}?")


async def emptied(server: str) -> str:
    """The URL of a server's first database, without anything in it: much sooner had than a new one."""
    await execute(server, *WITHOUT_DISK, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    return server


async def execute(url: str, *statements: str) -> None:
    """Runs statements one by one."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def connections(url: str, max_size: int = 4) -> Connections:
    """A pool as the application opens it."""
    return Connections({"dsn": url}, 1, max_size, acquire_timeout_seconds=20, statement_timeout_seconds=20)


@pytest.fixture
async def database(postgres_url: Callable[[int], str]) -> str:
    """The URL of a new database on the PostgreSQL that users get."""
    return await new_database(postgres_url(18))


@pytest.fixture
def database_for_processes(postgres_url: Callable[[int], str]) -> str:
    """The same, for tests that are not asynchronous: those that run processes of their own."""
    return asyncio.run(new_database(postgres_url(18)))


@pytest.fixture(params=STORES)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_url: Callable[[int], str]
) -> AsyncIterator[Store]:
    """An empty store of each kind."""
    opened: Store
    kind, _, version = str(request.param).partition("-")
    if kind == "sqlite":
        opened = SqliteStore(tmp_path / "store.db", MODEL)
    else:
        opened = PostgresStore(connections(await emptied(postgres_url(int(version)))), MODEL)
    await opened.open()
    yield opened
    await opened.close()
