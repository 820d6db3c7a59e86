"""Where a client may name files."""

from pathlib import Path

from app.errors import SourceError


def find_below(folder: Path, name: str) -> Path:
    """The file that `name` means below `folder`, links and `..` resolved; an absolute name must lie below it too.

    Raises:
        SourceError: it lies outside (the same answer whether or not it exists), or there is no such file.
    """
    root = folder.resolve()
    shown = repr(name if len(name) <= 200 else f"{name[:200]}...")
    try:
        path = (root / name).resolve()
        outside, there = not path.is_relative_to(root), path.is_file()
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, a NUL character
        raise SourceError(f"{shown} is no usable file name") from None
    if outside:
        raise SourceError(f"{shown} does not lie below the import folder {root}")
    if not there:
        raise SourceError(f"there is no file {shown} below the import folder {root}")
    return path
