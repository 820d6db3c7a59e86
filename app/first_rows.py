"""Which ids a dry run has met: what it does not store cannot be asked of the store."""

import sqlite3
from collections.abc import Sequence

from app.models import MemoryKey


class FirstRows:
    """The first row of each id of a source, on the disk in a file that goes with the process; for one thread."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("")
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute(
            "CREATE TABLE first_rows (id BLOB, project TEXT, source_rowid INTEGER, PRIMARY KEY (id, project)) "
            "WITHOUT ROWID"
        )

    def note(self, rows: Sequence[tuple[int, MemoryKey]], after: int) -> dict[MemoryKey, int]:
        """Keeps the rowids of keys that are new; answers the first rowid of those that came up to `after`."""
        with self._connection:
            self._connection.executemany(
                "INSERT OR IGNORE INTO first_rows (source_rowid, id, project) VALUES (?, ?, ?)",
                ((rowid, key.id.bytes, key.project) for rowid, key in rows),
            )
        earlier = {}
        for key in {key for _, key in rows}:
            found = self._connection.execute(
                "SELECT source_rowid FROM first_rows WHERE id = ? AND project = ? AND source_rowid <= ?",
                (key.id.bytes, key.project, after),
            ).fetchone()
            if found:
                earlier[key] = int(found[0])
        return earlier

    def close(self) -> None:
        """Removes them."""
        self._connection.close()
