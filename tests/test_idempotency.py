"""Kills the service while it stores, and repeats what it did not answer: nothing is lost, nothing is there twice."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from app.store.embedded import EmbeddedPostgres
from tests.effort import effort
from tests.processes import get, serving

KILLS = effort(1, full=20)
WRITERS = 8
PATIENCE_SECONDS = 5


class Writer:
    """Sends numbered writes one after the other, each with a key of its own, until it is answered."""

    def __init__(self, name: int) -> None:
        self.name = name
        self.ids: list[str] = []

    def write_on(self, address: str) -> None:
        """Writes until the service is gone."""
        while self.write(address):
            pass

    def write(self, address: str) -> bool:
        """One write, again and again until it is answered; False if the service is gone."""
        number = len(self.ids)
        sent = json.dumps({"file_path": f"{self.name}.py", "new_code": f"x = {number}"}).encode()
        headers = {"content-type": "application/json", "idempotency-key": f"{self.name}-{number}"}
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with urlopen(Request(f"{address}/v1/memories", sent, headers), timeout=30) as answer:
                    self.ids.append(json.load(answer)["id"])
                    return True
            except HTTPError as error:
                if error.code not in (409, 503) or time.monotonic() > until:
                    raise
                time.sleep(0.05)
            except (OSError, HTTPException):
                return False


@pytest.mark.parametrize("backend", ["postgresql", "sqlite"])
def test_writes_that_are_repeated_after_a_kill_are_stored_once(backend: str, tmp_path: Path) -> None:
    settings = {
        "AFTERIMAGE_BACKEND": backend,
        "AFTERIMAGE_POSTGRES_FOLDER": str(tmp_path / "postgres"),
        "AFTERIMAGE_LOG_LEVEL": "warning",
    }
    writers = [Writer(name) for name in range(WRITERS)]
    try:
        for _ in range(KILLS):
            wanted = [len(writer.ids) + 5 for writer in writers]
            with serving(tmp_path, **settings) as (base, process), ThreadPoolExecutor(WRITERS) as threads:
                running = [threads.submit(writer.write_on, base) for writer in writers]
                while any(len(writer.ids) < least for writer, least in zip(writers, wanted, strict=True)):
                    assert not any(one.done() for one in running)
                    time.sleep(0.01)
                process.kill()
                for one in running:
                    one.result()
        with serving(tmp_path, **settings) as (base, _):
            assert all(writer.write(base) for writer in writers)
            total = get(f"{base}/v1/stats")["total_entries"]
            listed = get(f"{base}/v1/memories?limit=1000")["items"]
    finally:
        shutil.rmtree(EmbeddedPostgres(tmp_path / "postgres").home, ignore_errors=True)
    answered = {memory_id for writer in writers for memory_id in writer.ids}
    assert total == sum(len(writer.ids) for writer in writers) == len(answered)
    assert {one["id"] for one in listed} <= answered
