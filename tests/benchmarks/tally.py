"""What a side of a benchmark counts in its own process, and how it tells the outcome."""

import json
import sys
import time
from collections import Counter
from typing import Any

WARM_UP_SECONDS = 0.3
"""Not counted: connections are opened, statements prepared, caches filled."""


class Tally:
    """Counts what is finished after the warm-up; what is in hand when the time is over is still waited for.

    The seconds last until the end of the last, so that what is slow is counted as well as what is quick.
    """

    def __init__(self, seconds: float) -> None:
        self._begin = self._last = time.perf_counter() + min(WARM_UP_SECONDS, seconds)
        self._end = self._begin + seconds
        self._finished: list[float] = []
        self._errors: Counter[str] = Counter()

    @property
    def over(self) -> bool:
        """True once nothing more is to be begun."""
        return time.perf_counter() >= self._end

    def note(self, started: float, error: str | None = None) -> None:
        """Something that was begun at a `time.perf_counter()` has ended now; an error counts at any time."""
        now = time.perf_counter()
        if error is not None:
            self._errors[error] += 1
        elif now >= self._begin:
            self._finished.append(1000 * (now - started))
            self._last = now

    def tell(self) -> None:
        """Prints everything, for `sides.run_side`."""
        told: dict[str, Any] = {
            "seconds": max(self._last - self._begin, 1e-9),
            "milliseconds": [round(value, 3) for value in self._finished],
            "errors": self._errors,
        }
        json.dump(told, sys.stdout)
