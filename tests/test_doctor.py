"""The doctor: each thing that can be wrong, really wrong; and that it changes nothing."""

import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest
import torch

from app.doctor import examine
from app.doctor.check import Check, Verdict
from app.store.embedded import EmbeddedPostgres
from app.store.postgresql import PostgresStore
from app.store.sqlite import SqliteStore
from tests.conftest import MODEL, connections, execute
from tests.memories import NOON, new
from tests.processes import afterimage, environment
from tests.source_files import entry, write_ai_afterimage, zero_page

POSTGRESQL = ("connection", "authentication", "database", "extension", "migrations", "permissions")

Examination = Callable[..., "asyncio.Future[dict[str, Check]]"]


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., object]:
    """Examines with these settings and no others; checks by name, in their order."""
    for name in [name for name in os.environ if name.startswith("AFTERIMAGE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AFTERIMAGE_EMBEDDING_MODEL", "hashing")

    async def found(**variables: object) -> dict[str, Check]:
        for name, value in variables.items():
            monkeypatch.setenv(f"AFTERIMAGE_{name.upper()}", str(value))
        return {check.name: check async for check in examine()}

    return found


def verdicts(found: dict[str, Check]) -> list[str]:
    return [check.verdict.value for name, check in found.items() if name in POSTGRESQL]


@pytest.fixture
async def visitor(database: str) -> AsyncIterator[str]:
    """The URL of a database for a role with a password and no rights; the server asks for the password."""
    admin = await asyncpg.connect(database)
    rules = Path(await admin.fetchval("SHOW hba_file"))
    before = rules.read_text()  # noqa: ASYNC240
    await admin.execute("DROP ROLE IF EXISTS visitor")
    await admin.execute("CREATE ROLE visitor LOGIN PASSWORD 'right'")
    rules.write_text(f"local all visitor scram-sha-256\n{before}")  # noqa: ASYNC240
    await admin.execute("SELECT pg_reload_conf()")
    url = database.replace("//afterimage@", "//visitor:right@")
    async with asyncio.timeout(20):
        while True:
            try:
                await (await asyncpg.connect(url)).close()
                break
            except asyncpg.InvalidAuthorizationSpecificationError:
                await asyncio.sleep(0.02)
    yield url
    rules.write_text(before)  # noqa: ASYNC240
    await admin.execute("SELECT pg_reload_conf()")
    await admin.execute("DROP OWNED BY visitor")
    await admin.execute("DROP ROLE visitor")
    await admin.close()


async def opened(url: str) -> None:
    """The tables are made."""
    store = PostgresStore(connections(url), MODEL)
    await store.open()
    await store.close()


async def test_a_healthy_server_is_all_ok(checks: Examination, database: str) -> None:
    await opened(database)
    found = await checks(database_url=database)
    assert {check.verdict for check in found.values()} == {Verdict.OK}
    assert tuple(found) == ("settings", *POSTGRESQL, "pool", "model", "folders", "disk space")
    assert "PostgreSQL 18" in found["connection"].text
    assert "newest" in found["migrations"].text


async def test_more_connections_than_the_server_gives_are_wrong(checks: Examination, database: str) -> None:
    found = await checks(database_url=database, workers=5, max_pool_size=100)
    assert found["pool"].verdict is Verdict.WRONG
    assert "are 500, and the server gives 197: mend: lower one" in found["pool"].text


async def test_a_fresh_database_is_ok_and_stays_as_it_is(checks: Examination, database: str) -> None:
    found = await checks(database_url=database)
    assert {check.verdict for check in found.values()} == {Verdict.OK}
    assert "next start creates it" in found["extension"].text
    assert "next start applies" in found["migrations"].text
    connection = await asyncpg.connect(database)
    assert await connection.fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0
    assert not await connection.fetchval("SELECT count(*) FROM pg_extension WHERE extname = 'vector'")
    await connection.close()


async def test_a_refused_connection_says_how_to_start_the_server(checks: Examination) -> None:
    found = await checks(pg_host="127.0.0.1", pg_port=1)
    assert verdicts(found) == ["wrong", "skip", "skip", "skip", "skip", "skip"]
    assert "afterimage@127.0.0.1:1/afterimage" in found["connection"].text
    assert "mend: start the server (systemctl start postgresql)" in found["connection"].text
    assert found["model"].verdict is Verdict.OK


async def test_a_wrong_password_says_what_to_export(checks: Examination, visitor: str) -> None:
    found = await checks(database_url=visitor.replace(":right@", ":wrong@"))
    assert verdicts(found) == ["ok", "wrong", "skip", "skip", "skip", "skip"]
    assert "mend: export AFTERIMAGE_PG_PASSWORD=" in found["authentication"].text
    assert "password authentication failed" in found["authentication"].text


async def test_a_missing_database_says_how_to_make_it(checks: Examination, database: str) -> None:
    found = await checks(database_url=database.replace("/test_", "/missing_"))
    assert verdicts(found) == ["ok", "ok", "wrong", "skip", "skip", "skip"]
    assert "createdb" in found["database"].text


async def test_a_missing_extension_and_missing_rights_say_what_an_administrator_must_run(
    checks: Examination, visitor: str
) -> None:
    found = await checks(database_url=visitor)
    assert verdicts(found) == ["ok", "ok", "ok", "wrong", "ok", "wrong"]
    name = visitor.partition("?")[0].rpartition("/")[2]
    assert f'psql -d {name} -c "CREATE EXTENSION vector"' in found["extension"].text
    assert f'psql -d {name} -c "GRANT CREATE ON SCHEMA public TO visitor"' in found["permissions"].text


async def test_tables_of_another_role_are_wrong_permissions(checks: Examination, database: str, visitor: str) -> None:
    await opened(database)
    await execute(
        database, "GRANT ALL ON SCHEMA public TO visitor", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO visitor"
    )
    found = await checks(database_url=visitor)
    assert verdicts(found) == ["ok", "ok", "ok", "ok", "ok", "wrong"]
    assert "the tables audit, embedding_models," in found["permissions"].text
    assert "GRANT ALL ON ALL TABLES IN SCHEMA public TO visitor" in found["permissions"].text


async def test_tables_that_another_role_owns_are_wrong_until_they_are_given_away(
    checks: Examination, database: str, visitor: str
) -> None:
    await opened(database)
    await execute(
        database, "GRANT ALL ON SCHEMA public TO visitor", "GRANT ALL ON ALL TABLES IN SCHEMA public TO visitor"
    )
    found = await checks(database_url=visitor)
    assert verdicts(found) == ["ok", "ok", "ok", "ok", "ok", "wrong"]
    text = found["permissions"].text
    assert "does not own all tables of the service" in text
    command = re.search(r'psql -d \w+ -c "(.*)"', text)
    assert command
    await execute(database, command[1])
    assert verdicts(await checks(database_url=visitor)) == ["ok"] * 6


async def test_a_newer_database_is_wrong(checks: Examination, database: str) -> None:
    await opened(database)
    await execute(database, "INSERT INTO schema_migrations (version) VALUES (9999)")
    found = await checks(database_url=database)
    assert (found["migrations"].verdict, "9999" in found["migrations"].text) == (Verdict.WRONG, True)


async def test_a_server_of_its_own_that_is_not_made_yet_is_not_made(checks: Examination, tmp_path: Path) -> None:
    found = await checks(postgres_folder=tmp_path / "postgres")
    assert verdicts(found) == ["ok", "skip", "skip", "skip", "skip", "skip"]
    assert not EmbeddedPostgres(tmp_path / "postgres").home.exists()


async def test_a_server_of_its_own_runs_afterwards_as_it_did_before(checks: Examination, tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres")
    await opened(server.start())
    try:
        found = await checks(postgres_folder=tmp_path / "postgres")
        assert {check.verdict for check in found.values()} == {Verdict.OK}
        assert "running" in found["connection"].text
        assert server.has_users
        server.stop()
        found = await checks(postgres_folder=tmp_path / "postgres")
        assert {check.verdict for check in found.values()} == {Verdict.OK}
        assert "stopped again" in found["connection"].text
        assert not server.has_users
        assert not (server.home / "data" / "postmaster.pid").exists()
    finally:
        server.stop()
        shutil.rmtree(server.home)


async def test_a_file_in_place_of_the_folder_of_its_own_server_is_wrong(checks: Examination) -> None:
    found = await checks(postgres_folder="/dev/null")
    assert found["folders"].verdict is Verdict.WRONG
    assert "mend: set AFTERIMAGE_POSTGRES_FOLDER" in found["folders"].text


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """A file of the SQLite store with a memory, closed."""
    path = tmp_path / "store.db"
    store = SqliteStore(path, MODEL)
    await store.open()
    await store.memories.add([new()], NOON)
    await store.close()
    return path


async def test_a_healthy_file_is_all_ok_and_stays_as_it_is(checks: Examination, file: Path) -> None:
    before = file.read_bytes()  # noqa: ASYNC240
    found = await checks(backend="sqlite", sqlite_path=file)
    assert {check.verdict for check in found.values()} == {Verdict.OK}
    expected = ("settings", "file", "integrity", "migrations", "permissions", "model", "folders", "disk space")
    assert tuple(found) == expected
    assert file.read_bytes() == before  # noqa: ASYNC240
    assert os.listdir(file.parent) == [file.name]


async def test_a_file_that_is_not_there_yet_is_not_made(checks: Examination, tmp_path: Path) -> None:
    found = await checks(backend="sqlite", sqlite_path=tmp_path / "new" / "store.db")
    assert (found["file"].verdict, found["migrations"].verdict) == (Verdict.OK, Verdict.SKIP)
    assert os.listdir(tmp_path) == []


async def test_a_path_that_cannot_be_written_names_the_setting(checks: Examination) -> None:
    found = await checks(backend="sqlite", sqlite_path="/dev/null/store.db", spool_folder="/dev/null/spool")
    assert (found["file"].verdict, found["folders"].verdict) == (Verdict.WRONG, Verdict.WRONG)
    assert "mend: set AFTERIMAGE_SQLITE_PATH" in found["file"].text
    assert "mend: set AFTERIMAGE_SPOOL_FOLDER" in found["folders"].text


async def test_a_newer_file_is_wrong(checks: Examination, file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("INSERT INTO schema_migrations (version) VALUES (9999)")
    found = await checks(backend="sqlite", sqlite_path=file)
    assert (found["migrations"].verdict, "9999" in found["migrations"].text) == (Verdict.WRONG, True)


async def test_a_damaged_file_says_how_to_save_it(checks: Examination, file: Path) -> None:
    zero_page(file, 4)
    found = await checks(backend="sqlite", sqlite_path=file)
    assert found["integrity"].verdict is Verdict.WRONG
    assert ".recover" in found["integrity"].text


async def test_an_ai_afterimage_file_says_how_to_import_it(checks: Examination, tmp_path: Path) -> None:
    path = write_ai_afterimage(tmp_path / "memory.db", [entry(1)])
    found = await checks(backend="sqlite", sqlite_path=path)
    assert found["file"].verdict is Verdict.WRONG
    assert f"afterimage migrate --sqlite {path}" in found["file"].text


async def test_the_default_model_is_there_with_its_checksum(checks: Examination) -> None:
    found = await checks(backend="sqlite", embedding_model=MODEL)
    assert (found["model"].verdict, "published weights" in found["model"].text) == (Verdict.OK, True)


async def test_a_models_folder_that_cannot_be_made_names_the_setting(checks: Examination) -> None:
    found = await checks(backend="sqlite", embedding_model=MODEL, models_folder="/dev/null/models")
    assert "mend: set AFTERIMAGE_MODELS_FOLDER" in found["folders"].text


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has such a device")
async def test_a_device_that_this_machine_lacks_is_named(checks: Examination) -> None:
    found = await checks(backend="sqlite", embedding_model=MODEL, embedding_device="cuda")
    assert found["model"].verdict is Verdict.WRONG
    assert "the device 'cuda' cannot be used" in found["model"].text
    assert "mend: set AFTERIMAGE_EMBEDDING_DEVICE to cpu" in found["model"].text


async def test_another_model_is_looked_for_on_this_machine(checks: Examination, tmp_path: Path) -> None:
    assert "not in the cache" in (await checks(backend="sqlite", embedding_model="nobody/nothing"))["model"].text
    assert "folder of this machine" in (await checks(embedding_model=tmp_path))["model"].text


async def test_wrong_settings_are_the_only_line(checks: Examination) -> None:
    [check] = (await checks(port="high")).values()
    assert (check.name, check.verdict) == ("settings", Verdict.WRONG)


def test_the_command_prints_a_line_each_and_exits_with_1_if_anything_is_wrong(tmp_path: Path) -> None:
    well = afterimage(tmp_path, "doctor")
    assert (well.returncode, well.stderr) == (0, "")
    assert well.stdout.splitlines()[0].startswith("ok    settings       backend sqlite")
    ill = afterimage(tmp_path, "doctor", AFTERIMAGE_SQLITE_PATH="/dev/null/store.db")
    assert ill.returncode == 1
    assert "\nwrong file" in ill.stdout
    assert "\nskip  integrity" in ill.stdout


async def test_a_reader_who_goes_away_leaves_no_server_running(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres")
    await opened(server.start())
    server.stop()
    variables = {"AFTERIMAGE_BACKEND": "postgresql", "AFTERIMAGE_POSTGRES_FOLDER": str(tmp_path / "postgres")}
    done = await asyncio.to_thread(
        subprocess.run,
        f"{sys.executable} -m app doctor | head -1",
        shell=True,
        env=environment(tmp_path, **variables),
        capture_output=True,
        check=False,
    )
    assert (done.stdout[:14], done.stderr) == (b"ok    settings", b"")
    assert not server.has_users
    assert not (server.home / "data" / "postmaster.pid").exists()
    shutil.rmtree(server.home)


def test_the_command_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom app.cli import cli\ntry:\n cli(['doctor'])\nexcept SystemExit:\n pass\n"
        "sys.exit('torch' in sys.modules or 'sentence_transformers' in sys.modules)"
    )
    for model in (MODEL, "nobody/nothing"):
        variables = environment(tmp_path, AFTERIMAGE_EMBEDDING_MODEL=model)
        assert subprocess.run([sys.executable, "-c", code], env=variables, check=False).returncode == 0
