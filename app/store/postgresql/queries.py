"""How searches send the statements of `postgresql.sql`."""

from typing import Any


async def fetch(connection: Any, query: Any, **values: Any) -> list[Any]:
    """All rows of a query. Its own function hands on one by one, through two generators, what asyncpg has in a list."""
    ordered = query.__self__.driver_adapter.maybe_order_params(query.__name__, values)
    rows: list[Any] = await connection.fetch(query.sql, *ordered)
    return rows
