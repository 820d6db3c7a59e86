"""SQLite for files that may be damaged or hostile."""

import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.errors import SourceError

MAX_ROW_BYTES = 64 * 1024 * 1024
SILENT_SECONDS = 60.0
"""A statement that yields no row for so long is stopped."""
CLOCK_INSTRUCTIONS = 50_000
LEAST_ENTRY_BYTES = 6
"""What the shortest entry of a table or an index takes in a file."""
DEFENCES = (
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA query_only = ON",
    "PRAGMA mmap_size = 0",
)


class GuardedFile:
    """A file that nobody writes, opened for reading; text comes as bytearray, so that it differs from a blob.

    Whatever the file holds, a statement ends, changes nothing, and needs bounded memory.
    """

    def __init__(self, path: Path) -> None:
        self.max_entries = path.stat().st_size // LEAST_ENTRY_BYTES
        """More entries than this no table or index in a file of this size has."""
        self._deadline = 0.0
        # immutable: no locks, and no side files, neither read nor made.
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None, check_same_thread=False
        )
        self._connection.text_factory = bytearray
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES)
        self._connection.set_progress_handler(self._is_overdue, CLOCK_INSTRUCTIONS)
        for pragma in DEFENCES:
            self._connection.execute(pragma)

    def select(self, statement: str, values: Mapping[str, Any] | None = None) -> Iterator[tuple[Any, ...]]:
        """The rows of a statement, one at a time.

        Raises:
            sqlite3.Error: the file is damaged.
            SourceError: the next row takes too long; so would the others.
        """
        self._renew_deadline()
        try:
            for row in self._connection.execute(statement, values or {}):
                yield row
                self._renew_deadline()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            raise SourceError(f"reading the file took more than {SILENT_SECONDS:g} s for a single row") from error
        except UnicodeDecodeError as error:  # names in the file, in SQLite's message
            raise sqlite3.DatabaseError("the schema of the file is not UTF-8") from error

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def _renew_deadline(self) -> None:
        self._deadline = time.monotonic() + SILENT_SECONDS

    def _is_overdue(self) -> bool:
        return time.monotonic() > self._deadline
