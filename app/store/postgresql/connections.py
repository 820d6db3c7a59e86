"""The pool: opens it on a server that may be fresh, lends connections, and turns its errors into ours."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import structlog
from pgvector.asyncpg import register_vector

from app.errors import StartupError, UnavailableError
from app.store import migrate

MIGRATION_LOCK = 0x61667465_72696D67
"""Key of the advisory lock under which the schema is changed: "afterimg"."""

LOCK_POLL_SECONDS = 0.1

OLDEST_PGVECTOR = (0, 8, 0)
"""The first with iterative index scans."""

SOUND_PGVECTOR = (0, 8, 4)
"""Older ones can corrupt or break an HNSW index."""

LOST = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
)

log = structlog.get_logger()


class Connections:
    """A pool of asyncpg connections with the vector types known."""

    def __init__(
        self,
        parameters: dict[str, Any],
        min_size: int,
        max_size: int,
        acquire_timeout_seconds: float,
        statement_timeout_seconds: float,
    ) -> None:
        """`parameters` are those of `asyncpg.connect`: `dsn`, or `host`, `port`, `user`, `password`, `database`."""
        self._parameters = parameters
        self._sizes = {"min_size": min_size, "max_size": max_size}
        self._acquire_timeout_seconds = acquire_timeout_seconds
        self._statement_timeout_seconds = statement_timeout_seconds
        self._schema = "public"

    async def open(self) -> None:
        """Makes the extension and the tables, and opens the pool.

        Raises:
            StartupError: no connection, no extension, or a newer database.
        """
        connection = await self._connect()
        try:
            await self._prepare(connection)
        finally:
            await connection.close()
        self._pool = await asyncpg.create_pool(
            **self._parameters,
            **self._sizes,
            init=self._register_types,
            server_settings={
                "application_name": "afterimage",
                "gin_pending_list_limit": "65536",
                "plan_cache_mode": "force_custom_plan",
                "statement_timeout": str(int(self._statement_timeout_seconds * 1000)),
            },
        )

    async def close(self) -> None:
        """Waits for the connections in use and closes all."""
        await self._pool.close()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        """Lends a connection.

        Raises:
            UnavailableError: none became free in time, or the server is gone or too slow.
        """
        try:
            async with self._pool.acquire(timeout=self._acquire_timeout_seconds) as connection:
                yield connection
        except TimeoutError:
            raise UnavailableError(
                f"no database connection became free within {self._acquire_timeout_seconds:g} s; "
                "try again, or raise AFTERIMAGE_MAX_POOL_SIZE"
            ) from None
        except asyncpg.QueryCanceledError:
            raise UnavailableError(
                f"the statement ran longer than {self._statement_timeout_seconds:g} s "
                "(AFTERIMAGE_STATEMENT_TIMEOUT_SECONDS)"
            ) from None
        except LOST as error:
            raise UnavailableError(f"PostgreSQL does not answer: {one_line(error)}") from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """Lends a connection within a transaction."""
        async with self.acquire() as connection, connection.transaction():
            yield connection

    async def _register_types(self, connection: Any) -> None:
        await register_vector(connection, schema=self._schema)

    async def _connect(self) -> Any:
        target = self._target()
        try:
            return await asyncpg.connect(**self._parameters, timeout=10)
        except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
            raise StartupError(
                f"authentication failed at {target}: {one_line(error)}; check AFTERIMAGE_PG_USER and "
                "AFTERIMAGE_PG_PASSWORD (or AFTERIMAGE_DATABASE_URL), and that pg_hba.conf lets this role in"
            ) from None
        except asyncpg.InvalidCatalogNameError as error:
            owner, name = self._parameters.get("user", "OWNER"), self._parameters.get("database", "NAME")
            raise StartupError(
                f"the database is missing at {target}: {one_line(error)}; make it with: createdb --owner={owner} {name}"
            ) from None
        except (
            OSError,
            TimeoutError,
            ssl.SSLError,
            asyncpg.CannotConnectNowError,
            asyncpg.TooManyConnectionsError,
        ) as error:
            raise StartupError(
                f"no connection to PostgreSQL at {target}: {one_line(error) or 'no answer within 10 s'}; "
                "start the server (systemctl start postgresql), or check AFTERIMAGE_PG_HOST and AFTERIMAGE_PG_PORT"
            ) from None
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise StartupError(f"no connection to PostgreSQL at {target}: {one_line(error)}") from None

    def _target(self) -> str:
        """The server as a person would name it, without the password."""
        if "dsn" in self._parameters:
            return "AFTERIMAGE_DATABASE_URL"
        return "{user}@{host}:{port}/{database}".format_map(self._parameters)

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
        database = await connection.fetchval("SELECT current_database()")
        find = """
            SELECT n.nspname, e.extversion
            FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
            WHERE e.extname = 'vector'
        """
        found = await connection.fetchrow(find)
        if found is None:
            try:
                async with connection.transaction():
                    await connection.execute("CREATE EXTENSION vector")
            except asyncpg.InsufficientPrivilegeError:
                raise StartupError(
                    f"the extension pgvector is missing in database {database} and the role may not create it; "
                    f'an administrator must run: psql -d {database} -c "CREATE EXTENSION vector"'
                ) from None
            except (asyncpg.UndefinedFileError, asyncpg.FeatureNotSupportedError):
                major = connection.get_server_version().major
                raise StartupError(
                    "pgvector is not installed on the server; install it there "
                    f"(Debian: apt install postgresql-{major}-pgvector)"
                ) from None
            found = await connection.fetchrow(find)
        self._schema = found["nspname"]
        version = tuple(int(part) for part in found["extversion"].split("."))
        update = f'psql -d {database} -c "ALTER EXTENSION vector UPDATE"'
        if version < OLDEST_PGVECTOR:
            raise StartupError(
                f"pgvector {found['extversion']} in database {database} is too old, 0.8.0 is the least; "
                f"install a newer one and run: {update}"
            )
        if version < SOUND_PGVECTOR:
            log.warning("pgvector before 0.8.4 can corrupt an HNSW index", version=found["extversion"], mend=update)

    async def _migrate(self, connection: Any) -> None:
        try:
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations "
                "(version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
            )
        except asyncpg.InsufficientPrivilegeError as error:
            user, database = await connection.fetchrow("SELECT current_user, current_database()")
            raise StartupError(
                f"the role {user} may not create tables: {one_line(error)}; an administrator must run: "
                f'psql -d {database} -c "GRANT CREATE ON SCHEMA public TO {user}"'
            ) from None
        applied = await connection.fetchval("SELECT coalesce(max(version), 0) FROM schema_migrations")
        for migration in migrate.pending("postgresql", applied):
            await connection.execute(migration.sql)
            await connection.execute("INSERT INTO schema_migrations (version) VALUES ($1)", migration.version)
            log.info("migrated", version=migration.version)


def one_line(error: BaseException) -> str:
    """The message of an error, without line breaks."""
    return " ".join(str(error).split())
