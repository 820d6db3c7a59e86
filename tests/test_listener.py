"""The listening socket at its end: a connection that has begun is completed, and no other begins."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM

import pytest

from app.listener import listen, refuse_new
from app.main import create_app
from app.server import Server
from app.settings import Settings
from tests.processes import DEADLINE_SECONDS, environment

SOON_SECONDS = 0.3

SUPERVISOR = """
import os, signal, socket, sys, threading
from app.settings import load_settings
from app.workers import Supervisor
stop = lambda: os.kill(os.getpid(), signal.SIGTERM)
sys.exit(Supervisor(load_settings(), socket.socket(fileno=int(sys.argv[1])), stop, print).run())
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with listen("127.0.0.1", 0) as made:
        yield made


def takes_connections(listener: socket.socket) -> bool:
    with socket.socket() as client:
        client.settimeout(SOON_SECONDS)
        try:
            client.connect(listener.getsockname())
        except TimeoutError:
            return False
    return True


def test_no_connection_is_begun_and_what_is_on_its_way_on_others_comes(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()) as client:
        refuse_new(listener)
        assert not takes_connections(listener)
        taken, _ = listener.accept()
        with taken:
            client.sendall(b"a request")
            assert taken.recv(100) == b"a request"
            taken.sendall(b"its answer")
            assert client.recv(100) == b"its answer"


def test_who_comes_meanwhile_is_refused_once_it_is_closed(listener: socket.socket) -> None:
    refuse_new(listener)
    threading.Timer(SOON_SECONDS, listener.close).start()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(listener.getsockname(), timeout=DEADLINE_SECONDS)


@pytest.mark.parametrize("shares", [False, True])
def test_a_process_that_stops_refuses_for_itself_only(listener: socket.socket, tmp_path: Path, shares: bool) -> None:
    """Of those that share the socket one may stop alone."""

    def stop() -> None:
        server.handle_exit(SIGTERM, None)

    settings = Settings(
        backend="sqlite",
        sqlite_path=tmp_path / "store.db",
        spool_folder=tmp_path,
        import_folder=tmp_path,
        embedding_model="hashing",
    )
    server = Server(create_app(settings), settings, stop, print, signals=(), shares_listener=shares)
    thread = threading.Thread(target=server.serve_on, args=[listener.dup()])
    thread.start()
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    assert takes_connections(listener) == shares


def test_who_has_started_several_processes_refuses_for_them_all(
    listener: socket.socket, tmp_path: Path, database_for_processes: str
) -> None:
    where = {"AFTERIMAGE_BACKEND": "postgresql", "AFTERIMAGE_DATABASE_URL": database_for_processes}
    theirs = os.dup(listener.fileno())
    try:
        subprocess.run(
            [sys.executable, "-c", SUPERVISOR, str(theirs)],
            env=environment(tmp_path, AFTERIMAGE_WORKERS="2", **where),
            pass_fds=[theirs],
            timeout=DEADLINE_SECONDS,
            check=True,
        )
    finally:
        os.close(theirs)
    assert not takes_connections(listener)
