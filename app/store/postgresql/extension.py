"""The extension pgvector: finds it, makes it, and refuses one that is too old."""

from dataclasses import dataclass
from typing import Any

import asyncpg

from app.errors import StartupError

OLDEST = (0, 8, 0)
"""The first with iterative index scans."""

SOUND = (0, 8, 4)
"""Older ones can corrupt or break an HNSW index."""

FIND = """
SELECT n.nspname, e.extversion, current_database()
FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
WHERE e.extname = 'vector'
"""

MAY_CREATE = """
SELECT
  bool_or(NOT v.superuser OR r.rolsuper OR (v.trusted AND has_database_privilege(current_database(), 'CREATE')))
FROM pg_available_extension_versions AS v, pg_roles AS r
WHERE v.name = 'vector'
  AND r.rolname = current_user
"""
"""NULL if the server does not have it."""


@dataclass(frozen=True, slots=True)
class Extension:
    """pgvector in a database."""

    schema: str
    version: str
    database: str

    @property
    def is_unsound(self) -> bool:
        """True if it can corrupt an index."""
        return self.numbers < SOUND

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version, to be compared."""
        return tuple(int(part) for part in self.version.split("."))

    @property
    def update_command(self) -> str:
        """What an administrator must run once a newer one is installed."""
        return f'psql -d {self.database} -c "ALTER EXTENSION vector UPDATE"'


async def find(connection: Any) -> Extension | None:
    """The extension as it is in the database."""
    row = await connection.fetchrow(FIND)
    return Extension(*row) if row else None


async def create(connection: Any) -> Extension:
    """Makes the extension.

    Raises:
        StartupError: the server does not have it, or the role may not.
    """
    try:
        async with connection.transaction():
            await connection.execute("CREATE EXTENSION vector")
            return Extension(*await connection.fetchrow(FIND))
    except asyncpg.InsufficientPrivilegeError:
        raise await _no_right(connection) from None
    except (asyncpg.UndefinedFileError, asyncpg.FeatureNotSupportedError):
        raise _not_installed(connection) from None


async def refuse_impossible(connection: Any) -> None:
    """Finds out whether `create` would do, without doing it.

    Raises:
        StartupError: as `create`.
    """
    may = await connection.fetchval(MAY_CREATE)
    if may is None:
        raise _not_installed(connection)
    if not may:
        raise await _no_right(connection)


def refuse_old(extension: Extension) -> None:
    """Raises StartupError if the service cannot work with this version."""
    if extension.numbers < OLDEST:
        raise StartupError(
            f"pgvector {extension.version} in database {extension.database} is too old, 0.8.0 is the least; "
            f"install a newer one and run: {extension.update_command}"
        )


async def _no_right(connection: Any) -> StartupError:
    database = await connection.fetchval("SELECT current_database()")
    return StartupError(
        f"the extension pgvector is missing in database {database} and the role may not create it; "
        f'an administrator must run: psql -d {database} -c "CREATE EXTENSION vector"'
    )


def _not_installed(connection: Any) -> StartupError:
    major = connection.get_server_version().major
    return StartupError(
        f"pgvector is not installed on the server; install it there (Debian: apt install postgresql-{major}-pgvector)"
    )
