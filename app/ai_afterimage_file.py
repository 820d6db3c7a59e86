"""Writes a file that AI-AfterImage 0.7 and 0.8 open and search."""

import os
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid5

import numpy as np
from numpy.typing import NDArray

from app.errors import ConflictError, InvalidInputError
from app.models import ExportCounts, Memory

# As AI-AfterImage 0.7 makes it; 0.8 adds its columns and tables when it opens the file.
SCHEMA = """
CREATE TABLE code_memory (
  id TEXT PRIMARY KEY,
  file_path TEXT NOT NULL,
  old_code TEXT,
  new_code TEXT NOT NULL,
  context TEXT,
  timestamp TEXT NOT NULL,
  session_id TEXT,
  embedding BLOB,
  UNIQUE(file_path, timestamp)
);

CREATE INDEX idx_file_path ON code_memory(file_path);
CREATE INDEX idx_timestamp ON code_memory(timestamp);
CREATE INDEX idx_session ON code_memory(session_id);

CREATE VIRTUAL TABLE code_memory_fts USING fts5(
  id,
  file_path,
  new_code,
  context,
  content='code_memory',
  content_rowid='rowid'
);

CREATE TRIGGER code_memory_ai AFTER INSERT ON code_memory BEGIN
  INSERT INTO code_memory_fts(rowid, id, file_path, new_code, context)
  VALUES (new.rowid, new.id, new.file_path, new.new_code, new.context);
END;

CREATE TRIGGER code_memory_ad AFTER DELETE ON code_memory BEGIN
  INSERT INTO code_memory_fts(code_memory_fts, rowid, id, file_path, new_code, context)
  VALUES ('delete', old.rowid, old.id, old.file_path, old.new_code, old.context);
END;

CREATE TRIGGER code_memory_au AFTER UPDATE ON code_memory BEGIN
  INSERT INTO code_memory_fts(code_memory_fts, rowid, id, file_path, new_code, context)
  VALUES ('delete', old.rowid, old.id, old.file_path, old.new_code, old.context);
  INSERT INTO code_memory_fts(rowid, id, file_path, new_code, context)
  VALUES (new.rowid, new.id, new.file_path, new.new_code, new.context);
END;
"""

ADD = """
INSERT INTO code_memory (id, file_path, old_code, new_code, context, timestamp, session_id, embedding)
VALUES (:id, :file_path, :old_code, :new_code, :context, :timestamp, :session_id, :embedding)
ON CONFLICT DO NOTHING
"""

SIDE_FILES = ("-wal", "-journal")

MICROSECOND = timedelta(microseconds=1)

Entry = tuple[Memory, NDArray[np.float16] | None]
"""A memory and its vector."""


class AiAfterImageFile:
    """A file in the making, as FILE.partial, until `finish` or `close`; for one thread.

    AI-AfterImage refuses a second row of the same id, or of the same file and time. Neither is lost here: the later one
    gets an id made from its own and its project, or the next microsecond that is free.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        """Begins the file.

        Raises:
            ConflictError: FILE is there, or is being written, or is in use.
            InvalidInputError: its folder is not there or may not be written.
        """
        self._path = Path(os.path.realpath(path))
        self._partial = self._path.with_name(f"{self._path.name}.partial")
        self._counts = ExportCounts()
        self._refuse_side_files()
        if self._path.exists() and not overwrite:
            raise ConflictError(f"{path} is there already; name another file, or overwrite it with --force")
        if self._path.is_dir():
            raise InvalidInputError(f"{path} is a folder; name a file in it")
        try:
            if overwrite:
                self._partial.unlink(missing_ok=True)
            self._partial.touch(0o600, exist_ok=False)
        except FileExistsError:
            raise ConflictError(
                f"{self._partial} is there already: another export is writing it, or was killed; "
                "wait for it to end, or overwrite it with --force"
            ) from None
        except OSError as error:
            raise InvalidInputError(
                f"{path} cannot be written: {error.strerror}; name a file in a folder that is there and may be written"
            ) from None
        self._connection = sqlite3.connect(self._partial, isolation_level=None)
        try:
            # Nobody reads the file before it is whole, so it needs no protection from a crash.
            self._connection.execute("PRAGMA journal_mode = OFF")
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.executescript(SCHEMA)
        except BaseException:
            self.close()
            raise

    def finish(self) -> None:
        """Puts the file in its place.

        Raises:
            ConflictError: a program has begun to use FILE.
        """
        self._connection.close()
        with self._partial.open("rb+") as file:
            os.fsync(file.fileno())
        self._refuse_side_files()
        self._partial.replace(self._path)

    def close(self) -> None:
        """Closes the file, and leaves nothing of one that is not finished."""
        self._connection.close()
        self._partial.unlink(missing_ok=True)

    def add(self, entries: Iterable[Entry]) -> ExportCounts:
        """Writes entries and answers the counts so far."""
        tried: dict[tuple[str, datetime], datetime] = {}
        self._connection.execute("BEGIN")
        for memory, vector in entries:
            place = (memory.file_path, memory.timestamp)
            try:
                tried[place] = self._add(memory, vector, tried.get(place, memory.timestamp))
            except OverflowError:  # no microsecond is left before the year 10000
                self._counts = replace(self._counts, failed=self._counts.failed + 1)
        self._connection.execute("COMMIT")
        return self._counts

    def _add(self, memory: Memory, vector: NDArray[np.float16] | None, time: datetime) -> datetime:
        """Writes a memory with the first free time from `time` on, and answers that."""
        entry_id = memory.id
        while not self._insert(memory, entry_id, time, vector):
            if self._is_taken(entry_id):
                entry_id = uuid5(entry_id, memory.project)
            else:
                time += MICROSECOND
        counts = self._counts
        self._counts = ExportCounts(
            written=counts.written + 1,
            with_vector=counts.with_vector + (vector is not None),
            new_times=counts.new_times + (time != memory.timestamp),
            new_ids=counts.new_ids + (entry_id != memory.id),
            failed=counts.failed,
        )
        return time

    def _insert(self, memory: Memory, entry_id: UUID, time: datetime, vector: NDArray[np.float16] | None) -> bool:
        row = {
            "id": str(entry_id),
            "file_path": memory.file_path,
            "old_code": memory.old_code,
            "new_code": memory.new_code,
            "context": memory.context,
            "timestamp": time.isoformat(),
            "session_id": memory.session_id,
            "embedding": None if vector is None else vector.astype("<f4").tobytes(),
        }
        return self._connection.execute(ADD, row).rowcount == 1

    def _is_taken(self, entry_id: UUID) -> bool:
        rows = self._connection.execute("SELECT 1 FROM code_memory WHERE id = ?", (str(entry_id),))
        return rows.fetchone() is not None

    def _refuse_side_files(self) -> None:
        """SQLite would apply what another program has left beside FILE to the new one."""
        for suffix in SIDE_FILES:
            beside = self._path.with_name(self._path.name + suffix)
            if beside.exists():
                raise ConflictError(
                    f"{beside} is there, so a program is using {self._path}; end it, or name another file"
                )
