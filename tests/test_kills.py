"""Kills PostgreSQL and the service under writers, again and again: what was answered is there afterwards, and once."""

import asyncio
import fcntl
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from app.store.embedded import EmbeddedPostgres
from app.store.embedded_programs import locked
from tests.effort import effort
from tests.processes import serving
from tests.servers import kill, removed

SERVICE_KILLS = effort(1, full=20)
POSTGRESQL_KILLS = effort(3, full=20)

WRITERS = 16

PATIENCE_SECONDS = 20
"""How long the service may take until it works again, on a busy machine."""

log = logging.getLogger(__name__)


class Writers:
    """Each repeats a memory until it is answered, at whatever address the service has, and then takes the next."""

    def __init__(self) -> None:
        self.address = ""
        self.answered: dict[str, int] = {}
        self._working = True
        self._given_up = False
        self._threads = [threading.Thread(target=self._write) for _ in range(WRITERS)]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        except BaseException:
            self._given_up = True
            raise
        finally:
            self._working = False
            for thread in self._threads:
                thread.join()

    def make_progress(self) -> None:
        """Returns once each writer could have been answered."""
        goal = len(self.answered) + 2 * WRITERS
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self.answered) < goal:
            assert time.monotonic() < deadline, f"no more than {len(self.answered)} of {goal} memories were answered"
            time.sleep(0.01)

    def _write(self) -> None:
        with httpx.Client(timeout=PATIENCE_SECONDS) as client:
            while self._working:
                memory = {"id": str(uuid4()), "file_path": "a.py", "new_code": f"x = '{uuid4()}'"}
                status = 0
                while status not in (200, 201):
                    if self._given_up:
                        return
                    try:
                        answer = client.post(f"{self.address}/v1/memories", json=memory)
                    except httpx.TransportError:
                        status = 0
                    else:
                        status = answer.status_code
                        assert status in (200, 201, 503), answer.text
                    if status not in (200, 201):
                        time.sleep(0.02)
                self.answered[memory["id"]] = status


def everything(address: str) -> list[str]:
    """The ids of all memories, as often as they are listed."""
    found: list[str] = []
    cursor = None
    while True:
        answer = httpx.get(
            f"{address}/v1/memories",
            params={"limit": 100} | ({"cursor": cursor} if cursor else {}),
            timeout=PATIENCE_SECONDS,
        )
        page = answer.json()
        found += [memory["id"] for memory in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def check(writers: Writers, address: str) -> None:
    assert sorted(everything(address)) == sorted(writers.answered)
    assert httpx.get(f"{address}/v1/stats", timeout=PATIENCE_SECONDS).json()["total_entries"] == len(writers.answered)
    statuses = list(writers.answered.values())
    log.info("%d memories, %d of them answered 200 when sent again", len(statuses), statuses.count(200))


def eventually(condition: Callable[[], bool]) -> float:
    """How many seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + PATIENCE_SECONDS
        time.sleep(0.02)
    return time.monotonic() - began


def ready(address: str) -> bool:
    return httpx.get(f"{address}/readyz", timeout=PATIENCE_SECONDS).status_code == 200


def variables(folder: Path, backend: str) -> dict[str, str]:
    """Nobody reads the log meanwhile, and a line for each request would fill the pipe."""
    return {
        "AFTERIMAGE_BACKEND": backend,
        "AFTERIMAGE_POSTGRES_FOLDER": str(folder / "postgres"),
        "AFTERIMAGE_LOG_LEVEL": "warning",
    }


def is_gone(server: EmbeddedPostgres) -> bool:
    """True once no process of it is left: each serves its connection to the end of the statement."""
    try:
        locked(server.home / "server.lock", fcntl.LOCK_EX | fcntl.LOCK_NB).close()
    except BlockingIOError:
        return False
    return True


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """The service's own PostgreSQL."""
    server = EmbeddedPostgres(tmp_path / "postgres")
    with removed(server):
        yield server


@pytest.mark.parametrize("backend", ["postgresql", "sqlite"])
def test_what_was_answered_survives_kills_of_the_service(backend: str, tmp_path: Path, own: EmbeddedPostgres) -> None:
    settings = variables(tmp_path, backend)
    writers = Writers()
    with writers.at_work():
        for _ in range(SERVICE_KILLS):
            with serving(tmp_path, **settings) as (writers.address, process):
                writers.make_progress()
                process.kill()
                process.wait()
        service = serving(tmp_path, **settings)
        writers.address, _ = service.__enter__()
        writers.make_progress()
    check(writers, writers.address)
    service.__exit__(None, None, None)


def test_what_was_answered_survives_kills_of_postgresql_which_the_service_starts_again(
    tmp_path: Path, own: EmbeddedPostgres
) -> None:
    settings = variables(tmp_path, "postgresql")
    writers = Writers()
    seconds = []
    with serving(tmp_path, **settings) as (address, _):
        writers.address = address
        with writers.at_work():
            for _ in range(POSTGRESQL_KILLS):
                writers.make_progress()
                kill(own)
                eventually(lambda: not ready(address))
                seconds.append(eventually(lambda: ready(address)))
            writers.make_progress()
        check(writers, address)
    log.info("ready again after %.1f s at most", max(seconds))


async def test_while_postgresql_is_down_everything_is_503_at_once_and_then_as_before(
    tmp_path: Path, own: EmbeddedPostgres, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"postgres_folder": tmp_path / "postgres", "spool_folder": tmp_path, "embedding_model": "hashing"}
    app = create_app(Settings.model_validate(settings))
    memory = {"file_path": "a.py", "new_code": "x = 1"}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client,
    ):
        assert (await client.post("/v1/memories", json=memory)).status_code == 201
        with locked(own.home / "start.lock", fcntl.LOCK_EX):  # so that nobody starts it
            kill(own)
            eventually(lambda: is_gone(own))
            began = time.monotonic()
            for answer in (
                await client.post("/v1/memories", json=memory),
                await client.post("/v1/search/fts", json={"query": "x"}),
                await client.get("/v1/memories"),
            ):
                assert answer.status_code == 503
                assert answer.headers["retry-after"] == "1"
                assert "PostgreSQL does not answer" in answer.json()["detail"]
            readiness = await client.get("/readyz")
            assert time.monotonic() - began < 10  # far less than the wait for a connection may be
            assert readiness.status_code == 503
            assert "PostgreSQL does not answer" in readiness.json()["checks"]["postgresql"]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.02)
        assert (await client.post("/v1/search/fts", json={"query": "x"})).json()["hits"]
        said = ""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "the service's own PostgreSQL had died and was started again" not in said:
                said += capsys.readouterr().out
                await asyncio.sleep(0.02)
