"""Two sides of a comparison, each run in a process of its own, by turns, so that what else the machine does cancels."""

import json
import pickle
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

DEADLINE_SECONDS = 120
"""No side takes this long."""


@dataclass(frozen=True, slots=True)
class HttpSide:
    """Requests to a service; each connection sends them all, beginning at a place of its own.

    It begins again after the last one, or ends there if it is to send them `once`.
    """

    port: int
    requests: list[bytes]
    connections: int
    seconds: float
    once: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """What one side did: how often, in how many seconds, how long each took, and what failed.

    `size` is how many rows each brought in; `rate` counts rows.
    """

    seconds: float
    milliseconds: list[float]
    errors: Mapping[str, int] = field(default_factory=dict)
    size: int = 1

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.size * len(self.milliseconds) / self.seconds

    def percentile(self, percent: int) -> float:
        """In milliseconds; NaN if nothing was finished."""
        times = sorted(self.milliseconds)
        return times[min(len(times) * percent // 100, len(times) - 1)] if times else float("nan")

    @staticmethod
    def together(samples: list["Sample"]) -> "Sample":
        """All rounds of one side as one."""
        errors: dict[str, int] = {}
        for sample in samples:
            for error, count in sample.errors.items():
                errors[error] = errors.get(error, 0) + count
        return Sample(
            sum(sample.seconds for sample in samples),
            [value for sample in samples for value in sample.milliseconds],
            errors,
            samples[0].size,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rounds of two sides; ratios and differences are medians over the rounds."""

    ours: list[Sample]
    theirs: list[Sample]

    @property
    def rate_ratio(self) -> float:
        """Our rate in theirs."""
        return self._median(lambda ours, theirs: ours.rate / theirs.rate if theirs.rate else float("inf"))

    def ratio(self, percent: int) -> float:
        """Our percentile in theirs."""
        return self._median(lambda ours, theirs: ours.percentile(percent) / theirs.percentile(percent))

    def excess(self, percent: int) -> float:
        """Milliseconds that ours is above theirs at a percentile."""
        return self._median(lambda ours, theirs: ours.percentile(percent) - theirs.percentile(percent))

    def _median(self, compared: Callable[[Sample, Sample], float]) -> float:
        return statistics.median(compared(*pair) for pair in zip(self.ours, self.theirs, strict=True))


def by_turns(rounds: int, sides: Mapping[str, Callable[[], Sample]]) -> dict[str, list[Sample]]:
    """Every side once a round; every other round in reverse, so that none always follows the same one.

    One round before them does not count: whatever keeps what it has seen has seen it then, on every side.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in sides}
    for number in range(-1, rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            sample = sides[name]()
            if number >= 0:
                samples[name].append(sample)
    return samples


def run_side(module: str, side: Any, size: int = 1, python: str = sys.executable) -> Sample:
    """Runs a side in a fresh process of a module of this package and waits for what it tells."""
    return end_side(start_side(module, side, python), size)


def start_side(module: str, side: Any, python: str = sys.executable) -> "subprocess.Popen[bytes]":
    """The same without waiting."""
    process = subprocess.Popen(
        [python, "-m", f"tests.benchmarks.{module}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    pickle.dump(side, process.stdin)
    process.stdin.close()
    process.stdin = None
    return process


def end_side(process: "subprocess.Popen[bytes]", size: int = 1) -> Sample:
    """Waits for a side that was started."""
    try:
        out, _ = process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        process.kill()
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    return Sample(**json.loads(out), size=size)
