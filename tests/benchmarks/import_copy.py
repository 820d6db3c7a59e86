"""An import against COPY of the same rows, on the same server."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.imports import ROWS, copied_to, database, imported, written
from tests.benchmarks.report import Figure, Measured
from tests.benchmarks.served import scratch_postgres
from tests.benchmarks.sides import Comparison, Sample, by_turns

PART = "import"


def measure(folder: Path, rounds: int) -> Iterator[Figure]:
    """A file of AI-AfterImage with vectors, each round into databases of its own."""
    source = written(folder / "memory.db")
    with scratch_postgres(folder / "postgres") as url:
        turn = 0

        def fresh() -> str:
            nonlocal turn
            turn += 1
            return asyncio.run(database(url, f"import_{turn}"))

        def ours() -> Sample:
            return _at(asyncio.run(imported(fresh(), source, folder, validate=False)))

        def copied() -> Sample:
            return _at(asyncio.run(copied_to(fresh(), source, folder)))

        samples = by_turns(rounds, {"ours": ours, "copied": copied})
    compared = Comparison(samples["ours"], samples["copied"])
    rates = [round(Sample.together(side).rate, 1) for side in (compared.ours, compared.theirs)]
    theirs = Measured("COPY, bare tables", rate=rates[1])
    case = f"{ROWS:,} memories with vectors"
    yield Figure(PART, case, Measured("import", rate=rates[0]), theirs, "rate", round(compared.rate_ratio, 3))


def _at(rate: float) -> Sample:
    """All rows at a rate."""
    return Sample(ROWS / rate, [1000 * ROWS / rate], size=ROWS)
