"""Reads the SQLite files of AI-AfterImage and of this service, also while they are in use, damaged, or hostile."""

from app.sources.folder import find_below
from app.sources.header import check_complete
from app.sources.reader import BEFORE_ALL, Reader, format_of
from app.sources.snapshots import snapshot

__all__ = ["BEFORE_ALL", "Reader", "check_complete", "find_below", "format_of", "snapshot"]
