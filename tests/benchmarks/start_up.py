"""Time from the command to the first answered request, and memory at rest and under load."""

import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from app.store.embedded import EmbeddedPostgres
from tests.benchmarks.report import Figure, Measured, Target
from tests.benchmarks.rows import Corpus
from tests.benchmarks.served import served, starting
from tests.benchmarks.sides import HttpSide, run_side
from tests.benchmarks.writers import Form

PART = "start-up"
STARTS = 3
MAX_SECONDS = {"postgresql": 3.0, "sqlite": 1.0}
MAX_REST_MB = 350.0
WRITERS = 16


def measure(corpus: Corpus, folder: Path, models: Path, seconds: float) -> Iterator[Figure]:
    """Both stores, on data that is there already."""
    for backend in ("postgresql", "sqlite"):
        home = folder / backend
        with ExitStack() as stack:
            if backend == "postgresql":
                own = EmbeddedPostgres(home / ".afterimage" / "postgres")
                stack.callback(shutil.rmtree, own.home, ignore_errors=True)
            with served(home, models, backend=backend):
                pass  # makes the data
            yield _start(home, models, backend)
            with served(home, models, backend=backend) as service:
                rest, _ = service.memory_mb()
                yield _memory(f"{backend}, at rest", rest, Target(f"under {MAX_REST_MB:g} MB", rest < MAX_REST_MB))
                requests = Form(1, with_vectors=False).requests(corpus)
                run_side("load", HttpSide(service.port, requests, WRITERS, seconds))
                _, most = service.memory_mb()
                yield _memory(f"{backend}, at most, {WRITERS} writers and embedding", most, None)


def _start(home: Path, models: Path, backend: str) -> Figure:
    times = []
    for _ in range(STARTS):
        began = time.perf_counter()
        with starting(home, models, backend=backend) as service:
            service.wait_for("/v1/memories")
            times.append(time.perf_counter() - began)
    seconds, limit = statistics.median(times), MAX_SECONDS[backend]
    name = f"{backend}, seconds to the first answer"
    target = Target(f"under {limit:g} s", seconds < limit)
    return Figure(
        PART, name, _value("service", seconds), _value("promise", limit), "seconds", seconds / limit, target=target
    )


def _memory(case: str, size: float, target: Target | None) -> Figure:
    rest = _value("promise at rest", MAX_REST_MB)
    return Figure(PART, f"{case}, MB", _value("service", size), rest, "MB", size / MAX_REST_MB, target=target)


def _value(name: str, value: float) -> Measured:
    return Measured(name, value=round(value, 2))
