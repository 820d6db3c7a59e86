"""The floor of the writers: the same rows by hand-written code on asyncpg or sqlite3, without a service.

Everything that can be made beforehand is: words, vectors, languages. Each write is durable when it counts.
"""

import asyncio
import pickle
import sqlite3
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import uvloop
from pgvector import HalfVector
from pgvector.asyncpg import register_vector
from uuid_utils.compat import uuid7

from app.store.migrate import pending
from app.store.sqlite.values import code_hash
from tests.benchmarks.tally import Tally

MODEL = "all-MiniLM-L6-v2"
PROJECT = "bench"
SERVER_SETTINGS = {"jit": "off", "gin_pending_list_limit": "65536"}
"""As the service sets them: without the second, writers stall."""

STORE = """
WITH stored AS (
  INSERT INTO memories (project, id, file_path, new_code, language, timestamp, created_at, words)
  VALUES ('bench', $1, $2, $3, $4, $5, $5, $6::text::tsvector)
)
"""

ONE_EMBEDDED = f"""{STORE}
INSERT INTO embeddings (project, memory_id, model, piece, embedding) VALUES ('bench', $1, '{MODEL}', 0, $7)
"""

ONE_PENDING = f"""{STORE}
INSERT INTO embedding_queue (project, memory_id, model, due_at) VALUES ('bench', $1, '{MODEL}', $5)
"""

MANY = f"""
WITH given AS (
  SELECT * FROM unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::halfvec[]
  ) AS row (id, file_path, new_code, language, at, words, vector)
), stored AS (
  INSERT INTO memories (project, id, file_path, new_code, language, timestamp, created_at, words)
  SELECT 'bench', id, file_path, new_code, language, at, at, words::tsvector FROM given
), embedded AS (
  INSERT INTO embeddings (project, memory_id, model, piece, embedding)
  SELECT 'bench', id, '{MODEL}', 0, vector FROM given WHERE vector IS NOT NULL
)
INSERT INTO embedding_queue (project, memory_id, model, due_at)
SELECT 'bench', id, '{MODEL}', at FROM given WHERE vector IS NULL
"""

SQLITE = (
    "INSERT INTO memories (project, id, file_path, new_code, language, timestamp, created_at) VALUES (?,?,?,?,?,?,?)",
    "INSERT INTO memory_words (rowid, code, identifiers, names, path, context) VALUES (?,?,?,?,?,?)",
    "INSERT INTO embeddings (project, memory_id, model, piece, embedding) VALUES (?,?,?,0,?)",
    "INSERT INTO embedding_queue (project, memory_id, model, due_at) VALUES (?,?,?,?)",
)


@dataclass(frozen=True, slots=True)
class BareRow:
    """A row with everything made: `words` as text of a tsvector, `columns` as SQLite has them, the vector in halves."""

    file_path: str
    new_code: str
    language: str | None
    words: str
    columns: tuple[str, str, str, str, str]
    halves: bytes | None


@dataclass(frozen=True, slots=True)
class PostgresSide:
    """Writers on a pool; each puts `batch` rows in with one statement, which is a transaction.

    `executemany` sends rows as asyncpg's manual says; without it they go in as arrays, which is the fastest there is.
    """

    url: str
    pool: int
    rows: list[BareRow]
    writers: int
    batch: int
    seconds: float
    executemany: bool = False


@dataclass(frozen=True, slots=True)
class SqliteSide:
    """One connection to a new file, which puts `batch` rows in with each commit."""

    path: Path
    rows: list[BareRow]
    batch: int
    seconds: float


async def keep_session(connection: Any) -> None:
    """Spares the round trip with which asyncpg resets a connection that comes back, as the service does."""


async def postgres(side: PostgresSide) -> Tally:
    """All writers, until the time is over."""
    pool = await asyncpg.create_pool(
        side.url,
        min_size=side.pool,
        max_size=side.pool,
        init=register_vector,
        reset=keep_session,
        server_settings=SERVER_SETTINGS,
    )
    values = [(row.file_path, row.new_code, row.language, row.words, _vector(row.halves)) for row in side.rows]
    tally = Tally(side.seconds)

    async def write(number: int) -> None:
        rows = islice(cycle(values), number * len(values) // side.writers, None)
        while not tally.over:
            batch = list(islice(rows, side.batch))
            started = time.perf_counter()
            async with pool.acquire() as connection:
                if side.batch == 1:
                    await connection.execute(*_one(batch[0]))
                elif side.executemany:
                    statement = ONE_PENDING if batch[0][-1] is None else ONE_EMBEDDED
                    await connection.executemany(statement, [_one(row)[1:] for row in batch])
                else:
                    await _insert_many(connection, batch)
            tally.note(started)

    await asyncio.gather(*(write(number) for number in range(side.writers)))
    await pool.close()
    return tally


def _one(row: Sequence[Any]) -> tuple[Any, ...]:
    """The statement for one row, and its values."""
    file_path, new_code, language, words, vector = row
    values = (uuid7(), file_path, new_code, language, datetime.now(UTC), words)
    return (ONE_PENDING, *values) if vector is None else (ONE_EMBEDDED, *values, vector)


async def _insert_many(connection: Any, rows: Sequence[Sequence[Any]]) -> None:
    file_paths, new_codes, languages, words, vectors = zip(*rows, strict=True)
    ids, times = [uuid7() for _ in rows], [datetime.now(UTC)] * len(rows)
    await connection.execute(MANY, ids, file_paths, new_codes, languages, times, words, vectors)


def _vector(halves: bytes | None) -> HalfVector | None:
    return None if halves is None else HalfVector(np.frombuffer(halves, dtype="<f2"))


def sqlite(side: SqliteSide) -> Tally:
    """One row after the other, until the time is over."""
    side.path.unlink(missing_ok=True)
    connection = sqlite3.connect(side.path, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "cache_size = -65536"):
        connection.execute(f"PRAGMA {pragma}")
    connection.create_function("code_hash", 1, code_hash)
    for migration in pending("sqlite", 0):
        connection.executescript(migration.sql)
    rows = cycle(side.rows)
    tally = Tally(side.seconds)
    while not tally.over:
        started = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        for row in islice(rows, side.batch):
            _insert(connection, row)
        connection.execute("COMMIT")
        tally.note(started)
    connection.close()
    side.path.unlink()
    return tally


def _insert(connection: sqlite3.Connection, row: BareRow) -> None:
    memories, words, embeddings, queue = SQLITE
    key, now = str(uuid7()), datetime.now(UTC).isoformat()
    place = connection.execute(memories, (PROJECT, key, row.file_path, row.new_code, row.language, now, now)).lastrowid
    connection.execute(words, (place, *row.columns))
    if row.halves is None:
        connection.execute(queue, (PROJECT, key, MODEL, now))
    else:
        connection.execute(embeddings, (PROJECT, key, MODEL, row.halves))


def main() -> None:
    """Runs the side that comes on standard input."""
    side = pickle.load(sys.stdin.buffer)
    tally = sqlite(side) if isinstance(side, SqliteSide) else uvloop.run(postgres(side))
    tally.tell()


if __name__ == "__main__":
    # What is unpickled names this module as it is imported, not as it is run.
    from tests.benchmarks.bare_writers import main as run

    run()
