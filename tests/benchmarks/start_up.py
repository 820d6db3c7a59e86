"""Time from the command to the first answered request, and memory at rest and under load."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from app.store.embedded import EmbeddedPostgres
from tests.benchmarks.report import Figure, Measured, Target
from tests.benchmarks.rows import Corpus
from tests.benchmarks.served import running, served, starting
from tests.benchmarks.sides import Comparison, HttpSide, Sample, by_turns, run_side
from tests.benchmarks.writers import Form

PART = "start-up"
MAX_SECONDS = {"postgresql": 3.0, "sqlite": 1.0}
MAX_REST_MB = 350.0
WRITERS = 16


def measure(corpus: Corpus, folder: Path, models: Path, seconds: float, rounds: int) -> Iterator[Figure]:
    """Both stores, on data that is there already; the floor is FastAPI, PostgreSQL and the model alone."""
    for backend in MAX_SECONDS:
        home, bare = folder / backend, folder / f"bare-{backend}"
        postgres: list[str] = []
        with ExitStack() as stack:
            if backend == "postgresql":
                for place in (home / ".afterimage" / "postgres", bare / "postgres"):
                    stack.callback(shutil.rmtree, EmbeddedPostgres(place).home, ignore_errors=True)
                postgres = [str(bare / "postgres")]

            def arguments(port: int, postgres: list[str] = postgres) -> list[str]:
                return ["tests.benchmarks.bare_app", str(port), str(models), *postgres]

            with served(home, models, backend=backend), running(bare, models, arguments) as floor:
                floor.wait_for("/livez")  # makes the data of both
            yield _start(home, bare, models, backend, rounds, arguments)
            with running(bare, models, arguments) as floor:
                floor.wait_for("/model")
                least, _ = floor.memory_mb()
            with served(home, models, backend=backend) as service:
                rest, _ = service.memory_mb()
                yield _memory(
                    f"{backend}, at rest", rest, least, Target(f"under {MAX_REST_MB:g} MB", rest < MAX_REST_MB)
                )
                requests = Form(1, with_vectors=False).requests(corpus)
                run_side("load", HttpSide(service.port, requests, WRITERS, seconds))
                _, most = service.memory_mb()
                yield _memory(f"{backend}, at most, {WRITERS} writers and embedding", most, least, None)


def _start(
    home: Path, bare: Path, models: Path, backend: str, rounds: int, arguments: Callable[[int], list[str]]
) -> Figure:
    def ours() -> Sample:
        began = time.perf_counter()
        with starting(home, models, backend=backend) as service:
            service.wait_for("/v1/memories")
            return _took(began)

    def floor() -> Sample:
        began = time.perf_counter()
        with running(bare, models, arguments) as service:
            service.wait_for("/livez")
            return _took(began)

    samples = by_turns(rounds, {"service": ours, "floor": floor})
    compared = Comparison(samples["service"], samples["floor"])
    seconds, least = (Sample.together(side).percentile(50) / 1000 for side in (compared.ours, compared.theirs))
    limit = MAX_SECONDS[backend]
    target = Target(f"under {limit:g} s", seconds < limit)
    name = "FastAPI and PostgreSQL" if backend == "postgresql" else "FastAPI"
    case = f"{backend}, seconds to the first answer"
    return Figure(
        PART, case, _value("service", seconds), _value(name, least), "p50", round(compared.ratio(50), 3), target=target
    )


def _took(began: float) -> Sample:
    seconds = time.perf_counter() - began
    return Sample(seconds, [1000 * seconds])


def _memory(case: str, size: float, least: float, target: Target | None) -> Figure:
    floor = _value("FastAPI and model", least)
    return Figure(PART, f"{case}, MB", _value("service", size), floor, "MB", round(size / least, 3), target=target)


def _value(name: str, value: float) -> Measured:
    return Measured(name, value=round(value, 2))
