"""Keeps the document frequencies, which the rank of a text search needs, up to date in the background."""

import time

import structlog

from app.logs import describe
from app.store.protocol import MemoryStore
from app.upkeep import Upkeep

PAUSE_SECONDS = 2.0
"""Between two looks, at least."""

SHARE = 0.02
"""Of the time that looks and counts may take at most: the more memories, the rarer the looks."""

MAX_PAUSE_SECONDS = 10.0

log = structlog.get_logger(__name__)


class Frequencies(Upkeep):
    """Finds projects that have grown or shrunk."""

    name = "word-frequencies"

    def __init__(self, store: MemoryStore, *, pause_seconds: float = PAUSE_SECONDS) -> None:
        super().__init__()
        self._store = store
        self._pause_seconds = pause_seconds

    async def look(self) -> float:
        """Counts their words anew."""
        started = time.monotonic()
        try:
            await self._store.refresh_frequencies()
        except Exception as error:  # noqa: BLE001 - searches do with older counts, and the next look tries again
            log.warning("words are counted later", reason=describe(error))
        spent = time.monotonic() - started
        return max(self._pause_seconds, min(spent / SHARE, MAX_PAUSE_SECONDS))
