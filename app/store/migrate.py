"""Numbered plain-SQL migrations, forward only; each store applies them under its own lock."""

import re
from dataclasses import dataclass
from pathlib import Path

import app
from app.errors import StartupError

MIGRATIONS = Path(app.__file__).resolve().parent.parent / "migrations"

_NAME = re.compile(r"(\d{4})_\w+\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    version: int
    sql: str


def pending(dialect: str, applied: int) -> list[Migration]:
    """The migrations of a dialect (a folder below `migrations/`) that follow version `applied`, in order.

    Raises:
        StartupError: the database is newer than this code.
    """
    known = [
        Migration(version=int(match.group(1)), sql=path.read_text(encoding="utf-8"))
        for path in sorted((MIGRATIONS / dialect).iterdir())
        if (match := _NAME.fullmatch(path.name))
    ]
    newest = known[-1].version
    if applied > newest:
        raise StartupError(
            f"the database is at migration {applied} and this version of the service knows only {newest}: "
            "a newer version has used it; start that one"
        )
    return [migration for migration in known if migration.version > applied]


def standing(dialect: str, applied: int) -> str:
    """In words, where a database at version `applied` stands.

    Raises:
        StartupError: it is newer than this code.
    """
    following = pending(dialect, applied)
    return f"at {applied}; the next start applies {len(following)} more" if following else f"at {applied}, the newest"
