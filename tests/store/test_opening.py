"""Opening a store: fresh, by several processes at once, without rights, too new."""

import asyncio
import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path

import aiosql
import asyncpg
import pytest

from app.errors import StartupError
from app.models import Scope
from app.store import postgresql, sqlite
from app.store.migrate import pending
from app.store.postgresql import PostgresStore, rights
from app.store.postgresql.server import at_address
from app.store.sqlite import SqliteStore
from tests.conftest import MODEL, connections, execute
from tests.memories import NOON, new

CODE_HASH = 8
"""The migration that brings the hash of code."""


async def opened(url: str) -> None:
    """The tables are made, unless something is wrong."""
    store = PostgresStore(connections(url), MODEL)
    await store.open()
    await store.close()


async def opening(url: str) -> str:
    """What opening a store says is wrong."""
    with pytest.raises(StartupError) as caught:
        await opened(url)
    message = str(caught.value)
    assert "\n" not in message
    return message


async def test_the_pool_opens_where_the_extension_does_not_exist_yet(database: str) -> None:
    store = PostgresStore(connections(database), MODEL)
    await store.open()
    await store.ping()
    await store.close()


async def test_a_role_that_may_not_make_the_extension_is_told_what_an_administrator_must_run(database: str) -> None:
    await execute(
        database, "DROP ROLE IF EXISTS plain", "CREATE ROLE plain LOGIN", "GRANT ALL ON SCHEMA public TO plain"
    )
    name = database.partition("?")[0].rpartition("/")[2]
    store = PostgresStore(connections(database), MODEL)
    as_plain = await asyncpg.connect(database)
    await as_plain.execute("SET ROLE plain")
    try:
        with pytest.raises(StartupError) as caught:
            await store._connections._ensure_extension(as_plain)
    finally:
        await as_plain.close()
    assert f'psql -d {name} -c "CREATE EXTENSION vector"' in str(caught.value)


async def test_a_role_that_may_not_make_tables_is_told_what_an_administrator_must_run(database: str) -> None:
    await execute(database, "CREATE EXTENSION vector", "DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN")
    assert "GRANT CREATE ON SCHEMA public TO reader" in await opening(f"{database}&role=reader")


async def test_a_role_without_a_right_on_a_table_is_told_what_an_administrator_must_run(database: str) -> None:
    await execute(database, "DROP ROLE IF EXISTS guest", "CREATE ROLE guest")
    await opened(database)
    await execute(
        database,
        "GRANT ALL ON SCHEMA public TO guest",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO guest",
        "REVOKE UPDATE ON embedding_queue FROM guest",
    )
    message = await opening(f"{database}&role=guest")
    assert "may not read and write the tables embedding_queue; an administrator must run" in message
    assert "GRANT ALL ON ALL TABLES IN SCHEMA public TO guest" in message
    await execute(database, "GRANT UPDATE ON embedding_queue TO guest")
    await opened(f"{database}&role=guest")
    await execute(database, f"DELETE FROM schema_migrations WHERE version >= {CODE_HASH}")
    assert "start the service once as the owner of the tables" in await opening(f"{database}&role=guest")
    await execute(database, "DROP OWNED BY guest", "DROP ROLE guest")


async def test_all_tables_are_known_to_the_check_of_rights(database: str) -> None:
    await opened(database)
    connection = await asyncpg.connect(database)
    found = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    await connection.close()
    assert tuple(name for (name,) in found) == rights.TABLES


async def test_the_extension_may_live_in_a_schema_of_its_own(database: str) -> None:
    name = database.partition("?")[0].rpartition("/")[2]
    await execute(
        database,
        "CREATE SCHEMA extensions",
        "CREATE EXTENSION vector SCHEMA extensions",
        f"ALTER DATABASE {name} SET search_path = public, extensions",
    )
    store = PostgresStore(connections(database), MODEL)
    await store.open()
    assert await store.memories.add([new()], NOON)
    await store.close()


async def test_a_missing_database_is_named_with_the_command_that_makes_it(database: str) -> None:
    assert "createdb" in await opening(database.replace("/test_", "/missing_"))


async def test_an_unknown_role_is_told_from_a_server_that_is_down(database: str) -> None:
    assert "authentication failed" in await opening(database.replace("//afterimage@", "//nobody_here@"))


async def test_a_refused_connection_says_how_to_start_the_server() -> None:
    message = await opening("postgresql://afterimage@127.0.0.1:1/afterimage")
    assert "systemctl start postgresql" in message
    assert "check AFTERIMAGE_DATABASE_URL" in message


async def test_a_newer_database_is_refused(database: str, tmp_path: Path) -> None:
    store = PostgresStore(connections(database), MODEL)
    await store.open()
    await store.close()
    await execute(database, "INSERT INTO schema_migrations (version) VALUES (9999)")
    assert "9999" in await opening(database)
    path = tmp_path / "store.db"
    file = SqliteStore(path, MODEL)
    await file.open()
    await file.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO schema_migrations (version) VALUES (9999)")
    with pytest.raises(StartupError, match="9999"):
        await SqliteStore(path, MODEL).open()


async def test_a_fresh_file_is_opened_once_another_has_ended_its_transaction(tmp_path: Path) -> None:
    """SQLite itself does not wait for it when it is asked for a write-ahead log."""
    store = SqliteStore(tmp_path / "store.db", MODEL)
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        opening = asyncio.create_task(store.open())
        done, _ = await asyncio.wait([opening], timeout=0.3)
        other.execute("ROLLBACK")
    assert not done
    await opening
    await store.close()


OPEN = """
import asyncio, sys
from app.store.postgresql import PostgresStore
from app.store.sqlite import SqliteStore
from pathlib import Path
from tests.conftest import connections
async def main():
    where = sys.argv[1]
    store = PostgresStore(connections(where), "m") if "://" in where else SqliteStore(Path(where), "m")
    await store.open()
    await store.close()
asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
async def test_four_processes_that_start_together_make_the_tables_once(
    kind: str, database: str, tmp_path: Path
) -> None:
    where = database if kind == "postgresql" else str(tmp_path / "store.db")
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", OPEN, where, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in processes:
        _, problem = await process.communicate()
        assert process.returncode == 0, problem.decode()


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("postgresql://u:p@db1:6432/name?target_session_attrs=primary", 6432),
        ("postgresql://u:p:9@[fd00::1]:6432,db1:7/name", 6432),
        ("postgresql://u@/name?host=/run/a&port=6432", 6432),
        ("postgresql://u@[fd00::1]/name", None),
    ],
)
def test_a_standby_has_the_port_of_the_primary_unless_it_has_its_own(url: str, port: int | None) -> None:
    assert at_address({"dsn": url}, "db2", None)["port"] == port
    assert at_address({"dsn": url}, "db2", 5)["port"] == 5
    parts = {"host": "db1", "port": 6432, "user": "u", "database": "name", "password": None}
    assert at_address(parts, "db2", None) == parts | {"host": "db2", "target_session_attrs": "any"}


async def test_one_write_that_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", MODEL)
    await store.open()
    bad = new(project="")
    results = await asyncio.gather(
        *(store.memories.add([row], NOON) for row in (new(), bad, new())), return_exceptions=True
    )
    assert isinstance(results[1], sqlite3.IntegrityError)
    assert (await store.memories.stats(None, MODEL)).total_entries == 2
    await store.close()


def test_both_dialects_have_the_same_queries_in_the_same_order() -> None:
    names = {}
    for module in (postgresql, sqlite):
        names[module] = re.findall(r"^-- name: (\w+)", module.QUERIES.read_text(), re.MULTILINE)
        assert len(names[module]) == len(set(names[module]))
    only_sqlite = [name for name in names[sqlite] if name not in names[postgresql]]
    only_postgresql = [name for name in names[postgresql] if name not in names[sqlite]]
    assert [name for name in names[sqlite] if name not in only_sqlite] == [
        name for name in names[postgresql] if name not in only_postgresql
    ]
    # FTS5 counts and merges words itself, and where every search is exact there is nothing to decide;
    # scores come to it as JSON, and no plan depends on which filters there are.
    assert only_postgresql == [
        "given_matches", "best_matches", "find_copies", "find_copies_in_projects", "find_copies_filtered",
        "stale_frequencies", "claim_frequencies", "delete_frequencies", "count_frequencies", "save_total",
        "merge_words", "count_vectors", "count_candidates",
    ]  # fmt: skip
    # What PostgreSQL does within one statement takes SQLite several.
    assert only_sqlite == [
        "add_words", "queue_embeddings", "queue_pieces", "present_keys", "delete_words", "hold_embeddings",
        "dequeue_embeddings", "sweep_vectors", "sweep_queue",
    ]  # fmt: skip


@pytest.mark.parametrize("dialect", ["postgresql", "sqlite"])
def test_every_query_says_its_purpose(dialect: str) -> None:
    module = {"postgresql": postgresql, "sqlite": sqlite}[dialect]
    driver = {"postgresql": "asyncpg", "sqlite": "sqlite3"}[dialect]
    queries = aiosql.from_path(module.QUERIES, driver, mandatory_parameters=False)
    for name in queries.available_queries:
        if not name.endswith("_cursor"):
            assert getattr(queries, name).__doc__, name


async def test_memories_that_were_stored_before_code_had_a_hash_have_one(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    old, again = new(new_code="x = 'é'"), new(new_code="x = 'é'")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE schema_migrations (version INTEGER PRIMARY KEY, applied_at TEXT)")
        for migration in pending("sqlite", 0):
            if migration.version < CODE_HASH:
                connection.executescript(migration.sql)
                connection.execute("INSERT INTO schema_migrations (version) VALUES (?)", (migration.version,))
        memory = old.memory
        connection.execute(
            "INSERT INTO memories (project, id, file_path, new_code, timestamp, created_at) VALUES (?, ?, ?, ?, ?, ?)",
            (memory.project, str(memory.id), "a.py", memory.new_code, "2026-05-01T12:00:00.000000Z", "2026-05-01"),
        )
        connection.commit()
    store = SqliteStore(path, MODEL)
    await store.open()
    await store.memories.add([again], NOON)
    [found] = await store.memories.distinct(Scope(), dict.fromkeys([memory.key, again.memory.key], 1.0), 2)
    assert found.copies == 2
    await store.close()


async def test_a_cancelled_read_leaves_no_connection_in_the_past(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", MODEL)
    await store.open()
    for number in range(1, 51):
        reads = [asyncio.create_task(store.memories.page(Scope(), 100, None)) for _ in range(4)]
        await asyncio.sleep(number / 10_000)
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        await store.memories.add([new() for _ in range(2)], NOON)
        for _ in range(4):
            assert (await store.memories.stats(None, MODEL)).total_entries == 2 * number
    await store.close()


async def test_an_opening_that_is_cancelled_leaves_no_thread_that_would_keep_the_process_alive(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    stores = [SqliteStore(tmp_path / f"{number}.db", MODEL) for number in range(10)]
    for number, store in enumerate(stores):
        opening = asyncio.create_task(store.open())
        await asyncio.sleep(number / 500)
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await opening
            await store.close()  # it was faster
    async with asyncio.timeout(20):
        while set(threading.enumerate()) - before:
            await asyncio.sleep(0.01)
