"""Writers against throughput: over HTTP, and the same rows by hand-written code on the same kind of store."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.bare_writers import BareRow, PostgresSide, SqliteSide
from tests.benchmarks.report import Figure, Measured, Target, rate_figure
from tests.benchmarks.rows import Corpus, bare_row, body, request
from tests.benchmarks.served import Service, fetch_value, forget_memories, new_database, scratch_postgres, served
from tests.benchmarks.sides import Comparison, HttpSide, Sample, by_turns, run_side

PART = "writers"
WRITERS = (1, 4, 16, 64)
BATCH = 100
POOL = 10
"""The service's default."""
NO_INDEX = "1000000"
"""Vectors that may be searched exactly; no round stores as many."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    seconds: float = 1.0
    rounds: int = 2
    writers: tuple[int, ...] = WRITERS


@dataclass(frozen=True, slots=True)
class Form:
    """What is written: memories one by one or in batches, with vectors or without."""

    batch: int
    with_vectors: bool

    def __str__(self) -> str:
        return f"{'single' if self.batch == 1 else f'batches of {self.batch}'}, {self.vectors}"

    @property
    def vectors(self) -> str:
        """In words."""
        return "with vectors" if self.with_vectors else "without vectors"

    def requests(self, corpus: Corpus) -> list[bytes]:
        """The corpus once, as requests."""
        bodies = iter([body(path, code, vector if self.with_vectors else None) for path, code, vector in _all(corpus)])
        if self.batch == 1:
            return [request("/v1/memories", one) for one in bodies]
        batches = iter(lambda: list(islice(bodies, self.batch)), [])
        return [request("/v1/memories/batch", {"memories": batch}) for batch in batches]

    def rows(self, corpus: Corpus) -> list[BareRow]:
        """The corpus once, for hand-written code."""
        return [bare_row(path, code, vector if self.with_vectors else None) for path, code, vector in _all(corpus)]


FORMS = [Form(batch, with_vectors) for with_vectors in (True, False) for batch in (1, BATCH)]


def measure(corpus: Corpus, folder: Path, models: Path, effort: Effort) -> Iterator[Figure]:
    """All forms and numbers of writers on both stores."""
    with scratch_postgres(folder / "postgres") as url:
        for form in FORMS:
            yield from postgres(corpus, folder / f"postgres-{form}", models, effort, form, url)
    for form in FORMS:
        yield from sqlite(corpus, folder / f"sqlite-{form}", models, effort, form)


def postgres(corpus: Corpus, folder: Path, models: Path, effort: Effort, form: Form, url: str) -> Iterator[Figure]:
    """Two databases on one server, both emptied before each round; neither side keeps an HNSW index of the vectors."""
    ours, theirs = new_database(url, "ours"), new_database(url, "bare")
    requests, rows = form.requests(corpus), form.rows(corpus)
    with served(folder, models, database_url=ours, exact_search_limit=NO_INDEX) as service:
        for writers in effort.writers:

            def over_http(writers: int = writers) -> Sample:
                forget_memories(ours)
                sample = _over_http(service, requests, writers, effort, form)
                _refuse_loss(sample, fetch_value(ours, "SELECT count(*) FROM memories"))
                return sample

            def bare(executemany: bool, writers: int = writers) -> Callable[[], Sample]:
                def run() -> Sample:
                    forget_memories(theirs)
                    side = PostgresSide(theirs, POOL, rows, writers, form.batch, effort.seconds, executemany)
                    with service.paused():
                        return run_side("bare_writers", side, form.batch)

                return run

            floors = {"asyncpg": bare(executemany=False)}
            if form.batch > 1:
                floors = {"asyncpg, executemany": bare(executemany=True), "asyncpg, arrays": bare(executemany=False)}
            yield from _figures("postgresql", form, writers, effort, over_http, floors)


def sqlite(corpus: Corpus, folder: Path, models: Path, effort: Effort, form: Form) -> Iterator[Figure]:
    """Hand-written code has one connection, and commits together what so many writers would bring at a time."""
    requests, rows = form.requests(corpus), form.rows(corpus)
    stored = 0
    with served(folder, models, backend="sqlite", sqlite_path=str(folder / "store.db")) as service:
        for writers in effort.writers:

            def over_http(writers: int = writers) -> Sample:
                nonlocal stored
                sample = _over_http(service, requests, writers, effort, form)
                total = service.ask("/v1/stats")["total_entries"]
                _refuse_loss(sample, total - stored)
                stored = total
                return sample

            def bare(commit: int) -> Callable[[], Sample]:
                def run() -> Sample:
                    with service.paused():
                        side = SqliteSide(folder / "bare.db", rows, commit, effort.seconds)
                        return run_side("bare_writers", side, commit)

                return run

            together = writers * form.batch
            floors = {f"sqlite3, {together} a commit": bare(together)}
            yield from _figures("sqlite", form, writers, effort, over_http, floors)


def _over_http(service: Service, requests: list[bytes], writers: int, effort: Effort, form: Form) -> Sample:
    return run_side("load", HttpSide(service.port, requests, writers, effort.seconds), form.batch)


def _refuse_loss(sample: Sample, stored: int) -> None:
    answered = len(sample.milliseconds) * sample.size
    if stored < answered:
        raise RuntimeError(f"{answered} memories were answered with success and {stored} are there")


def _figures(
    store: str,
    form: Form,
    writers: int,
    effort: Effort,
    over_http: Callable[[], Sample],
    floors: Mapping[str, Callable[[], Sample]],
) -> Iterator[Figure]:
    """Beside every floor; what is promised is promised beside the first."""
    samples = by_turns(effort.rounds, {"service": over_http, **floors})
    case = f"{store}, {form}, {writers} writer{'s' if writers > 1 else ''}"
    promised = None
    if store == "postgresql" and writers == 16 and form.with_vectors:
        promised = 0.5 if form.batch == 1 else 0.7
    for name in floors:
        figure = rate_figure(PART, case, name, Comparison(samples["service"], samples[name]), promised)
        plotted = form.batch == 1 and form.with_vectors
        yield replace(figure, series=store, at=writers) if plotted else figure
        promised = None
    if writers == 64 and form.batch == 1:
        yield _promise(store, case, samples["service"])


def _promise(store: str, case: str, samples: list[Sample]) -> Figure:
    """What is promised of 64 writers."""
    together, ours = Sample.together(samples), Measured.of("service", samples)
    if store == "sqlite":
        target = Target("at least 500 a second", together.rate >= 500)
        return Figure(PART, case, ours, Measured("promise", rate=500), "rate", together.rate / 500, target=target)
    spread = together.percentile(99) / together.percentile(50)
    target = Target("p99 under ten times p50, no error", spread < 10 and not together.errors)
    return Figure(PART, case, ours, ours, "p99 to p50", spread, target=target)


def _all(corpus: Corpus) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    yield from corpus.variations(len(corpus))
