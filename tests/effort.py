"""How much of a long test to do: enough to fail when something breaks, or all that we promise (`make test-full`)."""

import os

FULL = bool(os.environ.get("FULL"))


def effort(usual: int, *, full: int) -> int:
    return full if FULL else usual
