"""Plans of the statements that the PostgreSQL store really sends, with the settings that it sends them under."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from random import Random
from typing import Any

import numpy as np
import pytest

from app.models import Scope, Vector
from app.store.postgresql import PostgresStore
from app.store.postgresql.connections import Connections
from app.tokens import query_words
from tests.conftest import MODEL, new_database
from tests.memories import NOON, minutes, new

COUNT = 1200
EXACT_LIMIT = 400


class Recorded(Connections):
    """Connections that keep what is sent over them."""

    sent: list[tuple[str, tuple[Any, ...]]]

    @asynccontextmanager
    async def acquire(self, *, keep_plans: bool | None = False) -> AsyncIterator[Any]:
        async with super().acquire(keep_plans=keep_plans) as connection:
            with connection.query_logger(lambda record: self.sent.append((record.query, record.args or ()))):
                yield connection
                await asyncio.sleep(0)  # asyncpg tells of a query a step later

    async def plans(self, work: Awaitable[object]) -> str:
        """The plans of all that is sent meanwhile."""
        self.sent = []
        await work
        lines = []
        async with super().acquire() as connection:
            for query, given in self.sent:
                if re.match(r"SET plan_cache_mode|DISCARD", query):
                    continue  # EXPLAIN plans for the given values
                if re.match(r"(BEGIN|COMMIT|ROLLBACK|SET)\b", query) or "set_config" in query:
                    await connection.execute(query, *given)
                elif "typeinfo" not in query:  # asyncpg's own
                    lines += [row[0] for row in await connection.fetch(f"EXPLAIN {query}", *given)]
        return "\n".join(lines)


def vectors() -> Iterator[Vector]:
    made = np.random.default_rng(1).standard_normal((COUNT, 384), dtype=np.float32)
    yield from made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture(scope="module")
async def connections(postgres_url: Callable[[int], str]) -> Recorded:
    made = Recorded({"dsn": await new_database(postgres_url(18))}, 1, 4, 20, 20)
    made.sent = []
    return made


@pytest.fixture(scope="module")
async def store(connections: Recorded) -> AsyncIterator[PostgresStore]:
    """Memories of one large project and many small ones, of words that are common and words that are rare."""
    random = Random(0)
    words = [f"word{number}" for number in range(3000)]
    rows = [
        new(
            vector,
            project="large" if at % 2 else f"small{at % 100}",
            file_path=f"src/{at // 20}/a.py",
            session_id=f"s{at // 10}",
            timestamp=NOON + minutes(random.random()),
            new_code=" ".join(["self return", *(["value"] if at % 3 else ["name"]), *random.sample(words, 100)]),
        )
        for at, vector in enumerate(vectors())
    ]
    opened = PostgresStore(connections, MODEL, EXACT_LIMIT)
    await opened.open()
    await opened.memories.add(rows, NOON)
    await opened.memories.refresh_frequencies()
    await opened.embeddings.ensure_index(MODEL)
    async with connections.acquire() as connection:
        await connection.execute("VACUUM ANALYZE")
    yield opened
    await opened.close()


async def test_a_text_search_reads_the_index_of_words_in_every_branch(
    store: PostgresStore, connections: Recorded
) -> None:
    unheard_of = "never was any such text among them here before now"
    queries = (unheard_of, "word7 word8", "word7 self value", "self return value", '"self return" word7', "self -name")
    for query in queries:
        for scope in (Scope(), Scope(projects=["large"]), Scope(since=NOON + minutes(0.1))):
            plan = await connections.plans(store.memories.search_words(scope, query_words(query), 10))
            scans = re.findall(r"(\w+ ?\w*) Scan (?:using \w+ )?on memories\s", plan)
            assert set(scans) == {"Bitmap Heap"}, plan
            if not scope.projects:  # for a common word the index of a project may do as well
                assert plan.count("Bitmap Index Scan on memories_by_words") == len(scans), plan


FEW = [Scope(projects=["small4"]), Scope(session_id="s7"), Scope(file_path="src/7/a.py"), Scope(path_prefix="src/7/")]


@pytest.mark.parametrize("scope", FEW)
async def test_a_semantic_search_among_few_reads_their_rows_alone(
    store: PostgresStore, connections: Recorded, scope: Scope
) -> None:
    for query in ("", '"self return"', "self -name"):
        words = query_words(query)
        plan = await connections.plans(store.memories.search_vectors(scope, next(vectors()), MODEL, 10, words))
        best = await connections.plans(store.memories.best_by_vectors(scope, next(vectors()), MODEL, 10, 30, words))
        assert "Seq Scan" not in plan, plan
        assert not re.search(r"Seq Scan on (memories|embeddings)\b", best), best
        assert "hnsw" not in plan + best, plan + best


@pytest.mark.parametrize("scope", [Scope(), Scope(projects=["large"]), Scope(path_prefix="src/")])
async def test_a_semantic_search_among_many_follows_the_index(
    store: PostgresStore, connections: Recorded, scope: Scope
) -> None:
    for query in ("", '"self return"', "self -name"):
        words = query_words(query)
        plan = await connections.plans(store.memories.search_vectors(scope, next(vectors()), MODEL, 10, words))
        followed = plan[plan.index("Index Scan using embeddings_hnsw_") :]
        assert "Sort" not in followed, plan
        plan = await connections.plans(store.memories.best_by_vectors(scope, next(vectors()), MODEL, 10, 30, words))
        found = plan[plan.index("CTE found") : plan.index("CTE best")]
        assert "Index Scan using embeddings_hnsw_" in found, plan
        assert "Sort" not in found, plan
        behind = plan[plan.index("CTE best") :]
        conditions = re.findall(r"Scan (?:using \w+ )?on memories\b.*\n +(?:Index|Recheck) Cond: \(+(\w+) = ", behind)
        assert (behind.count(" on memories "), sorted(conditions)) == (3, ["code_hash", "id", "id"]), plan
        assert ("Index Only Scan using memories_by_code" in behind) == (scope.path_prefix is None), plan


@pytest.mark.parametrize("scope", [Scope(file_path="src/7/a.py"), Scope(path_prefix="src/7/")])
async def test_a_path_is_looked_up_in_its_index(store: PostgresStore, connections: Recorded, scope: Scope) -> None:
    plan = await connections.plans(store.memories.page(scope, 100, None))
    assert "memories_by_file" in plan, plan
    plan = await connections.plans(store.memories.search_words(scope, query_words("self value"), 10))
    assert "memories_by_file" in plan, plan


async def test_copies_are_counted_in_the_index(store: PostgresStore, connections: Recorded) -> None:
    keys = [memory.key for memory in await store.memories.page(Scope(), 20, None)]
    for scope in (Scope(), Scope(projects=["large"])):
        plan = await connections.plans(store.memories.distinct(scope, dict.fromkeys(keys, 1.0), 10))
        assert "Index Only Scan using memories_by_code" in plan, plan
        assert "Seq Scan on memories" not in plan, plan


async def test_many_vectors_are_looked_up_one_by_one_even_where_the_planner_knows_nothing(
    postgres_url: Callable[[int], str],
) -> None:
    connections = Recorded({"dsn": await new_database(postgres_url(18))}, 1, 4, 20, 20)
    connections.sent = []
    store = PostgresStore(connections, MODEL)
    await store.open()
    rows = [new(vector) for vector in vectors()]
    await store.memories.add(rows, NOON)
    for count in (100, 500, COUNT):
        plan = await connections.plans(store.embeddings.vectors(MODEL, [row.memory.key for row in rows[:count]]))
        (condition,) = re.findall(r"Index Cond: (.*)", plan)
        assert "memory_id = wanted.id" in condition, plan
    await store.close()


async def plans_of(store: PostgresStore, *parts: str) -> list[tuple[int, int]]:
    """How often statements with these parts were run by a plan for all values, and by one for theirs."""
    query = "SELECT generic_plans, custom_plans, statement FROM pg_prepared_statements"
    async with store._connections.acquire() as connection:
        rows = await connection.fetch(query)
    return sorted((row[0], row[1]) for row in rows if all(part in row["statement"] for part in parts))


async def test_writes_and_hits_are_planned_once_and_what_has_optional_filters_each_time(database: str) -> None:
    store = PostgresStore(Connections({"dsn": database}, 1, 1, 20, 20), MODEL)
    await store.open()
    await store.embeddings.ensure_index(MODEL)
    memories = store.memories
    words = query_words("parse")
    for vector in islice(vectors(), 20):
        row = new(vector)
        for scope in (Scope(), Scope(projects=[row.memory.project])):
            await memories.add([row], NOON)
            await memories.search_words(scope, words, 10)
            await memories.distinct(scope, {row.memory.key: 1.0}, 10)
            await memories.page(scope, 5, None)
            await memories.distinct(scope, {row.memory.key: 1.0}, 10)
            await memories.stats(scope.projects, MODEL)
            await memories.search_vectors(scope, vector, MODEL, 10)
            await memories.best_by_vectors(scope, vector, MODEL, 10, 30)
        await memories.distinct(Scope(session_id="s"), {row.memory.key: 1.0}, 10)
    assert await plans_of(store, "INSERT INTO memories") == [(40, 0)]
    assert await plans_of(store, "AS copies", "unnest") == [(0, 20), (40, 0), (40, 0)]
    assert await plans_of(store, "AS copies", "TABLESAMPLE") == [(0, 20), (20, 0)]
    assert await plans_of(store, "ts_rank") == [(0, 40)]
    assert await plans_of(store, "TABLESAMPLE") == [(0, 20), (20, 0), (20, 20)]  # the third without copies
    assert await plans_of(store, "FROM memories AS m\nLEFT JOIN embedding_queue") == [(0, 40)]
    assert set(await plans_of(store, "size_bytes")) == {(0, 40)}  # that of the index too
    await store.close()


async def test_a_search_among_many_vectors_is_planned_each_time_with_and_without_an_index(database: str) -> None:
    store = PostgresStore(Connections({"dsn": database}, 1, 1, 20, 20), MODEL, EXACT_LIMIT)
    await store.open()
    rows = [new(vector) for vector in vectors()]
    await store.memories.add(rows, NOON)
    for row in rows[:10]:
        await store.memories.distinct(Scope(), {row.memory.key: 1.0}, 10)
        assert row.vector is not None
        await store.memories.best_by_vectors(Scope(), row.vector, MODEL, 10, 30)
        await store.embeddings.ensure_index(MODEL, build=row is rows[4])
    assert await plans_of(store, "AS copies", "unnest") == [(10, 0)]
    assert await plans_of(store, "AS copies", "TABLESAMPLE") == [(0, 5)]
    assert await plans_of(store, "AS copies", "::halfvec(384) <=>") == [(0, 5)]
    await store.close()


@pytest.mark.parametrize("scope", [Scope(), Scope(projects=["large"])])
async def test_a_kept_plan_reads_the_rows_of_the_hits_alone(
    store: PostgresStore, connections: Recorded, scope: Scope
) -> None:
    keys = [memory.key for memory in await store.memories.page(Scope(), 20, None)]
    await connections.plans(store.memories.distinct(scope, dict.fromkeys(keys, 1.0), 10))
    [(query, given)] = [sent for sent in connections.sent if "AS copies" in sent[0]]
    async with connections.acquire(keep_plans=True) as connection:
        await connection.execute(f"PREPARE looked_up AS {query}")
        try:
            plan = await connection.fetch(f"EXPLAIN EXECUTE looked_up({', '.join(map(literal, given))})")
        finally:
            await connection.execute("DEALLOCATE looked_up")
    lines = "\n".join(row[0] for row in plan)
    conditions = re.findall(r"Scan using \w+ on memories\b.*\n +Index Cond: \(+(\w+) = ", lines)
    assert sorted(conditions) == ["code_hash", "id", "id"], lines
    assert "Index Only Scan using memories_by_code" in lines, lines
    assert "$" in lines, lines  # it is for any values
    assert bool(re.search(r"Index Cond: .*project = ANY \(\$\d", lines)) == bool(scope.projects), lines


def literal(value: Any) -> str:
    if value is None:
        return "NULL"
    return f"'{{{','.join(map(str, value))}}}'" if isinstance(value, list | tuple) else f"'{value}'"
