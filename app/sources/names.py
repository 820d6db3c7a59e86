"""How a file is called in the store, whatever bytes its name is made of."""

import hashlib
import os
from pathlib import Path


def shown_name(path: Path) -> str:
    """Its name without the folder, for people."""
    return as_text(path.name)


def file_key(path: Path) -> str:
    """The same for the same path, and short enough for an index."""
    return f"file:{hashlib.sha256(os.fsencode(path)).hexdigest()}"


def as_text(path: str | Path) -> str:
    """A path in characters that every store takes: what is not UTF-8 becomes U+FFFD."""
    return os.fsencode(path).decode(errors="replace")
