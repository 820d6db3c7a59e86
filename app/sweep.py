"""Deletes the answers to repeatable writes once they have been kept for long enough."""

from datetime import UTC, datetime, timedelta

import structlog

from app.logs import describe
from app.store.idempotency import IdempotencyStore
from app.upkeep import Upkeep

KEPT_TIME = timedelta(hours=24)

PORTION = 500
"""Answers that one transaction deletes at most."""

PAUSE_SECONDS = 60.0
"""Between two looks that found less than a portion."""

log = structlog.get_logger(__name__)


class Sweep(Upkeep):
    """Finds answers that are old enough."""

    name = "sweep"

    def __init__(
        self, store: IdempotencyStore, *, portion: int = PORTION, pause_seconds: float = PAUSE_SECONDS
    ) -> None:
        super().__init__()
        self._store = store
        self._portion = portion
        self._pause_seconds = pause_seconds

    async def look(self) -> float:
        """Deletes a portion."""
        swept = 0
        try:
            swept = await self._store.sweep(datetime.now(UTC) - KEPT_TIME, self._portion)
        except Exception as error:  # noqa: BLE001 - they lie there a little longer, and the next look tries again
            log.warning("old answers are deleted later", reason=describe(error))
        return 0 if swept == self._portion else self._pause_seconds
