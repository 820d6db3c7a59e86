"""The checks of the SQLite file."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from app.doctor.check import Check
from app.errors import StartupError
from app.folders import refuse_unwritable
from app.store import migrate
from app.store.sqlite.connections import TABLES, refuse_foreign

BUSY_SECONDS = 5.0


def check_sqlite(path: Path) -> Iterator[Check]:
    """Opens the file without making it, and reads all of it."""
    names = ("file", *EXAMINATIONS, "permissions")
    try:
        if not os.path.lexists(path):
            refuse_unwritable(path.parent, "AFTERIMAGE_SQLITE_PATH")
            yield Check.passed("file", f"{path}, which the first start makes")
            yield from Check.skipped(names[1:], "nothing is there yet")
            return
        with closing(_open(path)) as connection:
            refuse_foreign(path, {name for (name,) in connection.execute(TABLES)})
            yield Check.passed("file", f"{path}, {path.stat().st_size:,} bytes")
            for name, examine in EXAMINATIONS.items():
                try:
                    yield Check.passed(name, examine(connection, path))
                except (StartupError, sqlite3.Error) as error:
                    yield Check.failed(name, error)
    except (StartupError, OSError, sqlite3.Error) as error:
        yield Check.failed("file", error)
        yield from Check.skipped(names[1:], "needs file")
        return
    yield _permissions(path)


def _open(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS)
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise StartupError(
            f"the SQLite file {path} cannot be opened: {error}; check AFTERIMAGE_SQLITE_PATH and its permissions"
        ) from None
    return connection


def _integrity(connection: sqlite3.Connection, path: Path) -> str:
    [found] = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise StartupError(
            f"{path} is damaged: {found}; save what can be read: sqlite3 {path} .recover | sqlite3 recovered.db"
        )
    return "quick_check found nothing"


def _migrations(connection: sqlite3.Connection, path: Path) -> str:
    del path
    tables = {name for (name,) in connection.execute(TABLES)}
    applied = 0
    if "schema_migrations" in tables:
        [applied] = connection.execute("SELECT coalesce(max(version), 0) FROM schema_migrations").fetchone()
    return migrate.standing("sqlite", applied)


def _permissions(path: Path) -> Check:
    if not os.access(path, os.R_OK | os.W_OK):
        return Check.failed("permissions", StartupError(f"{path} may not be read and written; chmod u+rw {path}"))
    try:
        refuse_unwritable(path.parent, "AFTERIMAGE_SQLITE_PATH")
    except StartupError as error:
        return Check.failed("permissions", error)
    return Check.passed("permissions", "file and folder may be written")


EXAMINATIONS: dict[str, Callable[[sqlite3.Connection, Path], str]] = {
    "integrity": _integrity,
    "migrations": _migrations,
}
