"""The pool: opens it on a server that may be fresh, lends connections, and turns its errors into ours."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import asyncpg
import structlog
from pgvector.asyncpg import register_vector

from app.errors import InvalidInputError, SlowStatementError, UnavailableError
from app.store import migrate
from app.store.postgresql import extension, rights
from app.store.postgresql.faults import LOST, REFUSED, RESET_SECONDS, terminate, transaction_on
from app.store.postgresql.pool_connection import PLAN_EACH_TIME, PoolConnection
from app.store.postgresql.server import CONNECT_SECONDS, connect, one_line, too_many
from app.store.protocol import StoreLoad

MIGRATION_LOCK = 0x61667465_72696D67
"""Key of the advisory lock under which the schema is changed: "afterimg"."""

LOCK_POLL_SECONDS = 0.1

GRACE_SECONDS = 1.0
"""What the network may take on top of the time that the server allows a statement; then the connection is given up."""

CLOSE_SECONDS = 10.0
"""How long the end of the service waits for statements under way."""

log = structlog.get_logger(__name__)


class Connections:
    """A pool of asyncpg connections with the vector types known."""

    def __init__(
        self,
        parameters: dict[str, Any],
        min_size: int,
        max_size: int,
        acquire_timeout_seconds: float,
        statement_timeout_seconds: float,
        processes: int = 1,
    ) -> None:
        """`parameters` are those of `asyncpg.connect`: `dsn`, or `host`, `port`, `user`, `password`, `database`.

        `processes` is how many have such a pool each.
        """
        self._processes = processes
        self.parameters = parameters
        self._sizes = {"min_size": min_size, "max_size": max_size}
        self._acquire_timeout_seconds = acquire_timeout_seconds
        self._statement_timeout_seconds = statement_timeout_seconds
        self._pool: Any = None
        self.schema = "public"
        self._waiting = 0
        self._count = 0
        self._wait_seconds = 0.0
        self._returning: set[asyncio.Future[None]] = set()

    async def open(self) -> None:
        """Makes the extension and the tables, and opens the pool.

        Raises:
            StartupError: no connection, no extension, or a newer database.
        """
        connection = await connect(self.parameters)
        try:
            await self._prepare(connection)
            if problem := await too_many(connection, self._processes, self._sizes["max_size"]):
                log.warning("connections may run out", reason=problem)
        finally:
            await connection.close()
        await self.open_pool(self.schema)

    async def open_pool(self, schema: str) -> None:
        """Opens the pool and makes nothing, as on a standby; the vector types are in `schema`."""
        self.schema = schema
        timeout_milliseconds = str(int(self._statement_timeout_seconds * 1000))
        self._pool = await asyncpg.create_pool(
            **self.parameters,
            **self._sizes,
            connection_class=PoolConnection,
            init=self._register_types,
            reset=_keep_session,
            timeout=min(CONNECT_SECONDS, self._acquire_timeout_seconds),
            command_timeout=self.patience_seconds,
            server_settings={
                "application_name": "afterimage",
                "gin_pending_list_limit": "65536",
                # A process that vanished within a transaction must not hold what others wait for.
                "idle_in_transaction_session_timeout": timeout_milliseconds,
                "jit": "off",
                "plan_cache_mode": PLAN_EACH_TIME,
                "statement_timeout": timeout_milliseconds,
            },
        )

    async def close(self) -> None:
        """Waits for the connections in use and closes all; after a while it cuts those that are left."""
        if self._pool is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._pool.close()

    def cut(self) -> None:
        """Ends all connections, and what runs on them, at once; `open_pool` makes others."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None

    def acquire(self, *, keep_plans: bool | None = False) -> AbstractAsyncContextManager[Any]:
        """Lends a connection; see `PoolConnection` for its plans (None: as it was left, and the borrower must say so).

        Raises:
            UnavailableError: none became free in time, or the server is gone or silent.
            SlowStatementError: the server has ended a statement that took too long.
            InvalidInputError: the server refuses a value.
        """
        return _Loan(self, keep_plans)

    async def take(self) -> tuple[Any, Any]:
        """A connection, and the pool that it is to be given back to; raises what asyncpg does, or UnavailableError."""
        pool = self._pool
        if pool is None:
            raise asyncpg.InterfaceError("the pool is closed")
        began = time.perf_counter()
        self._waiting += 1
        try:
            connection = await pool.acquire(timeout=self._acquire_timeout_seconds)
        except TimeoutError:
            raise UnavailableError(
                f"no database connection was to be had within {self._acquire_timeout_seconds:g} s: all are in use, or "
                "PostgreSQL is silent; try again, or raise AFTERIMAGE_MAX_POOL_SIZE"
            ) from None
        finally:
            self._waiting -= 1
            self._wait_seconds += time.perf_counter() - began
        self._count += 1
        return connection, pool

    async def give_back(self, connection: Any, pool: Any) -> None:
        """Returns at once where another is free, else once this one is.

        Else whoever gives one back would come again before it is there to be taken: ahead of those who wait, or have
        one more opened.
        """
        returning = asyncio.ensure_future(_release(connection, pool))
        self._returning.add(returning)
        returning.add_done_callback(self._returning.discard)
        if self._waiting or not pool.get_idle_size():
            await asyncio.shield(returning)

    def raise_ours(self, error: BaseException) -> None:
        """Raises the error of ours that stands for one of asyncpg's, if any does."""
        if isinstance(error, TimeoutError):
            raise UnavailableError(
                f"PostgreSQL was silent for {self.patience_seconds:g} s; "
                "whether it has done what it was told is not known"
            ) from None
        if isinstance(error, asyncpg.QueryCanceledError):
            raise SlowStatementError(
                f"the statement ran longer than {self._statement_timeout_seconds:g} s "
                "(AFTERIMAGE_STATEMENT_TIMEOUT_SECONDS)"
            ) from None
        if isinstance(error, REFUSED):
            raise InvalidInputError(f"PostgreSQL refuses a value: {one_line(error)}") from error
        if isinstance(error, LOST):
            raise UnavailableError(f"PostgreSQL does not answer: {one_line(error)}") from error

    @property
    def patience_seconds(self) -> float:
        """How long to wait for the answer to a statement: longer than the server lets it run."""
        return self._statement_timeout_seconds + GRACE_SECONDS

    def load(self) -> StoreLoad:
        """How busy the pool is."""
        return StoreLoad(
            self._pool.get_size(), self._pool.get_idle_size(), self._waiting, self._count, self._wait_seconds
        )

    @asynccontextmanager
    async def transaction(self, *, keep_plans: bool = False) -> AsyncIterator[Any]:
        """Lends a connection within a transaction."""
        async with self.acquire(keep_plans=keep_plans) as connection, transaction_on(connection):
            yield connection

    @asynccontextmanager
    async def outside_pool(self) -> AsyncIterator[Any]:
        """A connection of its own, for work that takes minutes and must keep none from the others.

        Raises:
            UnavailableError: the server is gone.
        """
        try:
            connection = await asyncpg.connect(**self.parameters, timeout=self._acquire_timeout_seconds)
        except (*LOST, TimeoutError) as error:
            raise UnavailableError(f"PostgreSQL does not answer: {one_line(error)}") from error
        try:
            yield connection
        finally:
            with suppress(*LOST):
                await connection.close(timeout=RESET_SECONDS)

    async def _register_types(self, connection: Any) -> None:
        await register_vector(connection, schema=self.schema)

    async def _prepare(self, connection: Any) -> None:
        """Extension and tables, in one transaction, under a lock that any number of starting processes may want.

        The lock is polled: waiting for it in the server would hold a snapshot, and deadlock with an index that another
        process builds concurrently.
        """
        while True:
            async with connection.transaction():
                if await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", MIGRATION_LOCK):
                    await self._ensure_extension(connection)
                    await self._migrate(connection)
                    return
            await asyncio.sleep(LOCK_POLL_SECONDS)

    async def _ensure_extension(self, connection: Any) -> None:
        found = await extension.find(connection)
        if found is None:
            found = await extension.create(connection)
        self.schema = found.schema
        extension.refuse_old(found)
        if found.is_unsound:
            log.warning(
                "pgvector before 0.8.4 can corrupt an HNSW index", version=found.version, mend=found.update_command
            )

    async def _migrate(self, connection: Any) -> None:
        user = await rights.refuse_missing(connection)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations "
            "(version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        applied = await connection.fetchval("SELECT coalesce(max(version), 0) FROM schema_migrations")
        for migration in migrate.pending("postgresql", applied):
            try:
                await connection.execute(migration.sql)
            except asyncpg.InsufficientPrivilegeError as error:
                raise rights.not_owner(user, one_line(error)) from None
            await connection.execute("INSERT INTO schema_migrations (version) VALUES ($1)", migration.version)
            log.info("migrated", version=migration.version)


class _Loan:
    """A connection while it is lent; one on which a statement was abandoned is never used again.

    A class rather than a generator, for whose bookkeeping each search would pay several times.
    """

    __slots__ = ("_connection", "_connections", "_keep_plans", "_pool")

    def __init__(self, connections: Connections, keep_plans: bool | None) -> None:
        self._connections = connections
        self._keep_plans = keep_plans

    async def __aenter__(self) -> Any:
        try:
            self._connection, self._pool = await self._connections.take()
        except Exception as error:
            self._connections.raise_ours(error)
            raise
        if self._keep_plans is not None:
            try:
                await self._connection.keep_plans(self._keep_plans)
            except BaseException as error:
                await self.__aexit__(type(error), error, None)
                raise
        return self._connection

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, asyncio.CancelledError):
            terminate(self._connection)
        elif isinstance(error, TimeoutError | asyncpg.ReadOnlySQLTransactionError):
            # What is silent, or no longer the primary, is so for the idle ones too, which do not notice.
            terminate(self._connection)
            await self._pool.expire_connections()
        await self._connections.give_back(self._connection, self._pool)
        if error is not None:
            self._connections.raise_ours(error)


async def _release(connection: Any, pool: Any) -> None:
    try:
        if connection.is_in_transaction():  # which only read, or failed
            await connection.execute("ROLLBACK", timeout=RESET_SECONDS)
    except Exception:  # noqa: BLE001 - it is closed already, or of no use any more
        terminate(connection)
    with suppress(*LOST):  # what was done stands, and the pool cuts what it cannot take back
        await pool.release(connection, timeout=RESET_SECONDS)


async def _keep_session(connection: Any) -> None:
    """Spares the round trip that would reset a connection: settings and locks of ours end with their transaction.

    `_release` rolls back one that is still open; whether plans are kept is seen to by each loan.
    """
