"""Several processes on one socket, and one process on one SQLite file."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.processes import DEADLINE_SECONDS, afterimage, get, post, serving
from tests.source_files import entry, write_ai_afterimage

MEMORY = {"file_path": "a.py", "new_code": "x = 1"}


def workers_of(process: subprocess.Popen[str]) -> set[int]:
    return {int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()}


def eventually(said: Any) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not said():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def is_ready(base: str) -> bool:
    try:
        return bool(get(f"{base}/readyz")["ready"])
    except OSError:  # it has not begun to answer
        return False


def text(address: str) -> str:
    with urlopen(address, timeout=10) as answer:
        return str(answer.read(), "utf-8")


@pytest.fixture
def two(database_for_processes: str) -> dict[str, str]:
    """The settings of a service of two processes."""
    return {
        "AFTERIMAGE_BACKEND": "postgresql",
        "AFTERIMAGE_DATABASE_URL": database_for_processes,
        "AFTERIMAGE_WORKERS": "2",
    }


def test_two_processes_are_one_service(two: dict[str, str], tmp_path: Path) -> None:
    with serving(tmp_path, **two) as (base, process):
        assert process.stderr is not None
        said = next(line for line in process.stderr if base in line)
        assert said.startswith("AfterImage is at ")
        first = workers_of(process)
        assert len(first) == 2
        for _ in range(20):
            post(f"{base}/v1/memories", MEMORY)

        # an export is known to whichever process is asked
        with urlopen(Request(f"{base}/v1/admin/exports", b"{}", {"content-type": "application/json"})) as answer:
            place = base + answer.headers["location"]
        eventually(lambda: {get(place)["state"] for _ in range(8)} == {"completed"})

        # each counts for itself, and any tells of all
        def counted() -> dict[str, float]:
            lines = [line for line in text(f"{base}/metrics").splitlines() if "requests_total{" in line]
            told = {line[line.index("worker=") :][8]: 0.0 for line in lines}
            for line in lines:
                if 'method="POST",route="/v1/memories"' in line:
                    told[line[line.index("worker=") :][8]] += float(line.rpartition(" ")[2])
            return told

        eventually(lambda: set(counted()) == {"0", "1"} and sum(counted().values()) == 20)

        # one that dies is started again, and the other answers meanwhile
        killed = first.pop()
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: killed not in workers_of(process))
        assert get(f"{base}/readyz")["ready"]
        eventually(lambda: len(workers_of(process)) == 2)
        second = workers_of(process)

        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=DEADLINE_SECONDS)
        assert (process.returncode, "Traceback" in rest, base in rest) == (0, False, False), rest
        assert all(is_gone(pid) for pid in second)


def test_a_worker_that_is_started_again_does_not_change_the_model(two: dict[str, str], tmp_path: Path) -> None:
    with serving(tmp_path / "first", **two) as (base, process):
        post(f"{base}/v1/memories", MEMORY)
        with serving(tmp_path / "second", **two, AFTERIMAGE_EMBEDDING_MODEL="hashing-64") as (last, _):
            eventually(lambda: get(f"{last}/v1/stats")["embedding"]["model"] == "hashing-64")
        killed, other = workers_of(process)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: killed not in workers_of(process) and len(workers_of(process)) == 2)
        os.kill(other, signal.SIGSTOP)
        try:
            eventually(lambda: is_ready(base))  # says the new one
            embedding = get(f"{base}/v1/stats")["embedding"]
        finally:
            os.kill(other, signal.SIGCONT)
        assert (embedding["model"], embedding["change"]) == ("hashing-64", None)


def test_ctrl_c_in_the_terminal_ends_all_cleanly(two: dict[str, str], tmp_path: Path) -> None:
    """The terminal sends it to each process."""
    with serving(tmp_path, **two) as (base, process):
        post(f"{base}/v1/memories", MEMORY)
        for pid in (*workers_of(process), process.pid):
            os.kill(pid, signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE_SECONDS)
        assert (process.returncode, "Traceback" in said) == (0, False), said


def test_workers_do_not_outlive_their_supervisor(two: dict[str, str], tmp_path: Path) -> None:
    with serving(tmp_path, **two) as (_, process):
        workers = workers_of(process)
        process.kill()
        eventually(lambda: all(is_gone(pid) for pid in workers))


def test_what_prevents_a_start_is_one_line_from_all_workers_together(two: dict[str, str], tmp_path: Path) -> None:
    done = afterimage(tmp_path, "serve", "--port", "0", **two, AFTERIMAGE_SPOOL_FOLDER="/dev/null/spool")
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == 3
    assert len(lines) == 1
    assert "AFTERIMAGE_SPOOL_FOLDER" in lines[0]


def test_sqlite_refuses_several_workers_and_says_what_to_do(tmp_path: Path) -> None:
    done = afterimage(tmp_path, "serve", "--port", "0", "--workers", "2")
    assert done.returncode == 1
    assert done.stderr.startswith("afterimage: SQLite is for one process, and AFTERIMAGE_WORKERS is 2; ")
    assert "AFTERIMAGE_BACKEND=postgresql" in done.stderr


def test_a_sqlite_file_has_one_service_at_a_time_and_commands_beside_it(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / ".afterimage" / "afterimage.db")
    with serving(tmp_path) as (base, process):
        post(f"{base}/v1/memories", MEMORY)
        refused = afterimage(tmp_path, "serve", "--port", "0", AFTERIMAGE_SQLITE_PATH=str(tmp_path / "link.db"))
        assert refused.returncode == 3
        [line] = [line for line in refused.stderr.splitlines() if not line.startswith("{")]
        assert line.startswith("afterimage: another service has the SQLite file")
        source = write_ai_afterimage(tmp_path / "memory.db", [entry(1)])
        assert afterimage(tmp_path, "migrate", "--sqlite", str(source)).returncode == 0
        assert get(f"{base}/v1/stats")["total_entries"] == 2
        process.kill()
        process.wait()
    with serving(tmp_path) as (base, _):
        assert get(f"{base}/v1/stats")["total_entries"] == 2
