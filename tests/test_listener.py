"""The listening socket at its end: a connection that has begun is completed, and no other begins."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.listener import listen, refuse_new
from tests.processes import DEADLINE_SECONDS, environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel has no such filter")

SOON_SECONDS = 0.3

SERVER = """
import os, signal, socket, sys
from app.main import create_app
from app.server import Server
from app.settings import load_settings

def stop():
    os.kill(os.getpid(), signal.SIGTERM)

settings = load_settings()
server = Server(create_app(settings), settings, stop, print, supervised=sys.argv[2] == "supervised")
sys.exit(server.serve_on(socket.socket(fileno=int(sys.argv[1]))))
"""
"""Stops as soon as it has started."""

SUPERVISOR = """
import os, signal, socket, sys
from app.settings import load_settings
from app.workers import Supervisor

def stop():
    os.kill(os.getpid(), signal.SIGTERM)

sys.exit(Supervisor(load_settings(), socket.socket(fileno=int(sys.argv[1])), stop, print).run())
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with listen("127.0.0.1", 0) as made:
        yield made


def connect(listener: socket.socket, seconds: float = DEADLINE_SECONDS) -> socket.socket:
    return socket.create_connection(listener.getsockname(), timeout=seconds)


def run_on(listener: socket.socket, script: str, home: Path, *arguments: str, **settings: str) -> None:
    theirs = os.dup(listener.fileno())
    try:
        subprocess.run(
            [sys.executable, "-c", script, str(theirs), *arguments],
            env=environment(home, **settings),
            pass_fds=[theirs],
            timeout=DEADLINE_SECONDS,
            check=True,
        )
    finally:
        os.close(theirs)


def test_no_connection_is_begun_and_what_is_on_its_way_on_others_comes(listener: socket.socket) -> None:
    with connect(listener) as client:
        refuse_new(listener)
        with pytest.raises(TimeoutError):
            connect(listener, SOON_SECONDS)
        taken, _ = listener.accept()
        with taken:
            client.sendall(b"a request")
            assert taken.recv(100) == b"a request"
            taken.sendall(b"its answer")
            assert client.recv(100) == b"its answer"


def test_who_comes_meanwhile_is_refused_once_it_is_closed(listener: socket.socket) -> None:
    address = listener.getsockname()
    refuse_new(listener)
    threading.Timer(SOON_SECONDS, listener.close).start()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=DEADLINE_SECONDS)


def test_a_server_that_stops_has_no_more_begun(listener: socket.socket, tmp_path: Path) -> None:
    run_on(listener, SERVER, tmp_path, "alone")
    with pytest.raises(TimeoutError):
        connect(listener, SOON_SECONDS)


def test_one_of_several_that_stops_leaves_the_socket_to_the_others(listener: socket.socket, tmp_path: Path) -> None:
    run_on(listener, SERVER, tmp_path, "supervised")
    connect(listener).close()


def test_who_stops_several_has_no_more_begun_for_them_all(
    listener: socket.socket, tmp_path: Path, database_for_processes: str
) -> None:
    where = {"AFTERIMAGE_BACKEND": "postgresql", "AFTERIMAGE_DATABASE_URL": database_for_processes}
    run_on(listener, SUPERVISOR, tmp_path, AFTERIMAGE_WORKERS="2", **where)
    with pytest.raises(TimeoutError):
        connect(listener, SOON_SECONDS)
