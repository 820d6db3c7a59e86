"""That one service at a time serves a SQLite file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import StartupError
from app.file_lock import try_lock


@contextmanager
def alone_on(path: Path) -> Iterator[None]:
    """Keeps other services from the file, until it is left or the process ends; commands such as `migrate` may use it.

    The lock is on a file beside it: SQLite loses its own locks when somebody else closes the same file.

    Raises:
        StartupError: another service has it, or its folder cannot be used.
    """
    whole = path.resolve()
    try:
        whole.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = try_lock(whole.with_name(f"{whole.name}.lock"))
    except OSError as error:
        raise StartupError(
            f"the SQLite file {path} cannot be opened: {error}; check AFTERIMAGE_SQLITE_PATH and its permissions"
        ) from None
    if lock is None:
        raise StartupError(
            f"another service has the SQLite file {path}; stop that one, set AFTERIMAGE_SQLITE_PATH to another file, "
            "or set AFTERIMAGE_BACKEND=postgresql, which any number of services may share"
        )
    with lock:
        yield
