"""Runs the command line in processes of its own, as a person does."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.effort import effort

DEADLINE_SECONDS = effort(60, full=600)
"""What a command may take; long tests export much."""


def environment(home: Path, **more: str) -> dict[str, str]:
    """What a person has who has set nothing but the SQLite backend and the embedder that needs no model."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AFTERIMAGE_")}
    return (
        kept
        | {
            "HOME": str(home),
            "AFTERIMAGE_BACKEND": "sqlite",
            "AFTERIMAGE_EMBEDDING_MODEL": "hashing",
        }
        | more
    )


def afterimage(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


@contextmanager
def serving(home: Path, **more: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A running service and its address; nobody reads its log, and a full pipe would stop it, so it says little."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "serve", "--port", str(port)],
        env=environment(home, **{"AFTERIMAGE_LOG_LEVEL": "warning", **more}),
        stderr=subprocess.PIPE,
        text=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            try:
                get(f"{address}/livez")
                break
            except OSError:
                if process.poll() is not None:
                    break
                time.sleep(0.05)
        yield address, process
    finally:
        process.terminate()  # so that a PostgreSQL of its own is stopped too
        try:
            process.communicate(timeout=DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def get(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.load(answer)


def post(address: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)
