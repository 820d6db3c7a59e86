"""A consistent private copy of a SQLite file that other programs may be using."""

import errno
import os
import shutil
import sqlite3
import stat
import time
from contextlib import closing, suppress
from pathlib import Path

from app.errors import SourceError, UnavailableError
from app.sources.header import check_header

ATTEMPTS = 5
LOCK_SECONDS = 30.0
"""How long another program may keep the file locked."""
CLOCK_TICK_NS = 20_000_000
"""File systems note times of change about as coarsely as this: two changes within a tick may look like one."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
RETRY_SECONDS = 30
SIDE_FILES = ("-wal", "-shm", "-journal")
SUPER_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


def snapshot(original: Path, copy: Path) -> None:
    """Writes all that is committed in `original` to `copy`, which comes into being whole or not at all.

    Neither the original nor a file beside it is changed or created, not even the shared memory of its WAL.

    Raises:
        SourceError: `original` is not there, not a file, unreadable, empty, truncated or not SQLite; or it stays
            locked, or changes faster than it can be copied.
        UnavailableError: there is no room for the copy.
    """
    original = Path(os.path.realpath(original))
    partial = copy.with_name(f"{copy.name}.partial")
    try:
        _require_content(original)
        _take(original, partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(copy)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise _no_room(copy.parent) from error
        raise SourceError(f"the file cannot be copied: {error.strerror}") from error
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise _no_room(copy.parent) from error
        raise SourceError(f"the file cannot be copied: {error}") from error
    except UnicodeDecodeError as error:  # names in the file, in SQLite's message
        raise SourceError("the file cannot be copied: its schema is not UTF-8") from error
    finally:
        _delete(partial)


def _no_room(folder: Path) -> UnavailableError:
    return UnavailableError(
        f"there is no room for a copy of the file in {folder}; make some, or name another folder "
        "(AFTERIMAGE_SPOOL_FOLDER)",
        RETRY_SECONDS,
    )


def _require_content(path: Path) -> None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(f"there is no file {path}") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{path} is not a file")
    if status.st_size == 0:
        raise SourceError("the file is empty, expected a SQLite database")
    for suffix in SIDE_FILES:  # SQLite would wait for a pipe, and follow a link out of the folder
        beside = _beside(path, suffix)
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(beside.lstat().st_mode):
                raise SourceError(
                    f"{beside.name!r} beside the file is not a file, so SQLite did not make it; remove it"
                )


def _take(original: Path, partial: Path) -> None:
    for _ in range(ATTEMPTS):
        _delete(partial)
        if _is_readable_in_place(original):
            try:
                _back_up(original, partial)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
                    raise
                # A crash left something to be rolled back or recovered: that is done in the copy.
            else:
                return
        if _copy_files(original, partial):
            _recover(partial)
            return
        time.sleep(2 * CLOCK_TICK_NS / 1e9)
    raise SourceError(
        f"the file changed during each of {ATTEMPTS} attempts to copy it; stop what writes to it, and try again"
    )


def _is_readable_in_place(original: Path) -> bool:
    """True if SQLite can read it without creating a file beside it.

    SQLite itself is asked whether it is a WAL database: with `nolock` it opens no such one. Had this process opened and
    closed the file to look, that would have dropped the locks of all its other connections to it.
    """
    if _beside(original, "-wal").exists():
        return _beside(original, "-shm").exists()
    try:
        with closing(_connect(original, "mode=ro&nolock=1")) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.DatabaseError as error:
        return error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN
    return True


def _back_up(original: Path, partial: Path) -> None:
    """With `readonly_shm` the shared memory of a live WAL is read as it is; plain `mode=ro` writes to it."""
    with closing(_connect(original, "mode=ro&readonly_shm=1")) as source, closing(sqlite3.connect(partial)) as target:
        try:
            # Holding the read lock from here on, the backup cannot meet a lock, on which it would wait for ever.
            source.execute("BEGIN")
            source.execute("PRAGMA schema_version").fetchone()
            target.execute("PRAGMA synchronous = OFF")  # snapshot() flushes the whole
            source.backup(target)
        except sqlite3.OperationalError:
            raise  # locked, say: then opening the file here would drop this process's locks
        except sqlite3.DatabaseError:
            check_header(original)
            raise


def _copy_files(original: Path, partial: Path) -> bool:
    """Copies a database that nobody has open, with what a crash left beside it; False if somebody has."""
    now, before = time.time_ns(), _state(original)
    if any(0 <= now - changed < CLOCK_TICK_NS for _, _, changed in before.values()):
        return False  # one more change might not show
    try:
        for suffix in before:
            if suffix != "-shm":
                shutil.copyfile(_beside(original, suffix), _beside(partial, suffix))
    except FileNotFoundError:
        return False
    return _state(original) == before


def _state(original: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, size and time of change of the database and of the files beside it that are there, by suffix."""
    state = {}
    for suffix in ("", *SIDE_FILES):
        with suppress(FileNotFoundError):
            status = _beside(original, suffix).stat()
            state[suffix] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return state


def _recover(partial: Path) -> None:
    """Rolls back or merges what lies beside the copy, so that one whole file remains."""
    if _names_super_journal(_beside(partial, "-journal")):
        # That may be any file of this machine, and SQLite would read it, and might delete it.
        raise SourceError(
            "the file was left in the middle of a transaction over several files; open it once with sqlite3"
        )
    with closing(sqlite3.connect(partial, isolation_level=None)) as connection:
        try:
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        except sqlite3.DatabaseError:
            check_header(partial)
            raise


def _names_super_journal(journal: Path) -> bool:
    if not journal.exists():
        return False
    with journal.open("rb") as file:
        file.seek(-min(journal.stat().st_size, len(SUPER_JOURNAL_MAGIC)), os.SEEK_END)
        return file.read() == SUPER_JOURNAL_MAGIC


def _connect(path: Path, options: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?{options}", uri=True, isolation_level=None, timeout=LOCK_SECONDS)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _delete(path: Path) -> None:
    for suffix in ("", *SIDE_FILES):
        _beside(path, suffix).unlink(missing_ok=True)
