"""Finds out what a file is."""

import sqlite3
from collections.abc import Mapping

from app.errors import SourceError
from app.sources.formats import FORMATS, Format
from app.sources.guarded import GuardedFile

TABLES = """
SELECT name, CASE WHEN type = 'view' THEN 'a view' WHEN rootpage = 0 THEN 'a virtual table' ELSE 'table' END
FROM sqlite_schema
WHERE type IN ('table', 'view')
ORDER BY name
"""

COLUMNS = "SELECT name FROM pragma_table_xinfo(:table) WHERE hidden = 0"
"""Without generated columns, whose expressions are the file's own."""


def recognise(file: GuardedFile) -> Format:
    """The format of the file.

    Raises:
        SourceError: none fits; says what was found and what was expected.
    """
    kinds = {name.decode(errors="replace").lower(): kind.decode() for name, kind in file.select(TABLES)}
    candidates = [form for form in FORMATS if next(iter(form.tables)) in kinds]
    if not candidates:
        found = ", ".join(list(kinds)[:10]) or "none"
        raise SourceError(f"the file has no table code_memory, so AI-AfterImage did not write it; its tables: {found}")
    problems = [_problem(file, kinds, form) for form in candidates]
    for form, problem in zip(candidates, problems, strict=True):
        if problem is None:
            return form
    raise SourceError(str(problems[-1]))


def _problem(file: GuardedFile, kinds: Mapping[str, str], form: Format) -> str | None:
    for table, expected in form.tables.items():
        kind = kinds.get(table, "nothing")
        if kind != "table":
            return f"{table} must be a table, the file has {kind} of that name"
        found = {name.decode(errors="replace").lower() for (name,) in file.select(COLUMNS, {"table": table})}
        if "rowid" in found:
            return f"the table {table} has a column rowid, which hides the number of the row"
        if not _has_rowid(file, table):
            return f"the table {table} is WITHOUT ROWID, and its rows have no number"
        if not expected <= found:
            columns = f"found {', '.join(sorted(found)[:30])}; expected {', '.join(sorted(expected))}"
            return f"the table {table} lacks {', '.join(sorted(expected - found))}: {columns}"
    return None


def _has_rowid(file: GuardedFile, table: str) -> bool:
    try:
        list(file.select(f"SELECT rowid FROM {table} LIMIT 0"))  # noqa: S608 - a name of ours
    except sqlite3.OperationalError as error:
        if "no such column" in str(error):
            return False
        raise
    return True
