"""Starts the service's own PostgreSQL again when it has died."""

import asyncio

import structlog

from app.errors import StartupError
from app.store.embedded import EmbeddedPostgres
from app.upkeep import Upkeep

PAUSE_SECONDS = 0.5
"""Between two looks; a look is a try of two locks."""

RETRY_SECONDS = 10.0
"""After a start that failed."""

log = structlog.get_logger(__name__)


class EmbeddedWatch(Upkeep):
    """Of several processes that use the same server, one starts it."""

    name = "embedded-postgresql"

    def __init__(self, server: EmbeddedPostgres) -> None:
        """`server` must be started."""
        super().__init__()
        self._server = server

    async def look(self) -> float:
        """Starts the server; when told to stop meanwhile that goes on, and the locks make the server's stop wait."""
        try:
            if await asyncio.to_thread(self._server.revive):
                log.warning("the service's own PostgreSQL had died and was started again")
        except (StartupError, OSError) as error:
            log.error("the service's own PostgreSQL has died and does not start", reason=str(error))  # noqa: TRY400 - the message says it all
            return RETRY_SECONDS
        return PAUSE_SECONDS
