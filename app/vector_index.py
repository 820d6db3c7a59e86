"""Sees to it in the background that there is an index once there are many vectors."""

import asyncio

import structlog

from app.logs import describe
from app.store.embedding_protocol import EmbeddingStore, ModelStore

PAUSE_SECONDS = 10.0
"""Between two looks; what a look costs is a count that ends at the first vector too many."""

log = structlog.get_logger(__name__)


class VectorIndexUpkeep:
    """One loop, for the model that is searched; that only one process at a time builds is the store's affair."""

    def __init__(self, store: EmbeddingStore, models: ModelStore, *, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._store = store
        self._models = models
        self._pause_seconds = pause_seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look, and to build when it is time."""
        self._task = asyncio.create_task(self._run(), name="vector-index")

    async def stop(self) -> None:
        """Ends the loop; an index that is half built is built anew after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            try:
                await self._store.ensure_index((await self._models.get()).active)
            except Exception as error:  # noqa: BLE001 - searches do without the index, and the next look tries again
                log.warning("the index of the vectors is built later", reason=describe(error))
            await asyncio.sleep(self._pause_seconds)
