"""Deletes the answers to repeatable writes once they have been kept for long enough."""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from app.store.idempotency import IdempotencyStore

KEPT_TIME = timedelta(hours=24)

PORTION = 500
"""Answers that one transaction deletes at most."""

PAUSE_SECONDS = 60.0
"""Between two looks that found less than a portion."""

log = structlog.get_logger(__name__)


class Sweep:
    """One loop; any number of processes may run it on the same store."""

    def __init__(
        self, store: IdempotencyStore, *, portion: int = PORTION, pause_seconds: float = PAUSE_SECONDS
    ) -> None:
        self._store = store
        self._portion = portion
        self._pause_seconds = pause_seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look for answers that are old enough."""
        self._task = asyncio.create_task(self._run(), name="sweep")

    async def stop(self) -> None:
        """Ends the loop; a portion in hand is undone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            swept = 0
            try:
                swept = await self._store.sweep(datetime.now(UTC) - KEPT_TIME, self._portion)
            except Exception as error:  # noqa: BLE001 - they lie there a little longer, and the next look tries again
                log.warning("old answers are deleted later", reason=str(error))
            if swept < self._portion:
                await asyncio.sleep(self._pause_seconds)
