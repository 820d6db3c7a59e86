"""Sees to it in the background that searches need not read new words one memory after the other."""

import structlog

from app.logs import describe
from app.store.protocol import MemoryStore
from app.upkeep import Upkeep

PAUSE_SECONDS = 2.0
"""Between two looks: the more words are merged at once, the less each costs, and the slower are searches until then."""

log = structlog.get_logger(__name__)


class WordIndexUpkeep(Upkeep):
    """Looks after the index of words; that only one process at a time merges is the store's affair."""

    name = "word-index"

    def __init__(self, store: MemoryStore) -> None:
        super().__init__()
        self._store = store

    async def look(self) -> float:
        """Merges what was stored since the last look."""
        try:
            await self._store.merge_words()
        except Exception as error:  # noqa: BLE001 - searches read unmerged words too, and the next look tries again
            log.warning("new words are merged into their index later", reason=describe(error))
        return PAUSE_SECONDS
