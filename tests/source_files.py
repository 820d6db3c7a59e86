"""Writes small files as AI-AfterImage and this service write them, damages them, and walks through them."""

import os
import random
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

import migrations
from app.models import Reject, SourceRow
from app.sources import BEFORE_ALL, Reader
from app.store.sqlite.values import code_hash

PAGE_BYTES = 4096
DIMENSIONS = 384
MODEL = "all-MiniLM-L6-v2"

AI_AFTERIMAGE_SCHEMA = """
CREATE TABLE code_memory (
  id TEXT PRIMARY KEY,
  file_path TEXT NOT NULL,
  old_code TEXT,
  new_code TEXT NOT NULL,
  context TEXT,
  timestamp TEXT NOT NULL,
  session_id TEXT,
  embedding BLOB,
  UNIQUE (file_path, timestamp)
);
CREATE INDEX idx_file_path ON code_memory (file_path);
CREATE INDEX idx_timestamp ON code_memory (timestamp);
CREATE INDEX idx_session ON code_memory (session_id);
CREATE VIRTUAL TABLE code_memory_fts
  USING fts5 (id, file_path, new_code, context, content='code_memory', content_rowid='rowid');
CREATE TRIGGER code_memory_ai AFTER INSERT ON code_memory BEGIN
  INSERT INTO code_memory_fts (rowid, id, file_path, new_code, context)
  VALUES (new.rowid, new.id, new.file_path, new.new_code, new.context);
END;
"""

AI_AFTERIMAGE_08_COLUMNS = """
ALTER TABLE code_memory ADD COLUMN content_hash TEXT;
ALTER TABLE code_memory ADD COLUMN unit_key TEXT;
ALTER TABLE code_memory ADD COLUMN version INTEGER;
ALTER TABLE code_memory ADD COLUMN supersedes TEXT;
ALTER TABLE code_memory ADD COLUMN is_latest INTEGER NOT NULL DEFAULT 1;
ALTER TABLE code_memory ADD COLUMN seen_count INTEGER NOT NULL DEFAULT 1;
ALTER TABLE code_memory ADD COLUMN last_seen TEXT;
"""

LOOSE_SCHEMA = """
CREATE TABLE code_memory (id, file_path, old_code, new_code, context, timestamp, session_id, embedding);
"""
"""Takes any value in any column, as a file that somebody edited."""

Entry = Mapping[str, Any]


def entry(number: int, **changes: object) -> dict[str, Any]:
    """One row of `code_memory`; the same number gives the same row."""
    return {
        "id": str(UUID(int=number, version=4)),
        "file_path": f"/home/dev/src/module_{number}.py",
        "old_code": None if number % 2 else f"def f{number}(): ...\n",
        "new_code": f"def f{number}():\n    return {number}\n",
        "context": f"Write f{number}",
        "timestamp": (datetime(2026, 1, 5, 9, tzinfo=UTC) + timedelta(seconds=number)).isoformat(),
        "session_id": f"session-{number % 3}",
        "embedding": vector_blob(number),
        **changes,
    }


def vector_blob(seed: int, dimensions: int = DIMENSIONS) -> bytes:
    """A vector of unit length as AI-AfterImage stores it."""
    vector = np.random.default_rng(seed).standard_normal(dimensions)
    return (vector / np.linalg.norm(vector)).astype("<f4").tobytes()


def write_ai_afterimage(path: Path, entries: Iterable[Entry], *, schema: str = AI_AFTERIMAGE_SCHEMA) -> Path:
    """A file of AI-AfterImage 0.1 to 0.7, which share one schema."""
    return _write(path, schema, {"code_memory": entries})


def write_ai_afterimage_08(path: Path, entries: Iterable[Entry]) -> Path:
    """A file of AI-AfterImage 0.8; entries may set its columns of revisions."""
    return _write(path, AI_AFTERIMAGE_SCHEMA + AI_AFTERIMAGE_08_COLUMNS, {"code_memory": entries})


def write_service(path: Path, memories: Iterable[Entry], embeddings: Iterable[Entry] = ()) -> Path:
    """A file of this service with rows of its tables `memories` and `embeddings`."""
    folder = Path(str(migrations.__file__)).parent / "sqlite"
    schema = "".join(migration.read_text(encoding="utf-8") for migration in sorted(folder.glob("*.sql")))
    return _write(path, schema, {"memories": memories, "embeddings": embeddings})


def insert(connection: sqlite3.Connection, table: str, rows: Iterable[Entry]) -> None:
    """Adds rows; keys are columns."""
    for row in rows:
        columns, values = ", ".join(row), ", ".join(f":{column}" for column in row)
        connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({values})", dict(row))


def row_page(path: Path, text: str) -> int:
    """The page, from 1, of the row of a table in which a text stands."""
    content = path.read_bytes()
    pages = range(0, len(content), PAGE_BYTES)
    return (
        next(at for at in pages if content[at] == 0x0D and text.encode() in content[at : at + PAGE_BYTES]) // PAGE_BYTES
        + 1
    )


def fullest_page(path: Path, text: str) -> int:
    """The page, from 1, on which a text stands most often."""
    content = path.read_bytes()
    pages = range(0, len(content), PAGE_BYTES)
    return max(pages, key=lambda at: content.count(text.encode(), at, at + PAGE_BYTES)) // PAGE_BYTES + 1


def zero_page(path: Path, page: int) -> None:
    """Damages as a failing disk does."""
    with path.open("rb+") as file:
        file.seek((page - 1) * PAGE_BYTES)
        file.write(bytes(PAGE_BYTES))


def scribble(path: Path, chance: random.Random, count: int) -> None:
    """Overwrites so many bytes anywhere but in the magic of the header."""
    content = bytearray(path.read_bytes())
    for _ in range(count):
        content[chance.randrange(16, len(content))] = chance.randrange(256)
    path.write_bytes(content)


def scribble_page_header(path: Path, chance: random.Random, page: int) -> None:
    """Damages what says where the rows of a page lie."""
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 3, 12))):
        content[(page - 1) * PAGE_BYTES + chance.randrange(60)] = chance.randrange(256)
    path.write_bytes(content)


def mark_as_wal(path: Path) -> None:
    """A snapshot then goes another way."""
    content = bytearray(path.read_bytes())
    content[18:20] = b"\2\2"[: len(content[18:20])]
    path.write_bytes(content)
    os.utime(path, (0, 0))


def damage(path: Path, chance: random.Random, number: int) -> None:
    """Cuts a file short, zeroes pages or scribbles over it, by turns."""
    size = path.stat().st_size
    match number % 4:
        case 0:
            truncate(path, chance.randrange(size), mend_header=chance.random() < 0.8)
        case 1:
            for _ in range(chance.choice((1, 2, 8))):
                zero_page(path, chance.randrange(2, size // PAGE_BYTES + 1))
        case 2:
            scribble(path, chance, chance.choice((1, 20, 1000)))
        case _:
            scribble_page_header(path, chance, chance.randrange(2, size // PAGE_BYTES + 1))
    if chance.random() < 0.3:
        mark_as_wal(path)


def truncate(path: Path, size_bytes: int, *, mend_header: bool = False) -> None:
    """Cuts the end off; a mended header does not tell how long the file was."""
    content = bytearray(path.read_bytes()[:size_bytes])
    if mend_header:
        content[92:96] = bytes(4)
    path.write_bytes(content)


def walk(reader: Reader, limit: int = 500) -> list[SourceRow | Reject]:
    """All rows, batch by batch."""
    rows: list[SourceRow | Reject] = []
    while batch := reader.rows(rows[-1].rowid if rows else BEFORE_ALL, limit):
        rows += batch
    return rows


def _write(path: Path, schema: str, tables: Mapping[str, Iterable[Entry]]) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.create_function("code_hash", 1, code_hash)
        connection.executescript(schema)
        for table, rows in tables.items():
            insert(connection, table, rows)
    return path
