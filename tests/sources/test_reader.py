import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from app.errors import SourceError
from app.models import Reject, SourceRow
from app.sources import Reader
from tests.source_files import (
    LOOSE_SCHEMA,
    MODEL,
    entry,
    insert,
    vector_blob,
    walk,
    write_ai_afterimage,
    write_ai_afterimage_08,
    write_service,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "source.db"


def test_every_field_of_an_ai_afterimage_row_arrives_unchanged(path: Path) -> None:
    written = entry(2)
    with Reader(write_ai_afterimage(path, [written])) as reader:
        (row,) = reader.rows(0, 10)
        assert reader.format == "AI-AfterImage 0.1-0.7"
    assert isinstance(row, SourceRow)
    assert row.vector is not None
    assert row.vector.tobytes() == written["embedding"]
    assert (row.rowid, str(row.id), row.file_path, row.new_code) == (
        1, written["id"], written["file_path"], written["new_code"],
    )  # fmt: skip
    assert (row.old_code, row.context, row.session_id) == (
        written["old_code"], written["context"], written["session_id"],
    )  # fmt: skip
    assert row.timestamp == datetime.fromisoformat(written["timestamp"])
    assert (row.vector_problem, row.altered, row.project) == (None, None, None)


@pytest.mark.parametrize("limit", [1, 3, 7, 500])
def test_batches_of_any_size_yield_each_row_once_and_in_order(path: Path, limit: int) -> None:
    with Reader(write_ai_afterimage(path, [entry(number) for number in range(1, 8)])) as reader:
        assert [row.rowid for row in walk(reader, limit)] == [1, 2, 3, 4, 5, 6, 7]
        assert reader.count == 7
        assert reader.rows(7, limit) == []


def test_a_batch_of_large_texts_has_fewer_rows_and_none_is_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.sources.reader.BATCH_CHARACTERS", 5000)
    write_ai_afterimage(path, [entry(number, new_code="x" * 1000, context="y" * 1000) for number in range(1, 9)])
    with Reader(path) as reader:
        assert [row.rowid for row in reader.rows(0, 100)] == [1, 2, 3]
        assert [row.rowid for row in walk(reader, 100)] == list(range(1, 9))


def test_a_row_that_is_too_large_to_be_read_costs_itself_alone_and_names_the_limit(path: Path) -> None:
    write_ai_afterimage(path, [entry(1), entry(2), entry(3)], schema=LOOSE_SCHEMA)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE code_memory SET new_code = zeroblob(70000000) WHERE rowid = 2")
    with Reader(path) as reader:
        first, second, third = reader.rows(0, 10)
    assert (first.rowid, third.rowid) == (1, 3)
    assert isinstance(second, Reject)
    assert second.source_id == entry(2)["id"]
    assert second.reason == "the row cannot be read: a value has more than 67,108,864 bytes"


def test_gaps_left_by_deleted_rows_are_passed_over(path: Path) -> None:
    write_ai_afterimage(path, [entry(number) for number in range(1, 10)], schema=LOOSE_SCHEMA)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM code_memory WHERE rowid % 3 = 0")
    with Reader(path) as reader:
        assert [row.rowid for row in walk(reader, 2)] == [1, 2, 4, 5, 7, 8]
        assert reader.count == 6


def test_an_empty_table_is_a_source_of_no_rows(path: Path) -> None:
    with Reader(write_ai_afterimage(path, [])) as reader:
        assert (reader.count, reader.rows(0, 10)) == (0, [])


def test_rows_under_rowids_that_ai_afterimage_never_uses_are_taken_but_for_the_last(path: Path) -> None:
    write_ai_afterimage(path, [entry(1)], schema=LOOSE_SCHEMA)
    with closing(sqlite3.connect(path)) as connection, connection:
        places = {2: -5, 3: 0, 4: 2**63 - 1}
        insert(connection, "code_memory", [{"rowid": at, **entry(number)} for number, at in places.items()])
    with Reader(path) as reader:
        rows = walk(reader, 1)
        assert reader.count == len(rows) == 4
    assert [row.rowid for row in rows[:3]] == [-5, 0, 1]
    place = "a rowid that is not in -9223372036854775807 to 9223372036854775806"
    assert rows[3] == Reject(2, None, f"1 rows stand under {place}")


def test_revisions_of_0_8_are_all_taken_and_what_is_lost_is_counted(path: Path) -> None:
    time = entry(1)["timestamp"]
    revision = {"unit_key": entry(1)["file_path"], "version": 1, "last_seen": time}
    write_ai_afterimage_08(
        path,
        [
            entry(1, **revision, is_latest=0),
            entry(2, **revision, supersedes=entry(1)["id"], seen_count=3),
            entry(3),
        ],
    )
    with Reader(path) as reader:
        assert reader.format == "AI-AfterImage 0.8"
        assert [type(row) for row in walk(reader)] == [SourceRow] * 3
        assert reader.unmapped == {"unit_key": 1, "supersedes": 1, "is_latest": 1, "seen_count": 1, "last_seen": 1}


def test_0_7_has_no_columns_without_a_place(path: Path) -> None:
    with Reader(write_ai_afterimage(path, [entry(1)])) as reader:
        assert reader.unmapped == {}


def service_row(number: int, **changes: object) -> dict[str, object]:
    row = entry(number, project="p", agent_id="a", language="python", **changes)
    del row["embedding"]
    return {**row, "created_at": row["timestamp"]}


def service_vector(number: int, model: str = MODEL, piece: int = 0) -> dict[str, object]:
    vector = np.frombuffer(vector_blob(number), "<f4").astype("<f2").tobytes()
    lines = {"first_line": 1, "last_line": 2} if piece else {}
    place = {"project": "p", "memory_id": entry(number)["id"], "model": model, "piece": piece}
    return {**place, "embedding": vector, **lines}


def test_a_file_of_this_service_keeps_project_agent_and_language(path: Path) -> None:
    with Reader(write_service(path, [service_row(1, seq=41)])) as reader:
        (row,) = walk(reader)
        assert reader.format == "AfterImage service"
    assert isinstance(row, SourceRow)
    assert (row.rowid, row.project, row.agent_id, row.language) == (41, "p", "a", "python")
    assert (row.vector, row.vector_problem) == (None, None)


def test_of_this_services_vectors_the_whole_memorys_under_the_given_model_is_taken(path: Path) -> None:
    vectors = [service_vector(1), service_vector(2, piece=1), service_vector(3, model="other")]
    write_service(path, [service_row(number) for number in (1, 2, 3)], vectors)
    for model, expected in ((MODEL, [True, False, False]), ("other", [False, False, True])):
        with Reader(path, model=model) as reader:
            rows = walk(reader)
        assert [isinstance(row, SourceRow) and row.vector is not None for row in rows] == expected
    with Reader(path) as reader:
        row = walk(reader)[0]
    assert isinstance(row, SourceRow)
    assert row.vector is not None
    assert np.linalg.norm(row.vector.astype(np.float64)) == pytest.approx(1, abs=1e-6)
    assert row.vector @ np.frombuffer(vector_blob(1), "<f4") == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("CREATE TABLE notes (x); CREATE TABLE tasks (y)", "no table code_memory.* its tables: notes, tasks"),
        ("CREATE TABLE notes (x); DROP TABLE notes", "its tables: none"),
        ("CREATE VIEW code_memory AS SELECT 1 AS id", "the file has a view of that name"),
        ("CREATE VIRTUAL TABLE code_memory USING fts5 (id)", "the file has a virtual table of that name"),
        (LOOSE_SCHEMA.replace(" context,", ""), "lacks context: found embedding, .*; expected context, "),
        (LOOSE_SCHEMA.replace("context", "context AS (zeroblob(9))"), "lacks context"),
        (LOOSE_SCHEMA.replace("(id", "(rowid, id"), "has a column rowid"),
        (LOOSE_SCHEMA.replace("(id", "(id PRIMARY KEY").replace(");", ") WITHOUT ROWID;"), "is WITHOUT ROWID"),
        ("CREATE TABLE memories (id)", "the table memories lacks agent_id, "),
    ],
)
def test_a_file_without_the_expected_table_is_refused(path: Path, schema: str, message: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(schema)
    with pytest.raises(SourceError, match=message):
        Reader(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 a zip file", r"begins with b'PK\\x03\\x04 a zip file', expected b'SQLite format 3"),
        (b"SQLite format 3\0", "is truncated: it has 16 bytes"),
    ],
)
def test_a_file_that_is_not_sqlite_is_refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        Reader(path)


def test_a_file_that_is_not_there_is_refused(path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        Reader(path)


def test_the_name_of_the_file_may_hold_any_character(tmp_path: Path) -> None:
    odd = tmp_path / "a #?%20 name é.db"
    with Reader(write_ai_afterimage(odd, [entry(1)])) as reader:
        (row,) = walk(reader)
    assert isinstance(row, SourceRow)
    assert row.id == UUID(entry(1)["id"])
    assert row.timestamp.tzinfo is UTC
