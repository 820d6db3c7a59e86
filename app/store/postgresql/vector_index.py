"""The HNSW index of a model's vectors. Its statements name the model and the dimension, so they are made here."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import structlog
from pgvector import HalfVector

from app.errors import UnavailableError
from app.models import QueryWords, Scope, Vector, VectorIndexKind, VectorIndexState, VectorIndexStats
from app.store.postgresql.connections import Connections
from app.store.postgresql.pool_connection import PLAN_EACH_TIME
from app.store.postgresql.queries import Statement
from app.store.postgresql.rights import not_all_owned
from app.store.postgresql.words import excluded, required

BUILD_LOCK = 0x61667465_76656374
"""Key of the advisory lock under which the index is built: "aftevect"."""

MAX_DIMENSIONS = 4000
"""pgvector's limit for an indexed halfvec."""

SEARCH_LIST = 200
"""hnsw.ef_search: vectors that a search looks at before filters; more find more and take longer."""

MAX_SCANNED = 20_000
"""hnsw.max_scan_tuples: vectors that a filtered search looks at before it gives up."""

SETTINGS = {
    "statement_timeout": "0",
    "maintenance_work_mem": "512MB",  # holds about 400,000 vectors of 384 numbers; without room it is 4 times slower
    "max_parallel_maintenance_workers": "0",  # parallel workers share memory, of which a container has 64 MB
}
"""Of the connection that builds."""

# A plan that sorts would read all vectors, and look up the memory of each.
BEGIN = f"""BEGIN READ ONLY;
SET LOCAL plan_cache_mode = {PLAN_EACH_TIME};
SET LOCAL enable_sort = off;
SET LOCAL hnsw.iterative_scan = relaxed_order;
SET LOCAL hnsw.ef_search = {{search_list}};
SET LOCAL hnsw.max_scan_tuples = {{max_scanned}}
"""

# NULL if the model has no more than $2 vectors.
DIMENSIONS = """
SELECT vector_dims(embedding)
FROM embeddings
WHERE model = $1
OFFSET $2
LIMIT 1
"""

VALID = """
SELECT indisvalid
FROM pg_index
WHERE indexrelid = to_regclass($1)
"""

IMPORTING = """
SELECT EXISTS (SELECT FROM imports WHERE state = 'running' AND lease_until > now())
"""

PROGRESS = """
SELECT
  coalesce((SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)), false) AS valid,
  count(*) > 0 AS building,
  round((100.0 * sum(blocks_done) / nullif(sum(blocks_total), 0)), 1)::float8 AS percent
FROM pg_stat_progress_create_index
WHERE index_relid = to_regclass($1)
"""

UNUSED = """
SELECT relname
FROM pg_class
WHERE relkind = 'i'
  AND relname LIKE 'embeddings\\_hnsw\\_%'
  AND pg_table_is_visible(oid)
  AND pg_has_role(relowner, 'USAGE')
  AND relname <> ALL ($1)
"""

CREATE = """
CREATE INDEX CONCURRENTLY {name} ON embeddings
USING hnsw ((embedding::halfvec({dimensions})) halfvec_cosine_ops)
WHERE model = {model}
"""

# The filters stand in a subquery that yields one value, which the planner never turns into a join: a join would give up
# the order of the index.
SEARCH = """
SELECT
  e.project, e.memory_id AS id, e.first_line, e.last_line,
  1 - (e.embedding::halfvec({dimensions}) <=> $9::halfvec) AS score
FROM embeddings AS e
WHERE e.model = $10
  AND ($1::text[] IS NULL OR e.project = ANY ($1))
  AND (
    num_nonnulls(
      $2::text, $3::text, $4::text, $5::text, $6::text, $7::timestamptz, $8::timestamptz, $12::tsquery, $13::tsquery
    ) = 0
    OR (
      SELECT
        ($2 IS NULL OR m.session_id = $2)
        AND ($3 IS NULL OR m.agent_id = $3)
        AND ($4 IS NULL OR m.file_path = $4)
        AND ($5 IS NULL OR starts_with(m.file_path, $5))
        AND ($6 IS NULL OR m.language = $6)
        AND ($7 IS NULL OR m.timestamp >= $7)
        AND ($8 IS NULL OR m.timestamp < $8)
        AND ($12 IS NULL OR m.words @@ $12)
        AND ($13 IS NULL OR NOT m.words @@ $13)
      FROM memories AS m
      WHERE m.project = e.project
        AND m.id = e.memory_id
    )
  )
ORDER BY e.embedding::halfvec({dimensions}) <=> $9::halfvec
LIMIT $11
"""

log = structlog.get_logger(__name__)


class HnswIndex:
    """An index for each model with many vectors; knows which of them are ready."""

    def __init__(self, connections: Connections, exact_limit: int) -> None:
        """An index is made for a model with more than `exact_limit` vectors."""
        self._connections = connections
        self._exact_limit = exact_limit
        self._ready: set[str] = set()
        self._small: set[str] = set()
        self._told: str | None = None

    def is_ready(self, model: str) -> bool:
        """True if searches can use the index, as far as this process knows."""
        return model in self._ready

    def is_small(self, model: str) -> bool:
        """True if the model has too few vectors for an index, as far as this process knows."""
        return model in self._small

    async def ensure(self, model: str, *, build: bool = True) -> bool:
        """Builds the index if there are enough vectors and it is missing; False if another process is at it.

        Without `build` it only looks whether it is there.

        It waits for the end of an import, too: to add rows one by one to an index takes many times as long as to build
        it of them. Where the role may not build it, which is logged once, searches go on without.
        """
        async with self._connections.acquire() as connection:
            dimensions = await connection.fetchval(DIMENSIONS, model, self._exact_limit)
            valid = await connection.fetchval(VALID, _name(model))
            importing = await connection.fetchval(IMPORTING)
            forbidden = None if dimensions is None or valid else await not_all_owned(connection)
        self._small = self._small - {model} if dimensions else self._small | {model}
        unusable = dimensions is None or dimensions > MAX_DIMENSIONS or forbidden
        if unusable or not valid:
            self._ready.discard(model)
        if unusable:
            self._tell(forbidden)
        elif valid or (build and not importing and await self._build(model, dimensions)):
            self._ready.add(model)
        else:
            return False
        return True

    def _tell(self, forbidden: str | None) -> None:
        if forbidden and forbidden != self._told:
            log.warning("the index of the vectors cannot be built, and searches read all of them", reason=forbidden)
        self._told = forbidden

    async def drop_all_but(self, models: Sequence[str]) -> None:
        """Drops the indexes of other models; waits for the searches that use them, and keeps nobody waiting.

        Raises:
            UnavailableError: another process is building one.
        """
        self._ready.intersection_update(models)
        async with self._connections.outside_pool() as connection:
            unused = await connection.fetch(UNUSED, [_name(model) for model in models])
            if unused and not await connection.fetchval("SELECT pg_try_advisory_lock($1)", BUILD_LOCK):
                raise UnavailableError("another process builds an index of vectors")
            for row in unused:
                await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {row['relname']}")
                log.info("the index of the vectors of a former model is dropped", name=row["relname"])

    async def _build(self, model: str, dimensions: int) -> bool:
        """False if another process is building it. One that a crash left unfinished is dropped first.

        The lock is never waited for: that would hold a snapshot, for the end of which the building waits.
        """
        name = _name(model)
        async with self._connections.outside_pool() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", BUILD_LOCK):
                return False
            if await connection.fetchval(VALID, name):
                return True
            log.info("the index of the vectors is being built", model=model)
            for setting, value in SETTINGS.items():
                await connection.execute("SELECT set_config($1, $2, false)", setting, value)
            await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            quoted = await connection.fetchval("SELECT quote_literal($1)", model)
            await connection.execute(CREATE.format(name=name, dimensions=dimensions, model=quoted))
            log.info("the index of the vectors is ready", model=model)
            return True

    async def stats(self, connection: Any, model: str) -> VectorIndexStats:
        """Where the index stands, whichever process builds it."""
        row = await connection.fetchrow(PROGRESS, _name(model))
        if row["valid"]:
            return VectorIndexStats(VectorIndexKind.HNSW, VectorIndexState.READY)
        if row["building"]:
            return VectorIndexStats(VectorIndexKind.EXACT, VectorIndexState.BUILDING, row["percent"])
        return VectorIndexStats(VectorIndexKind.EXACT, VectorIndexState.NONE)

    async def begin(
        self, connection: Any, scope: Scope, vector: Vector, model: str, depth: int, words: QueryWords
    ) -> Statement:
        """Begins a transaction, with settings, for what finds about the nearest vectors, about in order.

        They are fewer than `depth` if the filters hold for too few. The caller ends the transaction, or it ends as the
        connection is given back.
        """
        await connection.execute(BEGIN.format(search_list=SEARCH_LIST, max_scanned=MAX_SCANNED))
        demands = (required(words), excluded(words))
        return Statement(
            SEARCH.format(dimensions=len(vector)),
            [*scope.fields().values(), HalfVector(vector), model, depth, *demands],
        )


def _name(model: str) -> str:
    """Of the model's index; needs no quotes."""
    return f"embeddings_hnsw_{sha256(model.encode()).hexdigest()[:16]}"
