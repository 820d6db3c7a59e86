"""What can be known of a folder without making it."""

import os
from pathlib import Path

from app.errors import StartupError


def nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if os.path.lexists(place))


def refuse_unwritable(folder: Path, variable: str) -> None:
    """Raises StartupError if files cannot be made in the folder, or the folder itself cannot be made."""
    found = nearest(folder)
    if not found.is_dir():
        raise StartupError(f"{folder} cannot be made, {found} is not a folder; set {variable} to another place")
    if not os.access(found, os.W_OK | os.X_OK):
        raise StartupError(f"{found} may not be written; chmod u+rwx {found}, or set {variable} to another place")
