"""Keeps the document frequencies, which the rank of a text search needs, up to date in the background."""

import asyncio
import time

import structlog

from app.logs import describe
from app.store.protocol import MemoryStore

PAUSE_SECONDS = 2.0
"""Between two looks, at least."""

SHARE = 0.02
"""Of the time that looks and counts may take at most: the more memories, the rarer the looks."""

MAX_PAUSE_SECONDS = 10.0

log = structlog.get_logger(__name__)


class Frequencies:
    """One loop; any number of processes may run it on the same store."""

    def __init__(self, store: MemoryStore, *, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._store = store
        self._pause_seconds = pause_seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look for projects that have grown or shrunk."""
        self._task = asyncio.create_task(self._run(), name="word-frequencies")

    async def stop(self) -> None:
        """Ends the loop; a count in hand is undone and made again after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            started = time.monotonic()
            try:
                await self._store.refresh_frequencies()
            except Exception as error:  # noqa: BLE001 - searches do with older counts, and the next look tries again
                log.warning("words are counted later", reason=describe(error))
            spent = time.monotonic() - started
            await asyncio.sleep(max(self._pause_seconds, min(spent / SHARE, MAX_PAUSE_SECONDS)))
