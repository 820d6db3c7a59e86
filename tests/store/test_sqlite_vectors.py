"""The vectors that a process with a SQLite file holds in memory, and what is deleted meanwhile."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.models import MemoryKey, NewMemory, Scope
from app.store.sqlite import SqliteStore
from app.store.sqlite.vectors import VectorIndex
from tests.conftest import MODEL
from tests.memories import NOON, new, vector

IMPORT = uuid4()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "store.db", MODEL)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many vectors each search compared."""
    seen: list[int] = []
    search = VectorIndex.search

    def noted(index: VectorIndex, *arguments: Any) -> Any:
        seen.append(sum(len(matrix.labels) for matrix in index._matrices.values()))
        return search(index, *arguments)

    monkeypatch.setattr(VectorIndex, "search", noted)
    return seen


async def found(store: SqliteStore) -> list[MemoryKey]:
    return [match.key for match in await store.memories.search_vectors(Scope(), vector(1), MODEL, 10)]


async def stored(store: SqliteStore, count: int, import_id: UUID | None = None) -> list[NewMemory]:
    rows = [new(vector(1), import_id=import_id, new_code=f"value = {number}") for number in range(count)]
    await store.memories.add(rows, NOON)
    return rows


async def test_the_memories_of_an_import_that_is_undone_leave_memory(store: SqliteStore, products: list[int]) -> None:
    [kept] = await stored(store, 1)
    await stored(store, 400, IMPORT)
    assert len(await found(store)) == 10
    assert await store.imports.delete_memories(IMPORT, None, 1000) == 400
    assert await found(store) == [kept.memory.key]
    assert products == [401, 1]


async def test_an_import_that_another_process_undoes_costs_one_more_comparison(
    store: SqliteStore, products: list[int], tmp_path: Path
) -> None:
    [kept] = await stored(store, 1)
    await stored(store, 400, IMPORT)
    assert len(await found(store)) == 10
    other = SqliteStore(tmp_path / "store.db", MODEL)
    await other.open()
    assert await other.imports.delete_memories(IMPORT, None, 1000) == 400
    await other.close()
    assert await found(store) == [kept.memory.key]
    assert products == [401, 401, 1]


async def test_a_memory_whose_deletion_fails_is_found_as_before(store: SqliteStore, tmp_path: Path) -> None:
    [row] = await stored(store, 1)
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
        other.execute(
            "CREATE TABLE holds (seq INTEGER REFERENCES memories (seq) DEFERRABLE INITIALLY DEFERRED)"
        )  # which is looked at as the transaction ends
        other.execute("INSERT INTO holds SELECT seq FROM memories")
        assert await found(store) == [row.memory.key]
        with pytest.raises(Exception, match="FOREIGN KEY"):
            await store.memories.delete(row.memory.key)
        assert await found(store) == [row.memory.key]
        other.execute("DROP TABLE holds")
    assert await store.memories.delete(row.memory.key)
    assert await found(store) == []
