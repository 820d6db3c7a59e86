"""Rows of PostgreSQL as what they stand for."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from app.models import Best, Distinct, EmbeddingStatus, Found, Match, Memory, MemoryKey, Piece


def key_arrays(keys: Iterable[MemoryKey]) -> dict[str, Any]:
    """Keys as the two arrays that queries take."""
    keys = list(keys)
    return {"projects": [key.project for key in keys], "ids": [key.id for key in keys]}


def memory_from(row: Any) -> Memory:
    """The one place where a row becomes a memory."""
    status = EmbeddingStatus.READY
    if row["queued"]:
        status = EmbeddingStatus.FAILED if row["due_at"] is None else EmbeddingStatus.PENDING
    return Memory(
        id=row["id"],
        project=row["project"],
        file_path=row["file_path"],
        new_code=row["new_code"],
        old_code=row["old_code"],
        context=row["context"],
        session_id=row["session_id"],
        agent_id=row["agent_id"],
        language=row["language"],
        timestamp=in_utc(row["timestamp"]),
        created_at=row["created_at"],
        embedding_status=status,
        import_id=row["import_id"],
    )


def distinct_from(row: Any) -> Distinct:
    """A row of `distinct_memories`."""
    return Distinct(memory_from(row), row["code_hash"], row["copies"], in_utc(row["last_timestamp"]))


def best_from(rows: Sequence[Any]) -> Best:
    """All rows of `distinct_memories` behind a search."""
    found = [
        Found(
            Match(MemoryKey(row["project"], row["id"]), row["score"], piece_from(row["first_line"], row["last_line"])),
            row["rank"],
            distinct_from(row),
        )
        for row in rows
    ]
    return Best(found, rows[0]["present"] if rows else 0)


def piece_from(first_line: int | None, last_line: int | None) -> Piece | None:
    """The part of long code that a vector is of; None where that is all of it."""
    return None if first_line is None or last_line is None else Piece(first_line, last_line)


def in_utc(time: datetime) -> datetime:
    """The first and the last moment there is asyncpg sends as infinite, and answers without a zone."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
