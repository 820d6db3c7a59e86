"""How searches send the statements of `postgresql.sql`."""

import re
from collections.abc import Mapping, Sequence
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

    @staticmethod
    def joined(parts: Mapping[str, "Statement"], last: "Statement") -> "Statement":
        """One statement of several, which spares round trips: each reads the rows of those before it by their names."""
        statements = [*parts.values(), last]
        sql = _joined(tuple(parts), tuple((one.sql, len(one.values)) for one in statements))
        return Statement(sql, [value for one in statements for value in one.values])


async def fetch(connection: Any, query: Any, **values: Any) -> list[Any]:
    """All rows of a query."""
    return await Statement.of(query, **values).fetch(connection)


def distinct_found(
    queries: Any, found: Statement, scope: Scope, candidates: int, limit: int, known: Sequence[int] = ()
) -> Statement:
    """See MemoryStore.distinct; what is found are memories with scores, of which the best candidates count."""
    best = Statement.of(queries.best_matches, candidates=candidates, limit=limit, known=known)
    parts = {"found": found, "best": best, "copies": _copies(queries, scope)}
    return Statement.joined(parts, Statement.of(queries.distinct_memories))


def hits_plan_may_be_kept(scope: Scope) -> bool:
    """Whether the plan that looks hits up may be kept: it is the best one for any values."""
    return scope.is_of_whole_projects


def _copies(queries: Any, scope: Scope) -> Statement:
    if not hits_plan_may_be_kept(scope):
        return Statement.of(queries.find_copies_filtered, **scope.fields(), limit_copies=MAX_COPIES)
    if scope.projects is None:
        return Statement.of(queries.find_copies, limit_copies=MAX_COPIES)
    return Statement.of(queries.find_copies_in_projects, projects=scope.projects, limit_copies=MAX_COPIES)


@cache
def _joined(names: Sequence[str], statements: Sequence[tuple[str, int]]) -> str:
    """Of statements with so many parameters each, all of which but the last have a name."""
    parts = []
    before = 0
    for sql, parameters in statements:
        parts.append(_numbered_after(before, sql.rstrip(";")))
        before += parameters
    named = ",\n".join(f"{name} AS (\n{part}\n)" for name, part in zip(names, parts[:-1], strict=True))
    return f"WITH {named}\n{parts[-1]}"


def _numbered_after(before: int, sql: str) -> str:
    return re.sub(r"\$(\d+)", lambda number: f"${int(number[1]) + before}", sql)
