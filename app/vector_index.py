"""Sees to it in the background that there is an index once there are many vectors."""

import structlog

from app.logs import describe
from app.store.embedding_protocol import EmbeddingStore, ModelStore
from app.upkeep import Upkeep

PAUSE_SECONDS = 10.0
"""Between two looks; what a look costs is a count that ends at the first vector too many."""

log = structlog.get_logger(__name__)


class VectorIndexUpkeep(Upkeep):
    """Looks after the model that is searched; that only one process at a time builds is the store's affair."""

    name = "vector-index"

    def __init__(self, store: EmbeddingStore, models: ModelStore, *, pause_seconds: float = PAUSE_SECONDS) -> None:
        super().__init__()
        self._store = store
        self._models = models
        self._pause_seconds = pause_seconds

    async def look(self) -> float:
        """Builds the index when it is time; one that a stop leaves half built is built anew after the next start."""
        try:
            await self._store.ensure_index((await self._models.get()).active)
        except Exception as error:  # noqa: BLE001 - searches do without the index, and the next look tries again
            log.warning("the index of the vectors is built later", reason=describe(error))
        return self._pause_seconds
