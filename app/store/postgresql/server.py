"""How a server is reached, and what is said when it cannot be."""

import re
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from app.errors import StartupError

CONNECT_SECONDS = 10

ROOM = """
SELECT
  current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
  - coalesce(current_setting('reserved_connections', true)::int, 0)
"""


async def connect(parameters: Mapping[str, Any]) -> Any:
    """A connection; `parameters` are those of `asyncpg.connect`.

    Raises:
        StartupError: its `part` is `connection`, `authentication` or `database`.
    """
    target = name_of(parameters)
    try:
        return await asyncpg.connect(**parameters, timeout=CONNECT_SECONDS)
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise StartupError(
            f"authentication failed at {target}: {one_line(error)}; export AFTERIMAGE_PG_PASSWORD=PASSWORD, and check "
            "AFTERIMAGE_PG_USER (or AFTERIMAGE_DATABASE_URL), and that pg_hba.conf lets this role in",
            "authentication",
        ) from None
    except asyncpg.InvalidCatalogNameError as error:
        owner, name = parameters.get("user", "OWNER"), parameters.get("database", "NAME")
        raise StartupError(
            f"the database is missing at {target}: {one_line(error)}; make it with: createdb --owner={owner} {name}",
            "database",
        ) from None
    except (
        OSError,
        TimeoutError,
        ssl.SSLError,
        asyncpg.CannotConnectNowError,
        asyncpg.TooManyConnectionsError,
    ) as error:
        raise StartupError(
            f"no connection to PostgreSQL at {target}: {one_line(error) or f'no answer within {CONNECT_SECONDS} s'}; "
            f"start the server (systemctl start postgresql), or check {address_settings(parameters)}",
            "connection",
        ) from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise StartupError(f"no connection to PostgreSQL at {target}: {one_line(error)}", "connection") from None


async def too_many(connection: Any, processes: int, pool_size: int) -> str | None:
    """Says so, and how to mend it, if the pools of all processes want more connections than the server gives."""
    room = await connection.fetchval(ROOM)
    if processes * pool_size <= room:
        return None
    return (
        f"{processes} processes (AFTERIMAGE_WORKERS) of up to {pool_size} connections (AFTERIMAGE_MAX_POOL_SIZE) are "
        f"{processes * pool_size}, and the server gives {room}; lower one of the two, or run: "
        f"ALTER SYSTEM SET max_connections = {processes * pool_size + 20} and restart PostgreSQL"
    )


def at_address(parameters: Mapping[str, Any], host: str, port: int | None) -> dict[str, Any]:
    """The parameters of another server that is like the first in all else; without a port also in that."""
    if port is None:
        port = _port_of_url(parameters["dsn"]) if "dsn" in parameters else parameters["port"]
    # The URL may ask for a server that takes writes, which a standby does not.
    return {**parameters, "host": host, "port": port, "target_session_attrs": "any"}


def _port_of_url(url: str) -> int | None:
    """The port of the first server that a URL names, None if it names none."""
    parts = urlsplit(url)
    found = re.search(r":(\d+)$", parts.netloc.rpartition("@")[2].partition(",")[0])
    named = found[1] if found else parse_qs(parts.query).get("port", [""])[0].partition(",")[0]
    return int(named) if named.isdecimal() else None


def name_of(parameters: Mapping[str, Any]) -> str:
    """The server as a person would name it, without the password."""
    if "dsn" in parameters:
        return "AFTERIMAGE_DATABASE_URL"
    return "{user}@{host}:{port}/{database}".format_map(parameters)


def address_settings(parameters: Mapping[str, Any]) -> str:
    """The settings that say where the server is."""
    return "AFTERIMAGE_DATABASE_URL" if "dsn" in parameters else "AFTERIMAGE_PG_HOST and AFTERIMAGE_PG_PORT"


def one_line(error: BaseException) -> str:
    """The message of an error, without line breaks."""
    return " ".join(str(error).split())
