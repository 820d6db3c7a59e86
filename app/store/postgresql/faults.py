"""How connections fail, and how they are ended without waiting for a server that is silent."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

PLAN_EACH_TIME = "force_custom_plan"
"""The value of plan_cache_mode that a connection begins with."""

PLAN_SECONDS = 10.0
"""How long plans are kept. One that was made of an empty table reads all of it when it is full, until PostgreSQL has
counted it anew, which may take a minute."""

RESET_SECONDS = 2.0
"""How long a connection may take to be reset or closed before it is cut."""

REFUSED = (asyncpg.DataError, asyncpg.ProgramLimitExceededError)

LOST = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # an answer cut off in the middle; or none of several hosts is the primary
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
"""What a server answers that is down, about to be, or no longer the primary, and what is said if it does not answer."""


class PoolConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection whose end never hangs, and that plans a statement each time it runs unless told to keep plans.

    With optional filters the plan for those that are given may be 20 times as fast as one for any. Where there are
    none, as in what stores memories, planning takes a third of the time: of the statement, and of the check of each
    key.
    """

    __slots__ = ("_planned_at", "_plans_kept")

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._plans_kept = False
        self._planned_at = 0.0

    async def keep_plans(self, kept: bool) -> None:
        """Whether to do so from now on; the server is told where that changes, or where those that are kept are old."""
        now = time.monotonic()
        if kept != self._plans_kept:
            mode = "auto; DISCARD PLANS" if kept else PLAN_EACH_TIME
            await self.execute(f"SET plan_cache_mode = {mode}")
        elif kept and now - self._planned_at > PLAN_SECONDS:
            await self.execute("DISCARD PLANS")
        else:
            return
        self._plans_kept, self._planned_at = kept, now

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Says goodbye, or cuts the connection where nobody listens any more."""
        with suppress(*LOST):
            await super().close(timeout=RESET_SECONDS if timeout is None else timeout)


@asynccontextmanager
async def transaction_on(connection: Any) -> AsyncIterator[None]:
    """A transaction, which ends with its connection where a statement was abandoned: a rollback would wait for it."""
    try:
        await connection.execute("BEGIN")
        yield
    except (TimeoutError, asyncio.CancelledError):
        terminate(connection)
        raise
    except BaseException:
        await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")


def terminate(connection: Any) -> None:
    """Cuts a connection of a pool, unless it is gone already."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()
