"""Time of a search by size, over HTTP, and of the same statements and model calls without a service."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, combinations_with_replacement, islice
from pathlib import Path
from random import Random

import asyncpg
import numpy as np
from pgvector import HalfVector
from pgvector.asyncpg import register_vector
from uuid_utils.compat import uuid7

from app.search import SearchMode
from app.settings import Settings
from tests.benchmarks.bare_searches import SearchSide
from tests.benchmarks.bare_writers import MANY
from tests.benchmarks.recorded import LIMIT, record
from tests.benchmarks.report import Figure, Measured, Target
from tests.benchmarks.rows import Corpus, bare_row, request
from tests.benchmarks.served import execute, new_database, scratch_postgres, served
from tests.benchmarks.sides import Comparison, HttpSide, Sample, by_turns, run_side

PART = "searches"
SIZES = (5_000, 50_000)
LARGE = 500_000
QUERIES = 200
"""Of each side in each round, at most."""
MAX_EXCESS_MS = 2.0
MAX_SEMANTIC_MS = 12.0


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure, and among how many memories."""

    seconds: float = 1.5
    rounds: int = 3
    sizes: tuple[int, ...] = SIZES
    queries: int = QUERIES
    modes: tuple[SearchMode, ...] = tuple(SearchMode)


def measure(corpus: Corpus, folder: Path, models: Path, effort: Effort) -> Iterator[Figure]:
    """All modes, at growing sizes, in one database that both sides read."""
    with scratch_postgres(folder / "postgres") as url:
        database = new_database(url, "searched")
        stored = 0
        for size in effort.sizes:
            fill_database(database, corpus, stored, size)
            stored = size
            yield from at_size(corpus, folder / f"service-{size}", models, effort, size, database)


def at_size(corpus: Corpus, folder: Path, models: Path, effort: Effort, size: int, database: str) -> Iterator[Figure]:
    """All modes. No query is asked again, by either side: its vector and its pages would be at hand."""
    parts = parted(distinct_queries(corpus.queries), 2 * len(effort.modes), effort.rounds + 1, effort.queries)
    asked = dict(zip(effort.modes, parts, strict=False))
    replayed = dict(zip(effort.modes, parts[len(effort.modes) :], strict=True))
    settings = Settings.model_validate(
        {"database_url": database, "models_folder": models, "spool_folder": folder / "spool"}
    )
    plans = asyncio.run(record(settings, {mode: [*chain(*rounds)] for mode, rounds in replayed.items()}))
    with served(folder, models, database_url=database) as service:

        def over_http(mode: SearchMode) -> Callable[[], Sample]:
            rounds = iter(asked[mode])

            def run() -> Sample:
                bodies = [request(f"/v1/search/{mode}", {"query": query, "limit": LIMIT}) for query in next(rounds)]
                return run_side("load", HttpSide(service.port, bodies, 1, effort.seconds, once=True))

            return run

        def bare(mode: SearchMode) -> Callable[[], Sample]:
            rounds = iter(replayed[mode])

            def run() -> Sample:
                those = [plans[mode][query] for query in next(rounds)]
                with service.paused():
                    return run_side("bare_searches", SearchSide(database, models, those, effort.seconds))

            return run

        for mode in effort.modes:
            samples = by_turns(effort.rounds, {"service": over_http(mode), "bare": bare(mode)})
            yield _figure(mode, size, Comparison(samples["service"], samples["bare"]))


def _figure(mode: SearchMode, size: int, compared: Comparison) -> Figure:
    excess, total = compared.excess(50), Sample.together(compared.ours).percentile(50)
    target = None
    if mode is SearchMode.SEMANTIC and size == min(SIZES):
        met = excess <= MAX_EXCESS_MS and total < MAX_SEMANTIC_MS
        target = Target(f"at most {MAX_EXCESS_MS:g} ms above, under {MAX_SEMANTIC_MS:g} ms in all", met)
    elif mode is not SearchMode.HYBRID:
        target = Target(f"at most {MAX_EXCESS_MS:g} ms above", excess <= MAX_EXCESS_MS)
    name = "asyncpg" if mode is SearchMode.FTS else "asyncpg and model"
    ours, theirs = Measured.of("service", compared.ours), Measured.of(name, compared.theirs)
    case = f"{mode} among {size:,}"
    ratio = round(compared.ratio(50), 3)
    return Figure(PART, case, ours, theirs, "p50", ratio, round(excess, 2), target, str(mode), size)


def distinct_queries(sentences: Sequence[str]) -> list[str]:
    """Each sentence, and each again without one or two of its words, in a random order that is always the same."""
    found = dict.fromkeys(sentences)
    for left_out in combinations_with_replacement(range(12), 2):
        for sentence in sentences:
            words = sentence.split()
            if len(words) > max(3, *left_out):
                found[" ".join(word for at, word in enumerate(words) if at not in left_out)] = None
    return Random(0).sample([*found], len(found))


def parted(queries: Sequence[str], sides: int, rounds: int, limit: int) -> list[list[list[str]]]:
    """Of each side, of each round, so many queries or fewer: as many for all, and no two have one in common."""
    each = min(limit, len(queries) // (sides * rounds))
    parts = [list(queries[at : at + each]) for at in range(0, sides * rounds * each, each)]
    return [parts[side * rounds : (side + 1) * rounds] for side in range(sides)]


def fill_database(url: str, corpus: Corpus, start: int, stop: int) -> None:
    """Stores memories with vectors, a minute apart, and lets the planner know."""
    asyncio.run(_fill(url, corpus, start, stop))
    execute(url, "VACUUM ANALYZE")


async def _fill(url: str, corpus: Corpus, start: int, stop: int) -> None:
    connection = await asyncpg.connect(url)
    await register_vector(connection)
    rows = islice(corpus.variations(stop), start, None)
    first = datetime.now(UTC) - timedelta(minutes=stop)
    for at in range(start, stop, 1000):
        batch = [bare_row(path, code, vector) for path, code, vector in islice(rows, 1000)]
        await connection.execute(
            MANY,
            [uuid7() for _ in batch],
            [row.file_path for row in batch],
            [row.new_code for row in batch],
            [row.language for row in batch],
            [first + timedelta(minutes=at + number) for number in range(len(batch))],
            [row.words for row in batch],
            [HalfVector(np.frombuffer(row.halves or b"", dtype="<f2")) for row in batch],
        )
    await connection.close()
