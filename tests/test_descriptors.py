"""Clients cannot take the descriptors that the service needs, and where none is left it goes on when there is."""

import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import urlsplit

import pytest

from app.descriptors import OTHERS, room_for_clients
from app.settings import Settings
from tests.processes import DEADLINE_SECONDS, get, post, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")

MEMORY = {"file_path": "a.py", "new_code": "x = 1"}


@contextmanager
def open_files(allowed: int) -> Iterator[None]:
    """What this process, and those that it starts meanwhile, may have open without asking for more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def opened(base: str, many: int, stack: ExitStack) -> list[socket.socket]:
    address = (str(urlsplit(base).hostname), int(urlsplit(base).port or 0))
    return [stack.enter_context(socket.create_connection(address, timeout=DEADLINE_SECONDS)) for _ in range(many)]


def processor_seconds(process_id: int) -> float:
    user, system = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / 100


def test_the_limit_of_open_files_is_raised_as_far_as_it_is_needed() -> None:
    settings = Settings(backend="sqlite", max_client_connections=300)
    needed = 300 + OTHERS + settings.max_pool_size
    with open_files(256):
        assert room_for_clients(settings) == 300
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == needed
    with open_files(needed + 1):
        assert room_for_clients(settings) == 300
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == needed + 1


def test_where_the_limit_cannot_be_raised_so_far_clients_get_what_is_left() -> None:
    ask = "from app.descriptors import *; print(room_for_clients(Settings(backend='sqlite')))"
    limited = ["sh", "-c", 'ulimit -n 256 && exec "$@"', "sh", sys.executable, "-c", ask]
    told = subprocess.run(limited, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=True).stdout
    assert told.splitlines()[-1] == str(256 - OTHERS - Settings().max_pool_size)
    assert "too few open files" in told
    assert "ulimit -n" in told


def test_clients_are_refused_before_no_descriptor_is_left(tmp_path: Path) -> None:
    with ExitStack() as stack:
        address, process = stack.enter_context(serving(tmp_path, AFTERIMAGE_MAX_CLIENT_CONNECTIONS="50"))
        kept = opened(address, 49, stack)
        refused = opened(address, 300, stack)
        assert all(one.recv(12) == b"HTTP/1.1 503" for one in refused[-250:])
        deadline = monotonic() + DEADLINE_SECONDS
        while len(list(Path(f"/proc/{process.pid}/fd").iterdir())) >= 50 + OTHERS:
            assert monotonic() < deadline
            sleep(0.05)
        kept[0].sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert kept[0].recv(15) == b"HTTP/1.1 200 OK"


def test_without_a_descriptor_left_the_service_waits_quietly_and_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path) as (address, process):
        post(f"{address}/v1/memories", MEMORY)
        before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        taken = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (taken + 20, before[1]))
        with ExitStack() as stack:
            opened(address, 100, stack)
            used, began = processor_seconds(process.pid), monotonic()
            while monotonic() - began < 1:
                sleep(0.1)
            assert processor_seconds(process.pid) - used < 0.5
            assert process.poll() is None
        post(f"{address}/v1/memories", MEMORY)
        assert get(f"{address}/v1/stats")["total_entries"] == 2
