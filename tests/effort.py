"""How much of a long test to do: enough to fail when something breaks, or all that we promise (`make test-full`)."""

import os
from typing import TypeVar

T = TypeVar("T")

FULL = bool(os.environ.get("FULL"))


def effort(usual: T, *, full: T) -> T:
    return full if FULL else usual
