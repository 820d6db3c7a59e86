"""Semantic search among many vectors on PostgreSQL: the index, when it is built, and that no page comes back short."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import numpy as np
import pytest
import structlog

from app.embedding.hashing import HashingEmbedder
from app.embedding_models import EmbeddingModels
from app.errors import UnavailableError
from app.models import ImportState, Match, Scope, Vector, VectorIndexKind, VectorIndexState, VectorIndexStats
from app.store.distinct import best_of
from app.store.postgresql import PostgresStore, vector_index
from app.store.postgresql.queries import Statement
from app.vector_index import VectorIndexUpkeep
from tests.conftest import MODEL, connections, execute, new_database
from tests.memories import NOON, minutes, new
from tests.store.test_imports import wanted

EXACT_LIMIT = 200
COUNT = 600
RARE = 30
"""Every so many memories one is in the small project and has the rare agent."""

NO_INDEX = VectorIndexStats(VectorIndexKind.EXACT, VectorIndexState.NONE)
READY = VectorIndexStats(VectorIndexKind.HNSW, VectorIndexState.READY)


def unit_vectors(count: int) -> list[Vector]:
    vectors = np.random.default_rng(1).standard_normal((count, 384), dtype=np.float32)
    return list(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


async def fill(store: PostgresStore, count: int = COUNT) -> None:
    rows = [
        new(
            vector,
            project="small" if at % RARE == 0 else "large",
            agent_id="rare" if at % RARE == 1 else "usual",
            file_path=f"src/{at % 2}/a.py",
        )
        for at, vector in enumerate(unit_vectors(count))
    ]
    await store.memories.add(rows, NOON)


@pytest.fixture(params=[18, 16])
async def url(request: pytest.FixtureRequest, postgres_url: Callable[[int], str]) -> str:
    return await new_database(postgres_url(request.param))


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    """A store with more vectors than are compared one by one, before it has an index."""
    opened = PostgresStore(connections(url), MODEL, EXACT_LIMIT)
    await opened.open()
    await fill(opened)
    yield opened
    await opened.close()


@pytest.fixture
async def connection(url: str) -> AsyncIterator[Any]:
    opened = await asyncpg.connect(url)
    yield opened
    await opened.close()


async def test_the_index_is_built_when_an_import_has_ended(store: PostgresStore) -> None:
    now = datetime.now(UTC)
    claimed = await store.imports.create(wanted(), now, now + minutes(1))
    assert claimed is not None
    assert not await store.embeddings.ensure_index(MODEL)
    assert await index_of(store) == NO_INDEX
    await store.imports.finish(claimed.lease, ImportState.CANCELLED, now, None, None)
    assert await store.embeddings.ensure_index(MODEL)
    assert await index_of(store) == READY


async def index_of(store: PostgresStore) -> VectorIndexStats:
    return (await store.memories.stats(None, MODEL)).embedding.index


async def scans(connection: Any) -> int:
    """How often searches have used the index; a session reports that at its end."""
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    count: int = await connection.fetchval(
        "SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_user_indexes WHERE indexrelname LIKE 'embeddings_hnsw_%'"
    )
    return count


async def names(connection: Any) -> list[str]:
    """Of the indexes there are."""
    rows = await connection.fetch("SELECT relname FROM pg_class WHERE relname LIKE 'embeddings_hnsw_%'")
    return [row["relname"] for row in rows]


async def search(store: PostgresStore, scope: Scope, limit: int = 10) -> list[Match]:
    return await store.memories.search_vectors(scope, unit_vectors(1)[0], MODEL, limit)


async def test_few_vectors_need_no_index(url: str) -> None:
    store = PostgresStore(connections(url), MODEL, EXACT_LIMIT)
    await store.open()
    await fill(store, EXACT_LIMIT)
    await store.embeddings.ensure_index(MODEL)
    assert await index_of(store) == NO_INDEX
    await store.close()


async def test_many_vectors_get_an_index(store: PostgresStore) -> None:
    assert await index_of(store) == NO_INDEX
    await store.embeddings.ensure_index(MODEL)
    assert await index_of(store) == READY
    await store.embeddings.ensure_index("another")
    assert (await store.memories.stats(None, "another")).embedding.index == NO_INDEX


async def test_a_model_may_have_any_name(url: str) -> None:
    model = 'it\'s \\ a "model"; -- ü'
    store = PostgresStore(connections(url), model, EXACT_LIMIT)
    await store.open()
    await fill(store)
    await store.embeddings.ensure_index(model)
    assert len(await store.memories.search_vectors(Scope(), unit_vectors(1)[0], model, 10)) == 10
    assert (await store.memories.stats(None, model)).embedding.index == READY
    await store.close()


async def test_the_index_is_used_among_many_and_only_there(store: PostgresStore, connection: Any) -> None:
    await store.embeddings.ensure_index(MODEL)
    few = [Scope(projects=["small"]), Scope(agent_id="rare"), Scope(projects=["large"], agent_id="rare")]
    many = [Scope(), Scope(projects=["large"]), Scope(path_prefix="src/0/")]
    for scope in few + many:
        assert len(await search(store, scope)) == 10
    await store.close()
    async with asyncio.timeout(20):
        while await scans(connection) != len(many):
            await asyncio.sleep(0.05)
    await store.open()


@pytest.mark.parametrize(
    "scope",
    [Scope(), Scope(projects=["large"]), Scope(projects=["small"]), Scope(agent_id="rare"), Scope(path_prefix="src/1")],
)
async def test_a_page_is_full_and_right_with_and_without_the_index(store: PostgresStore, scope: Scope) -> None:
    exact = await search(store, scope)
    await store.embeddings.ensure_index(MODEL)
    found = await search(store, scope)
    assert len(found) == len(exact) == 10
    assert len({match.key for match in found} & {match.key for match in exact}) >= 9
    assert found == sorted(found, key=lambda match: match.score, reverse=True)
    best = await store.memories.best_by_vectors(scope, unit_vectors(1)[0], MODEL, 10, 10)
    assert best == await best_of(store.memories, scope, found, 10)


@pytest.mark.parametrize("alone", [True, False])
async def test_a_search_that_the_index_leaves_short_is_exact(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, *, alone: bool
) -> None:
    await store.embeddings.ensure_index(MODEL)
    monkeypatch.setattr(vector_index, "SEARCH_LIST", 1)
    monkeypatch.setattr(vector_index, "MAX_SCANNED", 1)
    fetch, settings = Statement.fetch, []

    async def noted(self: Statement, used: Any) -> list[Any]:
        settings.append(await used.fetchval("SHOW enable_sort"))
        return await fetch(self, used)

    monkeypatch.setattr(Statement, "fetch", noted)
    scope = Scope(path_prefix="src/0/")
    if alone:
        found = (await store.memories.best_by_vectors(scope, unit_vectors(1)[0], MODEL, 10, 100)).matches
    else:
        found = len({match.key for match in await search(store, scope, limit=100)})
    assert found == 100
    assert settings == ["off", "on"]


async def test_the_scan_goes_on_until_the_page_is_full(store: PostgresStore, connection: Any) -> None:
    await store.embeddings.ensure_index(MODEL)
    begin = vector_index.BEGIN.format(search_list=100, max_scanned=20000)
    async with store._connections.acquire() as used:
        await used.execute(begin)
        await search(store, Scope())
        assert await used.fetchval("SELECT '[1]'::halfvec <=> '[1]'") == 0  # loads pgvector, which checks the value
        assert await used.fetchval("SHOW hnsw.iterative_scan") == "relaxed_order"


async def test_an_index_that_a_crash_left_unfinished_is_built_anew(store: PostgresStore, connection: Any) -> None:
    await store.embeddings.ensure_index(MODEL)
    await connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid::regclass::text LIKE '%_hnsw_%'")
    assert await index_of(store) == NO_INDEX
    await store.embeddings.ensure_index(MODEL)
    assert await index_of(store) == READY


async def test_one_of_several_processes_builds(store: PostgresStore, url: str) -> None:
    others = [PostgresStore(connections(url), MODEL, EXACT_LIMIT) for _ in range(3)]
    for other in others:
        await other.open()
    await asyncio.gather(*(one.embeddings.ensure_index(MODEL) for one in (store, *others)))
    for other in others:
        await other.embeddings.ensure_index(MODEL)
        assert await index_of(other) == READY
        await other.close()


async def test_the_index_is_built_in_the_background_and_writes_go_on(store: PostgresStore) -> None:
    upkeep = VectorIndexUpkeep(store.embeddings, store.models, pause_seconds=0.01)
    upkeep.start()
    async with asyncio.timeout(20):
        while await index_of(store) != READY:
            await store.memories.add([new(unit_vectors(1)[0])], NOON)
    await upkeep.stop()


class Hashing(HashingEmbedder):
    """Under the name of the store's model."""

    model = MODEL


async def test_a_change_of_the_model_comes_with_its_index_and_drops_the_former(
    store: PostgresStore, connection: Any
) -> None:
    await store.embeddings.ensure_index(MODEL)
    models = EmbeddingModels(
        store.embeddings,
        store.models,
        lambda model: Hashing() if model == MODEL else HashingEmbedder(100),
        kept_time=timedelta(0),
        poll_seconds=0.01,
    )
    await models.start("hashing-100")
    async with asyncio.timeout(30):
        while (await store.models.get()).changing:
            searched = await index_of(store)
            assert searched == READY or not (await store.models.get()).changing
            await asyncio.sleep(0.01)
        assert await store.embeddings.index_stats("hashing-100") == READY
        while await names(connection) != [vector_index._name("hashing-100")]:
            await asyncio.sleep(0.01)
    await models.stop()


async def test_a_role_that_may_not_build_it_says_so_once_and_searches_go_on(
    store: PostgresStore, url: str, connection: Any
) -> None:
    await execute(
        url,
        "DROP ROLE IF EXISTS tenant",
        "CREATE ROLE tenant LOGIN",
        "GRANT ALL ON SCHEMA public TO tenant",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO tenant",
    )
    tenant = PostgresStore(connections(f"{url}&role=tenant"), MODEL, EXACT_LIMIT)
    await tenant.open()
    try:
        upkeep = VectorIndexUpkeep(tenant.embeddings, tenant.models)
        with structlog.testing.capture_logs() as said:
            for _ in range(3):
                await upkeep.look()
        [warning] = said
        assert "ALTER TABLE embeddings OWNER TO tenant" in warning["reason"]
        assert len(await tenant.memories.search_vectors(Scope(), unit_vectors(1)[0], MODEL, 5)) == 5
        await store.embeddings.ensure_index(MODEL)  # the owner builds it for all
        await tenant.models.drop_unused_indexes()
        await upkeep.look()
        assert await tenant.embeddings.index_stats(MODEL) == READY
    finally:
        await tenant.close()
        await execute(url, "DROP OWNED BY tenant", "DROP ROLE tenant")


async def test_who_has_no_index_of_a_former_model_does_not_wait_for_who_builds_one(
    store: PostgresStore, url: str
) -> None:
    other = await asyncpg.connect(url)
    await other.execute("SELECT pg_advisory_lock($1)", vector_index.BUILD_LOCK)
    try:
        await store.models.drop_unused_indexes()
        await other.execute(f"CREATE INDEX embeddings_hnsw_{'0' * 16} ON embeddings (model)")
        with pytest.raises(UnavailableError, match="another process builds an index"):
            await store.models.drop_unused_indexes()
    finally:
        await other.close()


async def test_an_index_that_has_gone_is_not_searched(store: PostgresStore, url: str) -> None:
    await store.embeddings.ensure_index(MODEL)
    assert store.memories._index.is_ready(MODEL)
    await execute(url, f"DROP INDEX {vector_index._name(MODEL)}")
    assert not await store.embeddings.ensure_index(MODEL, build=False)
    assert not store.memories._index.is_ready(MODEL)
    assert len(await store.memories.search_vectors(Scope(), unit_vectors(1)[0], MODEL, 5)) == 5
