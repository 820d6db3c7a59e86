"""The first hundred bytes of a SQLite file."""

from pathlib import Path

from app.errors import SourceError

MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100
WAL = 2
"""The version of the file format, for reading and for writing, that has a -wal file."""


def check_header(path: Path) -> None:
    """Finds what can be told without SQLite, and told better.

    Raises:
        SourceError: the file is empty, is not SQLite, or is shorter than its header says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if not header:
        raise SourceError("the file is empty, expected a SQLite database")
    if not header.startswith(MAGIC):
        raise SourceError(f"the file is not a SQLite database: it begins with {header[:16]!r}, expected {MAGIC!r}")
    expected = _database_bytes(header) if len(header) == HEADER_BYTES else HEADER_BYTES
    if size < expected:
        raise SourceError(f"the file is truncated: it has {size:,} bytes, its header says {expected:,}; copy it again")


def check_complete(path: Path) -> None:
    """Finds whether a file that came alone may lack what stands in a file beside the original.

    Raises:
        SourceError: it is in WAL mode.
    """
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if WAL in header[18:20]:
        raise SourceError(
            "the file is in WAL mode: rows may stand in its -wal file, which was not sent; import it by its path, or "
            'bring it together first: sqlite3 FILE "PRAGMA journal_mode = DELETE"'
        )


def _database_bytes(header: bytes) -> int:
    page_bytes = int.from_bytes(header[16:18], "big")
    pages = int.from_bytes(header[28:32], "big")
    if header[24:28] != header[92:96]:
        return 0  # last written by a SQLite older than 3.7.0, which did not keep the number of pages
    return pages * (65536 if page_bytes == 1 else page_bytes)
