"""How searches send the statements of `postgresql.sql`."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from app.models import Scope
from app.store.protocol import MAX_COPIES


class Statement(NamedTuple):
    """A statement with numbered parameters, and their values."""

    sql: str
    values: Sequence[Any]

    @staticmethod
    def of(query: Any, **values: Any) -> "Statement":
        """A query, with its values by name."""
        return Statement(query.sql, query.__self__.driver_adapter.maybe_order_params(query.__name__, values))

    async def fetch(self, connection: Any) -> list[Any]:
        """All rows. A query's own function hands on one by one, through two generators, what asyncpg has in a list."""
        rows: list[Any] = await connection.fetch(self.sql, *self.values)
        return rows

    def then(self, other: "Statement") -> "Statement":
        """Both as one, which spares a round trip; the other, a WITH, reads the rows of this one as `found`."""
        return Statement(_joined(self.sql, other.sql, len(self.values)), [*self.values, *other.values])


async def fetch(connection: Any, query: Any, **values: Any) -> list[Any]:
    """All rows of a query."""
    return await Statement.of(query, **values).fetch(connection)


def distinct_found(queries: Any, scope: Scope, candidates: int, limit: int, known: Sequence[int] = ()) -> Statement:
    """See MemoryStore.distinct; follows a statement that finds the memories, of which the best candidates count."""
    return Statement.of(
        queries.distinct_memories,
        **scope.fields(),
        candidates=candidates,
        limit=limit,
        known=known,
        limit_copies=MAX_COPIES,
    )


@cache
def _joined(first: str, second: str, parameters: int) -> str:
    search = first.rstrip(";")
    reads = re.sub(r"\$(\d+)", lambda number: f"${int(number[1]) + parameters}", second).removeprefix("WITH ")
    return f"WITH found AS MATERIALIZED (\n{search}\n),\n{reads}"
