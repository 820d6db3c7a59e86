"""The merge of new words into their index."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from app.store.postgresql import PostgresStore
from app.word_index import WordIndexUpkeep
from tests.conftest import MODEL, connections
from tests.memories import NOON, new


@pytest.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:
    opened = PostgresStore(connections(database), MODEL)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def owner(database: str, store: PostgresStore) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database)
    await connection.execute("ALTER TABLE memories SET (autovacuum_enabled = off)")
    yield connection
    await connection.close()


async def test_a_look_merges_what_was_stored(store: PostgresStore, owner: Any) -> None:
    await store.memories.add([new(new_code="value = 1")], NOON)
    assert await pending_pages(owner) > 0
    await store.memories.add([new(new_code="value = 2")], NOON)
    await WordIndexUpkeep(store.memories).look()
    assert await pending_pages(owner) == 0


async def test_a_role_that_does_not_own_the_index_leaves_it_alone(
    store: PostgresStore, owner: Any, database: str
) -> None:
    await store.memories.add([new(new_code="value = 1")], NOON)
    await owner.execute("DROP ROLE IF EXISTS tenant; CREATE ROLE tenant")
    await owner.execute("GRANT ALL ON SCHEMA public TO tenant; GRANT ALL ON ALL TABLES IN SCHEMA public TO tenant")
    tenant = PostgresStore(connections(f"{database}&role=tenant"), MODEL)
    await tenant.open()
    assert await tenant.memories.merge_words() == 0
    await tenant.close()
    assert await pending_pages(owner) > 0
    await owner.execute("DROP OWNED BY tenant; DROP ROLE tenant")


async def pending_pages(owner: Any) -> int:
    """Pages that nobody had merged until now."""
    return int(await owner.fetchval("SELECT gin_clean_pending_list('memories_by_words')"))
