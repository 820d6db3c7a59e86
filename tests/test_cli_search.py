"""`afterimage search` beside a service or without one: it reads, and does no work of a service."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.store.postgresql import PostgresStore
from app.store.protocol import Store
from app.store.sqlite import SqliteStore
from tests.conftest import connections
from tests.processes import afterimage
from tests.source_files import entry, write_ai_afterimage

COUNT = 150
"""More than two claims of the background."""


async def due(store: Store) -> int:
    """How many memories a service that starts now takes."""
    await store.open()
    try:
        now = datetime.now(UTC)
        return len(await store.embeddings.claim("hashing", 2 * COUNT, now, now))
    finally:
        await store.close()


@pytest.mark.parametrize("backend", ["postgresql", "sqlite"])
def test_a_search_makes_no_vectors_and_takes_no_work_from_a_service(
    tmp_path: Path, database_for_processes: str, backend: str
) -> None:
    source = write_ai_afterimage(tmp_path / "memory.db", [entry(number) for number in range(COUNT)])
    settings = {
        "AFTERIMAGE_BACKEND": backend,
        "AFTERIMAGE_DATABASE_URL": database_for_processes,
        "AFTERIMAGE_SQLITE_PATH": str(tmp_path / "store.db"),
    }
    assert afterimage(tmp_path, "migrate", "--sqlite", str(source), **settings).returncode == 0
    for mode in ("hybrid", "semantic", "fts"):
        done = afterimage(tmp_path, "search", "--mode", mode, "entry", **settings)
        assert (done.returncode, done.stderr) == (0, "")
    store: Store
    if backend == "sqlite":
        store = SqliteStore(tmp_path / "store.db", "hashing")
    else:
        store = PostgresStore(connections(database_for_processes), "hashing")
    assert asyncio.run(due(store)) == COUNT


def test_a_search_by_words_needs_no_model(tmp_path: Path) -> None:
    source = write_ai_afterimage(tmp_path / "memory.db", [entry(1)])
    settings = {"AFTERIMAGE_EMBEDDING_MODEL": str(tmp_path / "no-model"), "HF_HUB_OFFLINE": "1"}
    assert afterimage(tmp_path, "migrate", "--sqlite", str(source), **settings).returncode == 0
    found = afterimage(tmp_path, "search", "--mode", "fts", "return", **settings)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout
