"""The checks of PostgreSQL: the given server, or the service's own."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import asyncpg

from app.addresses import Address
from app.doctor.check import Check
from app.errors import StartupError
from app.settings import Settings
from app.store import migrate
from app.store.embedded import EmbeddedPostgres
from app.store.postgresql import extension, rights
from app.store.postgresql.server import at_address, connect, name_of, too_many
from app.store.postgresql.standby import PRIMARY, STANDBY, why_unusable

STARTED = "started to look and stopped again"

REACHING = ("connection", "authentication", "database")

ERRORS = (StartupError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


async def check_postgresql(settings: Settings) -> AsyncGenerator[Check]:
    """Reaches the server and looks; one of the service's own that is not running is stopped again."""
    examinations = EXAMINATIONS | {"pool": partial(_pool, settings)}
    names = (*REACHING, *examinations)
    async with AsyncExitStack() as stack:
        try:
            if settings.runs_own_postgres:
                own = EmbeddedPostgres(settings.postgres_folder)
                if not (own.home / "data").exists():
                    yield Check.passed(
                        names[0], f"the service's own PostgreSQL, which its first start makes in {own.home}"
                    )
                    for check in Check.skipped(names[1:], "nothing is there yet"):
                        yield check
                    return
                where = f"the service's own in {own.home}, {'running' if own.has_users else STARTED}"
                parameters = {"dsn": await asyncio.to_thread(own.start)}
                stack.push_async_callback(asyncio.to_thread, own.stop)
            else:
                parameters = settings.connection_parameters
                where = name_of(parameters)
            connection = await connect(parameters)
        except StartupError as error:
            reached = names.index(error.part or names[0])
            for name in names[:reached]:
                yield Check.passed(name, "the server answers")
            yield Check.failed(names[reached], error)
            for check in Check.skipped(names[reached + 1 :], f"needs {names[reached]}"):
                yield check
            return
        stack.push_async_callback(connection.close)
        user, database, version = await connection.fetchrow(
            "SELECT current_user, current_database(), current_setting('server_version')"
        )
        yield Check.passed("connection", f"{where}, PostgreSQL {version.split()[0]}")
        yield Check.passed("authentication", f"as {user}")
        yield Check.passed("database", database)
        for name, examine in examinations.items():
            try:
                yield Check.passed(name, await examine(connection))
            except ERRORS as error:
                yield Check.failed(name, error)
        if settings.pg_read_hosts:
            try:
                yield Check.passed("standbys", await _standbys(connection, parameters, settings.pg_read_hosts))
            except ERRORS as error:
                yield Check.failed("standbys", error)


async def _extension(connection: Any) -> str:
    found = await extension.find(connection)
    if found is None:
        await extension.refuse_impossible(connection)
        return "pgvector is not there yet; the next start creates it"
    extension.refuse_old(found)
    if found.is_unsound:
        raise StartupError(
            f"pgvector {found.version} can corrupt an HNSW index; install 0.8.4 and run: {found.update_command}"
        )
    return f"pgvector {found.version}"


async def _migrations(connection: Any) -> str:
    applied = 0
    if await connection.fetchval("SELECT to_regclass('schema_migrations')"):
        applied = await connection.fetchval("SELECT coalesce(max(version), 0) FROM schema_migrations")
    return migrate.standing("postgresql", applied)


async def _permissions(connection: Any) -> str:
    user = await rights.refuse_missing(connection)
    if problem := await rights.not_all_owned(connection):
        raise StartupError(problem)
    return f"{user} may create, read and write tables, and owns those there are"


async def _pool(settings: Settings, connection: Any) -> str:
    if problem := await too_many(connection, settings.workers, settings.max_pool_size):
        raise StartupError(problem)
    return f"the server has room for {settings.workers} x {settings.max_pool_size} connections"


async def _standbys(connection: Any, parameters: Mapping[str, Any], addresses: Sequence[Address]) -> str:
    """How far each is behind, at this moment."""
    found = []
    for name, host, port in addresses:
        primary = await connection.fetchrow(PRIMARY)
        try:
            visitor = await connect(at_address(parameters, host, port))
        except StartupError as error:
            reason = str(error).rpartition("; ")[0] or error
            raise StartupError(f"the standby {name}: {reason}; start it, or check AFTERIMAGE_PG_READ_HOSTS") from None
        try:
            standby = await visitor.fetchrow(STANDBY)
        finally:
            await visitor.close()
        if problem := why_unusable(standby, primary["system_identifier"]):
            raise StartupError(f"the standby {name} {problem}; take it out of AFTERIMAGE_PG_READ_HOSTS")
        found.append(f"{name} {max(0, primary['position'] - standby['position'])} bytes behind")
    return ", ".join(found)


EXAMINATIONS: dict[str, Any] = {"extension": _extension, "migrations": _migrations, "permissions": _permissions}
