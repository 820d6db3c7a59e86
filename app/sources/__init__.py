"""Reads the SQLite files of AI-AfterImage and of this service, also while they are in use, damaged, or hostile."""

from app.sources.folder import find_below
from app.sources.header import check_complete
from app.sources.names import as_text, file_key, shown_name
from app.sources.reader import BEFORE_ALL, Reader, format_of
from app.sources.snapshots import snapshot

__all__ = [
    "BEFORE_ALL",
    "Reader",
    "as_text",
    "check_complete",
    "file_key",
    "find_below",
    "format_of",
    "shown_name",
    "snapshot",
]
