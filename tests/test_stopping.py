"""How the service ends: what was begun is answered, what was answered is stored, and it ends in time."""

import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest

from tests.effort import effort
from tests.processes import DEADLINE_SECONDS, afterimage, get, post, serving
from tests.test_workers import workers_of

MEMORY = {"file_path": "a.py", "new_code": "x = 1"}

WRITERS = 8

CYCLES = effort(1, full=20)

BODY = json.dumps(MEMORY).encode()
HEAD = (
    b"POST /v1/memories HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
)
HALF_A_REQUEST = HEAD + BODY[:1]


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit status, and all that the service has said."""
    _, said = process.communicate(timeout=DEADLINE_SECONDS)
    return process.returncode, said


def connected(base: str) -> socket.socket:
    address = urlsplit(base)
    return socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=DEADLINE_SECONDS)


def where(workers: int, database: str) -> dict[str, str]:
    """The settings of so many processes; of none, SQLite."""
    if workers == 0:
        return {}
    several = {"AFTERIMAGE_DATABASE_URL": database, "AFTERIMAGE_WORKERS": str(workers)}
    return several | {"AFTERIMAGE_BACKEND": "postgresql"}


class Writer(threading.Thread):
    """Stores one memory after the other until it is refused; on one connection, or on one for each."""

    def __init__(self, base: str, *, keeps: bool) -> None:
        super().__init__()
        self._address = urlsplit(base).netloc
        self._keeps = keeps
        self.seen: Counter[str] = Counter()

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=DEADLINE_SECONDS)
        while True:
            if connection.sock is None:
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    return
            try:
                connection.request("POST", "/v1/memories", json.dumps(MEMORY), {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                self.seen[str(answer.status)] += 1
            except (http.client.HTTPException, OSError) as error:
                self.seen[repr(error)] += 1
                return
            if not self._keeps:
                connection.close()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_under_load_every_request_that_was_begun_is_answered_and_stored(
    workers: int, tmp_path: Path, database_for_processes: str
) -> None:
    settings = where(workers, database_for_processes)
    stored = 0
    for _ in range(CYCLES):
        with serving(tmp_path, **settings) as (base, process):
            writers = [Writer(base, keeps=bool(number % 2)) for number in range(WRITERS)]
            for writer in writers:
                writer.start()
            while sum(writer.seen["201"] for writer in writers) < 20 * WRITERS:
                time.sleep(0.01)
            told = time.monotonic()
            process.send_signal(signal.SIGTERM)
            status, said = ended(process)
            assert (status, "Traceback" in said, "error" in said) == (0, False, False), said[-3000:]
            assert time.monotonic() - told < 9
        for writer in writers:
            writer.join(DEADLINE_SECONDS)
        seen: Counter[str] = sum((writer.seen for writer in writers), Counter())
        assert set(seen) == {"201"}
        stored += seen["201"]
    assert json.loads(afterimage(tmp_path, "stats", **settings).stdout)["total_entries"] == stored


@pytest.mark.parametrize("workers", [0, 2])
def test_readiness_is_down_first_and_requests_are_answered_meanwhile(
    workers: int, tmp_path: Path, database_for_processes: str
) -> None:
    settings = where(workers, database_for_processes)
    more = {"AFTERIMAGE_STOP_DELAY_SECONDS": "5", "AFTERIMAGE_LOG_LEVEL": "info"}
    with serving(tmp_path, **settings, **more) as (base, process):
        assert get(f"{base}/readyz")["ready"]
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        for _ in range(max(1, workers)):
            next(line for line in process.stderr if "stopping" in line)
        with pytest.raises(HTTPError) as refused:
            get(f"{base}/readyz")
        assert (refused.value.code, json.load(refused.value)["checks"]["service"]) == (503, "stopping")
        assert refused.value.headers["connection"] == "close"
        post(f"{base}/v1/memories", MEMORY)
        assert ended(process)[0] == 0


def test_a_request_that_does_not_end_is_answered_503_in_time(tmp_path: Path) -> None:
    with serving(tmp_path, AFTERIMAGE_STOP_TIMEOUT_SECONDS="4") as (base, process), connected(base) as client:
        client.sendall(HALF_A_REQUEST)
        assert get(f"{base}/livez")
        told = time.monotonic()
        process.send_signal(signal.SIGTERM)
        answer = b"".join(iter(lambda: client.recv(100_000), b""))
        status, said = ended(process)
        assert time.monotonic() - told < 4 + 10
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"AFTERIMAGE_STOP_TIMEOUT_SECONDS" in answer
    assert (status, "Traceback" in said) == (0, False), said


def test_a_stop_that_hangs_is_ended_in_time(tmp_path: Path) -> None:
    with (
        serving(tmp_path, AFTERIMAGE_STOP_TIMEOUT_SECONDS="2") as (base, process),
        connected(base) as client,
        closing(sqlite3.connect(tmp_path / ".afterimage" / "afterimage.db", isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        client.sendall(HEAD + BODY)
        assert get(f"{base}/livez")
        told = time.monotonic()
        process.send_signal(signal.SIGTERM)
        status, said = ended(process)
        assert time.monotonic() - told < 2 + 10  # and not as long as SQLite would wait, 30 s
    assert (status, "AFTERIMAGE_STOP_TIMEOUT_SECONDS" in said, "Traceback" in said) == (1, True, False), said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("workers", "delay"), [(0, "0"), (2, "0"), (2, "60")])
def test_a_second_signal_ends_the_service_at_once(
    workers: int, delay: str, tmp_path: Path, database_for_processes: str, number: signal.Signals
) -> None:
    times = {"AFTERIMAGE_STOP_DELAY_SECONDS": delay, "AFTERIMAGE_STOP_TIMEOUT_SECONDS": "60"}
    settings = where(workers, database_for_processes) | times | {"AFTERIMAGE_LOG_LEVEL": "info"}
    with serving(tmp_path, **settings) as (base, process), connected(base) as client:
        client.sendall(HALF_A_REQUEST)
        assert get(f"{base}/livez")
        process.send_signal(number)
        assert process.stderr is not None
        next(line for line in process.stderr if "stopping" in line)
        process.send_signal(number)
        assert process.wait(30) == 128 + number


def half_asked(base: str, workers: set[int], clients: ExitStack) -> list[socket.socket]:
    """A connection to each of the workers, on which a request has begun."""
    halves = []
    for others in ({*workers} - {worker} for worker in workers):
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            halves.append(clients.enter_context(connected(base)))
            halves[-1].sendall(HALF_A_REQUEST)
            assert get(f"{base}/livez")
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)
    return halves


@pytest.mark.parametrize("supervisor", ["is told too", "has died"])
def test_a_worker_that_is_told_to_stop_twice_answers_what_was_begun(
    supervisor: str, tmp_path: Path, database_for_processes: str
) -> None:
    """Systemd tells each process, and so does the supervisor tell its workers; or they find that it has died."""

    def until_all_stop() -> None:
        assert process.stderr is not None
        for _ in workers:
            next(line for line in process.stderr if "stopping" in line)

    def tell_all() -> None:
        for worker in workers:
            os.kill(worker, signal.SIGTERM)

    settings = where(2, database_for_processes) | {"AFTERIMAGE_LOG_LEVEL": "info"}
    with serving(tmp_path, **settings) as (base, process), ExitStack() as clients:
        workers = workers_of(process)
        halves = half_asked(base, workers, clients)
        if supervisor == "is told too":
            tell_all()
            until_all_stop()
            process.terminate()
        else:
            process.kill()
            until_all_stop()
            tell_all()
        for client in halves:
            client.sendall(BODY[1:])
            assert client.recv(100).startswith(b"HTTP/1.1 201 ")
        clients.close()
        status, said = ended(process)
        expected = 0 if supervisor == "is told too" else -signal.SIGKILL
        assert (status, "Traceback" in said) == (expected, False), said
