"""PostgreSQL servers of the tests: where they listen, how they die, how they are removed."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

from app.store.embedded import EmbeddedPostgres


def socket_folder(url: str) -> str:
    return parse_qs(urlsplit(url).query)["host"][0]


def kill(server: EmbeddedPostgres) -> None:
    """Kills a server as a lack of memory or a fault of the machine would."""
    os.kill(int((server.home / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)


@contextmanager
def removed(server: EmbeddedPostgres) -> Iterator[None]:
    """Stops a server in the end, whoever started it, and removes it."""
    try:
        yield
    finally:
        server.stop()
        if (server.home / "data" / "postmaster.pid").exists():
            server.start()
            server.stop()
        shutil.rmtree(server.home, ignore_errors=True)
