"""Starts the service's own PostgreSQL again when it has died."""

import asyncio

import structlog

from app.errors import StartupError
from app.store.embedded import EmbeddedPostgres

PAUSE_SECONDS = 0.5
"""Between two looks; a look is a try of two locks."""

RETRY_SECONDS = 10.0
"""After a start that failed."""

log = structlog.get_logger(__name__)


class EmbeddedWatch:
    """One loop; of several processes that use the same server, one starts it."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        """`server` must be started."""
        self._server = server
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.create_task(self._run(), name="embedded-postgresql")

    async def stop(self) -> None:
        """Ends the loop; a start under way goes on, and the locks make the server's stop wait for it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            try:
                if await asyncio.to_thread(self._server.revive):
                    log.warning("the service's own PostgreSQL had died and was started again")
            except (StartupError, OSError) as error:
                log.error("the service's own PostgreSQL has died and does not start", reason=str(error))  # noqa: TRY400 - the message says it all
                await asyncio.sleep(RETRY_SECONDS)
