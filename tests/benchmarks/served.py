"""The service as users run it, in a process of its own with a home of its own, and a PostgreSQL beside it."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg

from app.store.embedded import EmbeddedPostgres
from app.store.migrate import pending

DEADLINE_SECONDS = 60
POLL_SECONDS = 0.01

NOT_GIVEN = ("AFTERIMAGE_", "PYTHONDONTWRITEBYTECODE")
"""Variables with which the service would not start as it does for users: set up, or compiled anew each time."""


class Service:
    """A running service."""

    def __init__(self, port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.port = port
        self.process = process
        self._log = log

    def ask(self, path: str, content: Any = None) -> Any:
        """The answer to a GET, or to a POST if there is content."""
        sent = None if content is None else json.dumps(content).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", sent, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=DEADLINE_SECONDS) as answer:
            return json.load(answer)

    def wait_for(self, path: str, content: Any = None) -> Any:
        """The first answer to a request that is asked again and again until it is answered well."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                return self.ask(path, content)
            except OSError as error:  # nobody listens yet, or 503
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the service did not start: {self._log.read_text()[-2000:]}") from error
                time.sleep(POLL_SECONDS)

    def memory_mb(self) -> tuple[float, float]:
        """What its processes hold now and held at most, resident; PostgreSQL's do not count."""
        now = most = 0
        for pid in _family(self.process.pid):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                name, _, size = line.partition(":")
                if name == "VmRSS":
                    now += int(size.split()[0])
                elif name == "VmHWM":
                    most += int(size.split()[0])
        return now / 1024, most / 1024

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stops the process, background work and all, so that the other side has the machine."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def served(folder: Path, models: Path, **settings: str) -> Iterator[Service]:
    """A service that has loaded its model; `settings` are variables without `AFTERIMAGE_`."""
    with starting(folder, models, **settings) as service:
        service.wait_for("/v1/search/semantic", {"query": "ready"})
        yield service


@contextmanager
def starting(folder: Path, models: Path, **settings: str) -> Iterator[Service]:
    """A service that is being started."""
    with running(folder, models, lambda port: ["app", "serve", "--port", str(port)], **settings) as service:
        yield service


@contextmanager
def running(folder: Path, models: Path, module: Callable[[int], list[str]], **settings: str) -> Iterator[Service]:
    """A module that serves on a port, with its arguments."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_GIVEN)}
    variables = {f"AFTERIMAGE_{name.upper()}": value for name, value in settings.items()}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "service.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", *module(port)],
            env=kept | {"HOME": str(folder), "AFTERIMAGE_MODELS_FOLDER": str(models)} | variables,
            stderr=errors,
        )
    try:
        yield Service(port, process, log)
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def scratch_postgres(folder: Path) -> Iterator[str]:
    """A fresh PostgreSQL, as the service would start it; durable."""
    server = EmbeddedPostgres(folder)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(server.home, ignore_errors=True)


def _family(pid: int) -> list[int]:
    """A process and its descendants that run Python."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in task.joinpath("children").read_text().split():
            if "postgres" not in Path(f"/proc/{child}/comm").read_text():
                found += _family(int(child))
    return found


def new_database(url: str, name: str) -> str:
    """A database with the extension and the service's tables."""

    async def make() -> str:
        await _execute(url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name}")
        made = url.replace("/afterimage?", f"/{name}?")
        migrations = [migration.sql for migration in pending("postgresql", 0)]
        await _execute(made, "CREATE EXTENSION vector", *migrations)
        versions = ",".join(f"({migration.version})" for migration in pending("postgresql", 0))
        await _execute(
            made,
            "CREATE TABLE schema_migrations (version integer PRIMARY KEY, applied_at timestamptz DEFAULT now())",
            f"INSERT INTO schema_migrations (version) VALUES {versions}",
        )
        return made

    return asyncio.run(make())


def forget_memories(url: str) -> None:
    """Empties the store; what the service reads in the background may lock the same tables in another order."""
    while True:
        with suppress(asyncpg.DeadlockDetectedError):
            return execute(url, "TRUNCATE memories CASCADE")


def execute(url: str, *statements: str) -> None:
    """Runs statements one by one."""
    asyncio.run(_execute(url, *statements))


def fetch_value(url: str, statement: str) -> Any:
    """One value."""

    async def fetch() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(fetch())


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
