"""Real parts for all tests: a server from the wheel for each PostgreSQL that we support, and a store of each kind."""

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from app.store.embedded import EmbeddedPostgres
from app.store.postgresql import PostgresStore
from app.store.postgresql.connections import Connections
from app.store.protocol import Store
from app.store.sqlite import SqliteStore

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


async def new_database(server: str) -> str:
    """The URL of an empty database on a server, which from now on does without the disk: tests need no power loss."""
    name = f"test_{uuid4().hex}"
    connection = await asyncpg.connect(server)
    try:
        await connection.execute("ALTER SYSTEM SET fsync = off")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return server.replace("/afterimage?", f"/{name}?")


def connections(url: str, max_size: int = 4) -> Connections:
    """A pool as the application opens it."""
    return Connections({"dsn": url}, 1, max_size, acquire_timeout_seconds=20, statement_timeout_seconds=20)


@pytest.fixture
async def database(postgres_url: Callable[[int], str]) -> str:
    """The URL of an empty database on the PostgreSQL that users get."""
    return await new_database(postgres_url(18))


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
        opened = PostgresStore(connections(await new_database(postgres_url(int(version)))), MODEL)
    await opened.open()
    yield opened
    await opened.close()
