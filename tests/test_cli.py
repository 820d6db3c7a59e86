"""The command line, as a person runs it: in processes of its own."""

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.store.embedded import EmbeddedPostgres
from tests.conftest import execute
from tests.processes import DEADLINE_SECONDS, afterimage, environment, get, post, serving
from tests.source_files import entry, write_ai_afterimage


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    return made


REPORT = """\
Starting migration...
Reading source data: 3/3 (100.0%)
Migrating entries: 3/3 (100.0%)
Validating migration: 1/1 (100.0%)

============================================================
AI-AfterImage Migration Report
============================================================
Source entries:     3
Migrated:           3
Skipped (existing): 0
Failed:             0
Success rate:       100.0%
Elapsed time:       SECONDS
To be embedded:     3
============================================================
"""


def test_migrate_prints_the_lines_and_the_report_of_ai_afterimage(home: Path, tmp_path: Path) -> None:
    source = write_ai_afterimage(tmp_path / "memory.db", [entry(number) for number in (1, 2, 3)])
    done = afterimage(home, "migrate", "--sqlite", str(source), "--validate")
    assert re.sub(r"\d+\.\ds\n", "SECONDS\n", done.stdout) == REPORT
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(afterimage(home, "stats").stdout)["total_entries"] == 3


def test_migrate_says_which_row_failed_and_exits_with_1(home: Path, tmp_path: Path) -> None:
    source = write_ai_afterimage(tmp_path / "memory.db", [entry(1), entry(2, timestamp="yesterday")])
    done = afterimage(home, "migrate", "--sqlite", str(source))
    assert done.returncode == 1
    assert "Failed:             1" in done.stdout
    assert re.search(r"- row 2 \(.*\): timestamp.*yesterday", done.stdout)


def test_what_a_row_holds_neither_moves_the_terminal_nor_breaks_the_report(home: Path, tmp_path: Path) -> None:
    rows = [entry(1, id="\x1b[2J", timestamp="yesterday"), entry(2, id="\U0001f600", timestamp="yesterday")]
    source = write_ai_afterimage(tmp_path / "memory.db", rows)
    done = afterimage(home, "migrate", "--sqlite", str(source), PYTHONIOENCODING="ascii")
    assert "\x1b" not in done.stdout
    assert "- row 1 ('\\x1b[2J'): timestamp" in done.stdout
    assert "- row 2 (\\U0001f600): timestamp" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["nothing.db", "loop.db", "~nobody-of-this-name/memory.db"])
def test_migrate_of_what_is_no_source_is_one_line(home: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "loop.db").symlink_to("loop.db")
    done = afterimage(home, "migrate", "--sqlite", name if name.startswith("~") else str(tmp_path / name))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert name in done.stderr


def test_migrate_and_stats_import_no_torch(home: Path, tmp_path: Path) -> None:
    source = write_ai_afterimage(tmp_path / "memory.db", [entry(1)])
    for arguments in (["migrate", "--sqlite", str(source)], ["stats"]):
        check = (
            "import sys\nfrom app.cli import cli\n"
            f"try:\n cli({arguments!r})\nexcept SystemExit:\n pass\n"
            "sys.exit('torch' in sys.modules or 'sentence_transformers' in sys.modules)"
        )
        defaults = environment(home) | {"AFTERIMAGE_EMBEDDING_MODEL": "all-MiniLM-L6-v2"}
        assert (
            subprocess.run([sys.executable, "-c", check], env=defaults, check=False, capture_output=True).returncode
            == 0
        )


def test_the_help_loads_nothing_of_the_service() -> None:
    check = "import sys, app.cli; sys.exit(not {'fastapi', 'numpy', 'asyncpg', 'uvicorn'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_an_ai_afterimage_file_as_store_is_refused_with_the_command_to_run(home: Path) -> None:
    (home / ".afterimage").mkdir()
    source = write_ai_afterimage(home / ".afterimage" / "memory.db", [entry(1)])
    settings = home / ".afterimage" / "config.yaml"
    settings.write_text(
        "storage: {backend: sqlite, sqlite: {path: ~/.afterimage/memory.db}}\nfilter: {skip_paths: [docs/]}\n"
    )
    refused = afterimage(home, "stats")
    assert refused.returncode == 1
    assert f"afterimage migrate --sqlite {source}" in refused.stderr
    target = re.search(r"AFTERIMAGE_SQLITE_PATH=(\S+) afterimage", refused.stderr)
    assert target
    done = afterimage(home, "migrate", "--sqlite", str(source), AFTERIMAGE_SQLITE_PATH=target[1])
    assert done.returncode == 0, done.stderr


def test_the_service_stores_and_finds_and_ends_cleanly(home: Path) -> None:
    with serving(home) as (address, process):
        post(f"{address}/v1/memories", {"file_path": "a.py", "new_code": "def parse_header(): ..."})
        assert post(f"{address}/v1/search/fts", {"query": "header"})["hits"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) in (0, -signal.SIGTERM)
    assert "header" in afterimage(home, "search", "header").stdout


def test_what_was_answered_survives_kill_9(home: Path) -> None:
    with serving(home) as (address, process):
        for number in range(20):
            post(f"{address}/v1/memories", {"file_path": "a.py", "new_code": f"x = {number}"})
        process.kill()
        process.wait()
    with serving(home) as (address, _):
        assert get(f"{address}/v1/stats")["total_entries"] == 20


def test_an_occupied_port_is_one_line_before_anything_is_started(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = afterimage(home, "serve", "--port", port)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr
    assert not (home / ".afterimage").exists()


WRONG = {
    "a refused connection": (
        {"AFTERIMAGE_BACKEND": "postgresql", "AFTERIMAGE_PG_HOST": "::1"},
        "systemctl start postgresql), or check AFTERIMAGE_PG_HOST",
    ),
    "a host that nobody knows": ({"AFTERIMAGE_HOST": "999.1.1.1"}, "the host 999.1.1.1 is unknown"),
    "a host that is another": ({"AFTERIMAGE_HOST": "192.0.2.1"}, "192.0.2.1 is no address of this machine; set --host"),
    "a wrong value": ({"AFTERIMAGE_MAX_POOL_SIZE": "many"}, "AFTERIMAGE_MAX_POOL_SIZE is 'many'"),
    "an unknown backend": ({"AFTERIMAGE_BACKEND": "mysql"}, "'postgresql' or 'sqlite'"),
    "a missing settings file": ({"AFTERIMAGE_CONFIG": "/nowhere.yaml"}, "/nowhere.yaml"),
    "an unreadable store": ({"AFTERIMAGE_SQLITE_PATH": "/dev/null/store.db"}, "AFTERIMAGE_SQLITE_PATH"),
    "an unusable spool": ({"AFTERIMAGE_SPOOL_FOLDER": "/dev/null/spool"}, "AFTERIMAGE_SPOOL_FOLDER"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_prevents_a_start_is_one_line_that_says_what_to_do(home: Path, name: str) -> None:
    variables, expected = WRONG[name]
    done = afterimage(home, "serve", "--port", "0", **variables)
    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("{")]  # the log is JSON
    assert line.startswith("afterimage: ")
    assert expected in line


def test_a_spool_folder_that_lost_its_id_is_one_line_that_says_what_to_do(home: Path, tmp_path: Path) -> None:
    (tmp_path / "id").touch()
    done = afterimage(home, "serve", "--port", "0", AFTERIMAGE_SPOOL_FOLDER=str(tmp_path))
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert f"remove {tmp_path / 'id'}" in line
    assert [path.name for path in tmp_path.glob("id*")] == ["id"]


@pytest.mark.parametrize("broken", ["text", "zeros", "truncated"])
def test_a_broken_file_of_the_store_is_one_line_and_no_command_hangs(home: Path, tmp_path: Path, broken: str) -> None:
    path = tmp_path / "store.db"
    assert afterimage(home, "stats", AFTERIMAGE_SQLITE_PATH=str(path)).returncode == 0
    whole = path.read_bytes()
    path.write_bytes({"text": b"words\n" * 1000, "zeros": bytes(20_000), "truncated": whole[:5000]}[broken])
    for command in (["serve", "--port", "0"], ["stats"], ["keys", "list"], ["embed"], ["search", "x"]):
        done = afterimage(home, *command, AFTERIMAGE_SQLITE_PATH=str(path))
        assert done.returncode == (3 if command[0] == "serve" else 1), done.stderr
        [line] = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        assert line.startswith(f"afterimage: the SQLite file {path} cannot be opened: "), command


def test_missing_rights_are_one_line_of_every_command(home: Path, database_for_processes: str) -> None:
    statements = ("CREATE EXTENSION vector", "DROP ROLE IF EXISTS poor", "CREATE ROLE poor")
    asyncio.run(execute(database_for_processes, *statements))
    variables = {"AFTERIMAGE_BACKEND": "postgresql", "AFTERIMAGE_DATABASE_URL": f"{database_for_processes}&role=poor"}
    for command in (["serve", "--port", "0"], ["stats"], ["migrate", "--sqlite", "memory.db"]):
        done = afterimage(home, *command, **variables)
        assert done.returncode != 0
        [line] = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        assert "GRANT CREATE ON SCHEMA public TO poor" in line, command


def test_the_log_tells_where_the_data_of_its_own_server_really_is(home: Path) -> None:
    variables = {"AFTERIMAGE_BACKEND": "postgresql", "AFTERIMAGE_LOG_LEVEL": "info"}
    where = EmbeddedPostgres(home / ".afterimage" / "postgres").home
    with serving(home, **variables) as (_, process):
        assert process.stderr is not None
        line = next(line for line in process.stderr if "the service's own PostgreSQL runs" in line)
    assert json.loads(line)["folder"] == str(where)
    shutil.rmtree(where)


def test_an_empty_project_is_refused(home: Path, tmp_path: Path) -> None:
    for command in (["migrate", "--sqlite", "a.db"], ["export", "--sqlite", str(tmp_path / "b.db")], ["search", "x"]):
        done = afterimage(home, *command, "--project", "")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "afterimage: --project is empty; name a project, or leave the option out\n"


def test_a_project_without_memories_is_named(home: Path, tmp_path: Path) -> None:
    source = write_ai_afterimage(tmp_path / "memory.db", [entry(1)])
    afterimage(home, "migrate", "--sqlite", str(source), "--project", "real")
    for command in (["export", "--sqlite", str(tmp_path / "out.db")], ["search", "x", "--mode", "fts"]):
        done = afterimage(home, *command, "--project", "nope", "--project", "real")
        assert done.returncode == 0
        assert done.stderr == "afterimage: the project 'nope' holds no memories\n"
