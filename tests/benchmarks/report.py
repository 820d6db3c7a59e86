"""Figures beside their floor or peer, as a table and as JSON."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from tests.benchmarks.sides import Comparison, Sample


@dataclass(frozen=True, slots=True)
class Measured:
    """What one side did, in numbers."""

    name: str
    rate: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    errors: int = 0
    value: float | None = None

    @staticmethod
    def of(name: str, samples: list[Sample]) -> "Measured":
        """All rounds together."""
        all_rounds = Sample.together(samples)
        p50, p95, p99 = (round(all_rounds.percentile(percent), 2) for percent in (50, 95, 99))
        return Measured(name, round(all_rounds.rate, 1), p50, p95, p99, sum(all_rounds.errors.values()))


@dataclass(frozen=True, slots=True)
class Target:
    """What is promised, and whether it was so in this run."""

    promise: str
    met: bool


@dataclass(frozen=True, slots=True)
class Figure:
    """One comparison; `ratio` is what `of` says, `excess_ms` how far our p50 is above theirs.

    In a plot it is the point of `series` at `at`.
    """

    part: str
    case: str
    ours: Measured
    theirs: Measured
    of: str
    ratio: float | None
    excess_ms: float | None = None
    target: Target | None = None
    series: str | None = None
    at: int | None = None


def rate_figure(part: str, case: str, name: str, compared: Comparison, at_least: float | None = None) -> Figure:
    """How many times as many rows a second."""
    ratio = compared.rate_ratio
    target = None if at_least is None else Target(f"at least {at_least:g}", ratio >= at_least)
    ours, theirs = Measured.of("service", compared.ours), Measured.of(name, compared.theirs)
    return Figure(part, case, ours, theirs, "rate", round(ratio, 3), target=target)


def show(figure: Figure) -> None:
    """Prints a row of the table."""
    verdict = "" if figure.target is None else f"{figure.target.promise}: {'yes' if figure.target.met else 'NO'}"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f} ({figure.of})"
    excess = "" if figure.excess_ms is None else f"{figure.excess_ms:+.1f} ms"
    cells = [figure.part, figure.case, _cell(figure.ours), _cell(figure.theirs), ratio, excess, verdict]
    print("| " + " | ".join(cells) + " |", flush=True)


def show_head() -> None:
    """Prints the head of the table."""
    print("| part | case | service | floor or peer | ratio | p50 above | promised |")
    print("|---|---|---|---|---|---|---|", flush=True)


def as_json(figures: Sequence[Figure]) -> str:
    """Everything, with the machine it was measured on."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"at": at, "machine": machine, "figures": [asdict(figure) for figure in figures]}, indent=1)


def _cell(measured: Measured) -> str:
    words = [measured.name + ":"]
    if measured.value is not None:
        words.append(f"{measured.value:,g}")
    if measured.rate is not None:
        words.append(f"{measured.rate:,.0f}/s,")
    if measured.p50_ms is not None:
        words.append(f"p50 {measured.p50_ms:g} p95 {measured.p95_ms:g} p99 {measured.p99_ms:g} ms")
    if measured.errors:
        words.append(f"({measured.errors} errors)")
    return " ".join(words).rstrip(",")
