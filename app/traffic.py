"""The requests in flight, and how to stay out of their way."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

LULL_SECONDS = 0.005
"""No request for so long: a client that sends one after the other has the next one on its way until then."""

POLL_SECONDS = 0.005


class Kind(StrEnum):
    """What a request asks for; each kind has a bound of its own, so that none crowds out the other."""

    WRITES = "writes"
    SEARCHES = "searches"
    EVENT_STREAMS = "event streams"


class Traffic:
    """Counts the requests that a process answers."""

    def __init__(self) -> None:
        self.in_flight = dict.fromkeys(Kind, 0)
        self._last_ended = 0.0

    @contextmanager
    def counted(self, kind: Kind) -> Iterator[None]:
        """A request is in flight meanwhile."""
        self.in_flight[kind] += 1
        try:
            yield
        finally:
            self.in_flight[kind] -= 1
            self._last_ended = time.monotonic()

    @property
    def alone(self) -> bool:
        """Whether no more than one write or search is in flight."""
        return self._waiting() <= 1

    async def lull(self, limit_seconds: float) -> None:
        """Returns as soon as nobody waits for a write or a search, at the latest after about so many seconds."""
        for _ in range(round(limit_seconds / POLL_SECONDS)):
            if not self._flows():
                return
            await asyncio.sleep(POLL_SECONDS)

    def _flows(self) -> bool:
        return self._waiting() > 0 or time.monotonic() - self._last_ended < LULL_SECONDS

    def _waiting(self) -> int:
        return self.in_flight[Kind.WRITES] + self.in_flight[Kind.SEARCHES]
