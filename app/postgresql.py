"""The part of the composition root that PostgreSQL needs: its own server, pools, standbys."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import structlog

from app.settings import Settings
from app.store.embedded import EmbeddedPostgres
from app.store.embedded_watch import EmbeddedWatch
from app.store.postgresql import PostgresStore
from app.store.postgresql.connections import Connections
from app.store.postgresql.reads import Reads
from app.store.postgresql.server import at_address
from app.store.postgresql.standby import Standby

log = structlog.get_logger(__name__)


async def open_postgresql(settings: Settings, model: str, stack: AsyncExitStack) -> PostgresStore:
    """The store, to be opened, on a URL, on the parts of one, or on the service's own server, whichever is given first.

    Raises:
        StartupError: the service's own server does not start.
    """
    parameters = settings.connection_parameters
    if settings.runs_own_postgres:
        parameters = {"dsn": await _own_server(settings, stack)}
    connections = _pool(settings, parameters)
    reads = Reads(connections, _standbys(settings), settings.pg_max_lag_seconds)
    return PostgresStore(connections, model, settings.exact_search_limit, reads)


async def _own_server(settings: Settings, stack: AsyncExitStack) -> str:
    """Its URL; it is watched, and stopped with the stack."""
    server = EmbeddedPostgres(settings.postgres_folder)
    url = await asyncio.to_thread(server.start)
    stack.push_async_callback(asyncio.to_thread, server.stop)
    log.info("the service's own PostgreSQL runs", folder=str(server.home))
    watch = EmbeddedWatch(server)
    watch.start()
    stack.push_async_callback(watch.stop)
    return url


def _standbys(settings: Settings) -> list[Standby]:
    found = []
    for name, host, port in settings.pg_read_hosts or ():
        parameters = at_address(settings.connection_parameters, host, port)
        found.append(Standby(name, parameters, _pool(settings, parameters)))
    return found


def _pool(settings: Settings, parameters: dict[str, Any]) -> Connections:
    return Connections(
        parameters,
        settings.min_pool_size,
        settings.max_pool_size,
        settings.acquire_timeout_seconds,
        settings.statement_timeout_seconds,
        processes=settings.workers,
    )
