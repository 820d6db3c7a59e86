"""How connections fail, and how they are ended without waiting for a server that is silent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

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
