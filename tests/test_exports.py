"""Exports: what a store holds arrives in an AI-AfterImage file, on each store."""

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import pytest

from app.errors import ConflictError, InvalidInputError
from app.export_run import ExportRun
from app.imports import ImportOptions
from app.store.protocol import Store
from app.store.sqlite import SqliteStore
from tests.conftest import MODEL
from tests.memories import NOON, new, vector
from tests.source_files import Entry, entry, write_ai_afterimage
from tests.test_imports import opened, run

MICROSECOND = timedelta(microseconds=1)

ENTRIES = [entry(number) for number in range(1, 1203)] + [entry(2000, embedding=None, context=None, session_id=None)]
"""More than two pages."""


def rows(path: Path, columns: str = "*") -> list[dict[str, Any]]:
    """The rows of a file, and that it is sound."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        connection.execute("INSERT INTO code_memory_fts (code_memory_fts) VALUES ('integrity-check')")
        return [dict(row) for row in connection.execute(f"SELECT {columns} FROM code_memory ORDER BY timestamp, id")]


def assert_equal(found: list[dict[str, Any]], expected: Sequence[Entry]) -> None:
    """Every field of every row; vectors to the precision they are stored with."""
    assert len(found) == len(expected)
    by_id = {row["id"]: row for row in found}
    for row in expected:
        there = by_id[row["id"]]
        assert {**there, "embedding": None} == {**row, "embedding": None}
        if row["embedding"] is None:
            assert there["embedding"] is None
        else:
            kept, given = (np.frombuffer(blob, "<f4") for blob in (there["embedding"], row["embedding"]))
            assert np.array_equal(kept, given.astype(np.float16).astype(np.float32))


async def export(store: Store, path: Path, projects: list[str] | None = None, *, overwrite: bool = False) -> ExportRun:
    done = ExportRun(store, path, projects, overwrite=overwrite)
    await done.run()
    return done


async def test_an_imported_file_comes_out_equal_field_by_field(store: Store, tmp_path: Path) -> None:
    source = write_ai_afterimage(tmp_path / "memory.db", ENTRIES)
    await run(await opened(store, tmp_path), source, ImportOptions(batch_size=500))
    done = await export(store, tmp_path / "out.db")
    assert_equal(rows(tmp_path / "out.db"), ENTRIES)
    assert (done.counts.written, done.counts.with_vector) == (1203, 1202)
    assert (done.counts.new_times, done.counts.new_ids, done.counts.failed) == (0, 0, 0)
    assert (done.progress.processed, done.progress.total, done.progress.percent) == (1203, 1203, 100.0)
    assert not any(done.not_carried_over.values())


async def test_a_file_of_the_sqlite_store_comes_out_equal_after_a_move(store: Store, tmp_path: Path) -> None:
    source = write_ai_afterimage(tmp_path / "memory.db", ENTRIES[-300:])
    first = SqliteStore(tmp_path / "first.db", MODEL)
    await first.open()
    await run(await opened(first, tmp_path), source)
    await first.close()
    await run(await opened(store, tmp_path), tmp_path / "first.db", ImportOptions(batch_size=500))
    await export(store, tmp_path / "out.db")
    assert_equal(rows(tmp_path / "out.db"), ENTRIES[-300:])


async def test_the_words_of_the_file_can_be_searched(store: Store, tmp_path: Path) -> None:
    await store.memories.add([new(new_code="parse the header"), new(new_code="something else")], NOON)
    await export(store, tmp_path / "out.db")
    with closing(sqlite3.connect(tmp_path / "out.db")) as connection:
        match = "SELECT new_code FROM code_memory_fts WHERE code_memory_fts MATCH 'header'"
        assert connection.execute(match).fetchall() == [("parse the header",)]


async def test_memories_of_one_file_and_time_follow_each_other_in_their_order(store: Store, tmp_path: Path) -> None:
    ids = [UUID(int=number, version=4) for number in range(1, 1202)]
    same = [new(id=one, file_path="a.py", new_code=str(one)) for one in reversed(ids)]
    neighbour = new(file_path="a.py", timestamp=NOON + 2 * MICROSECOND, new_code="neighbour")
    other = new(file_path="b.py")
    await store.memories.add([*same, neighbour, other], NOON)
    done = await export(store, tmp_path / "out.db")
    assert (done.counts.written, done.counts.new_times) == (1203, 1200)
    found = [row for row in rows(tmp_path / "out.db") if row["file_path"] == "a.py"]
    times = [datetime.fromisoformat(row["timestamp"]) for row in found]
    assert times == [NOON + number * MICROSECOND for number in range(1202)]
    assert found[2]["new_code"] == "neighbour"
    assert [row["id"] for row in found if row["new_code"] != "neighbour"] == [str(one) for one in ids]


async def test_an_id_in_two_projects_becomes_two_ids(store: Store, tmp_path: Path) -> None:
    one = UUID(int=1, version=4)
    await store.memories.add([new(id=one, project="a"), new(id=one, project="b", file_path="b.py")], NOON)
    done = await export(store, tmp_path / "out.db")
    assert (done.counts.written, done.counts.new_ids, done.counts.new_times) == (2, 1, 0)
    assert {row["id"] for row in rows(tmp_path / "out.db")} == {str(one), str(uuid5(one, "b"))}


async def test_fields_without_a_place_are_counted(store: Store, tmp_path: Path) -> None:
    await store.memories.add([new(project="shop", agent_id="me", language="klingon"), new(file_path="b.py")], NOON)
    done = await export(store, tmp_path / "out.db")
    assert done.not_carried_over == {"project": 1, "agent_id": 1, "language": 1}


async def test_only_the_projects_asked_for_are_written(store: Store, tmp_path: Path) -> None:
    await store.memories.add([new(project=name, file_path=name) for name in ("a", "b", "c")], NOON)
    await export(store, tmp_path / "out.db", ["a", "c"])
    assert {row["file_path"] for row in rows(tmp_path / "out.db")} == {"a", "c"}


async def test_vectors_of_another_model_are_left_out(store: Store, tmp_path: Path) -> None:
    made = new()
    await store.memories.add([made], NOON)
    await store.embeddings.save("another", {made.memory.key: vector(1.0, 2.0)})
    done = await export(store, tmp_path / "out.db")
    assert done.counts.with_vector == 0
    assert rows(tmp_path / "out.db")[0]["embedding"] is None


async def test_a_memory_without_a_free_time_is_counted_as_failed(store: Store, tmp_path: Path) -> None:
    last = datetime.max.replace(tzinfo=UTC)
    await store.memories.add([new(file_path="a.py", timestamp=last) for _ in range(2)], NOON)
    done = await export(store, tmp_path / "out.db")
    assert (done.counts.written, done.counts.failed) == (1, 1)


@pytest.fixture
async def small(tmp_path: Path) -> Any:
    """A store with one memory."""
    store = SqliteStore(tmp_path / "small.db", MODEL)
    await store.open()
    await store.memories.add([new()], NOON)
    yield store
    await store.close()


async def test_a_file_that_is_there_is_kept_unless_it_may_be_overwritten(small: Store, tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    path.write_text("precious")
    with pytest.raises(ConflictError, match="--force"):
        await export(small, path)
    assert path.read_text() == "precious"
    await export(small, path, overwrite=True)
    assert len(rows(path)) == 1


@pytest.mark.parametrize("suffix", [".partial", "-wal", "-journal"])
async def test_a_file_in_the_making_or_in_use_is_left_alone(small: Store, tmp_path: Path, suffix: str) -> None:
    beside = tmp_path / f"out.db{suffix}"
    beside.write_text("theirs")
    with pytest.raises(ConflictError, match=str(beside)):
        await export(small, tmp_path / "out.db")
    assert beside.read_text() == "theirs"
    assert not (tmp_path / "out.db").exists()


async def test_a_missing_folder_is_named(small: Store, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"nowhere/out\.db"):
        await export(small, tmp_path / "nowhere" / "out.db")


async def test_nothing_remains_of_an_export_that_is_ended(small: Store, tmp_path: Path) -> None:
    await small.memories.add([new(timestamp=NOON + number * MICROSECOND) for number in range(3000)], NOON)
    run = ExportRun(small, tmp_path / "out.db", None)
    task = asyncio.create_task(run.run())
    async with asyncio.timeout(20):
        while not run.counts.written:
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [name for name in os.listdir(tmp_path) if name.startswith("out.db")]
