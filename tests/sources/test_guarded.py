import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.errors import SourceError
from app.sources.guarded import GuardedFile
from tests.source_files import entry, write_ai_afterimage

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i < 0"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[GuardedFile]:
    with closing(GuardedFile(write_ai_afterimage(tmp_path / "source.db", [entry(1)]))) as file:
        yield file


def test_a_statement_without_end_is_stopped(file: GuardedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.sources.guarded.SILENT_SECONDS", 0.05)
    with pytest.raises(SourceError, match=r"took more than 0.05 s for a single row"):
        list(file.select(ENDLESS))


def test_a_row_that_fills_memory_is_refused(file: GuardedFile) -> None:
    with pytest.raises(sqlite3.Error, match="too big"):
        list(file.select("SELECT zeroblob(64 * 1024 * 1024 + 1)"))


@pytest.mark.parametrize("statement", ["DELETE FROM code_memory", "CREATE TABLE t (x)", "PRAGMA user_version = 7"])
def test_the_file_cannot_be_changed(file: GuardedFile, statement: str) -> None:
    with pytest.raises(sqlite3.Error, match="readonly"):
        list(file.select(statement))


def test_extensions_cannot_be_loaded(file: GuardedFile) -> None:
    with pytest.raises(sqlite3.Error, match="not authorized"):
        list(file.select("SELECT load_extension('/nowhere')"))


@pytest.mark.parametrize(("pragma", "value"), [("trusted_schema", 0), ("cell_size_check", 1), ("query_only", 1)])
def test_what_the_file_says_is_not_trusted(file: GuardedFile, pragma: str, value: int) -> None:
    assert list(file.select(f"PRAGMA {pragma}")) == [(value,)]


def test_text_and_blobs_can_be_told_apart(file: GuardedFile) -> None:
    ((text, blob),) = file.select("SELECT 'a', X'61'")
    assert (type(text), type(blob)) == (bytearray, bytes)
