"""Cells of SQLite become the values of a SourceRow.

A row is taken verbatim or not at all: nothing is cut short. What is changed loses no words, and `altered` says it: a
number or a blob in the place of text, a NUL character (which PostgreSQL cannot store), an id that is no UUID.
"""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np

from app.models import (
    MAX_NAME_CHARACTERS,
    MAX_PATH_CHARACTERS,
    MAX_PROJECT_CHARACTERS,
    MAX_TEXT_BYTES,
    Reject,
    SourceRow,
    Vector,
)

Cell: TypeAlias = bytearray | bytes | int | float | None
"""bytearray is text, bytes is a blob."""

_TOO_EXACT = re.compile(r"[.,]\d{6}0*[1-9]")

MAX_SHOWN_CHARACTERS = 200
UNIT_TOLERANCE = 1e-6


class UnusableCellError(Exception):
    """The row cannot be taken; the message is the reason."""


class Text:
    """Makes text of the cells of one row; `changes` collects what did not stay as it was."""

    def __init__(self) -> None:
        self.changes: list[str] = []
        self.held_nul = False

    def optional(self, name: str, cell: Cell, max_characters: int | None = None) -> str | None:
        """None for NULL; without `max_characters` the limit is that of code, in bytes."""
        if cell is None:
            return None
        text = self._decode(name, cell)
        if max_characters is not None and len(text) > max_characters:
            raise UnusableCellError(f"{name} has {len(text):,} characters, the limit is {max_characters:,}")
        if max_characters is None and (size := len(text.encode())) > MAX_TEXT_BYTES:
            raise UnusableCellError(f"{name} has {size:,} bytes of UTF-8, the limit is {MAX_TEXT_BYTES:,}")
        return text

    def required(self, name: str, cell: Cell, max_characters: int | None = None) -> str:
        """As `optional`, but there must be something."""
        text = self.optional(name, cell, max_characters)
        if not text:
            raise UnusableCellError(f"{name} is {'missing' if text is None else 'empty'}")
        return text

    def _decode(self, name: str, cell: bytearray | bytes | float) -> str:
        if isinstance(cell, int | float):
            self.changes.append(f"{name} was stored as a number")
            return str(cell)
        if len(cell) > MAX_TEXT_BYTES:
            raise UnusableCellError(f"{name} has {len(cell):,} bytes, the limit is {MAX_TEXT_BYTES:,}")
        if isinstance(cell, bytes):
            self.changes.append(f"{name} was stored as a blob")
        try:
            text = cell.decode()
        except UnicodeDecodeError as error:
            raise UnusableCellError(f"{name} is not UTF-8: byte {cell[error.start]:#04x} at {error.start:,}") from None
        if "\0" in text:
            self.held_nul = True
            self.changes.append(f"{name} held {text.count(chr(0)):,} NUL characters, now U+FFFD")
            return text.replace("\0", "\ufffd")
        return text


def row_from(cells: Sequence[Any], vector_type: str, dimensions: int) -> SourceRow | Reject:
    """One row, its cells in the order of `Format.rows`; `vector_type` is numpy's name for a stored component."""
    rowid, stored_id, path, new_code, old_code, context, session, time, embedding, project, agent, language = cells
    text = Text()
    try:
        content = (
            text.required("file_path", path, MAX_PATH_CHARACTERS),
            text.required("new_code", new_code),
            text.optional("old_code", old_code),
            text.optional("context", context),
            text.optional("session_id", session, MAX_NAME_CHARACTERS),
        )
        written_time = text.required("timestamp", time, MAX_NAME_CHARACTERS)
        vector, vector_problem = vector_from(embedding, vector_type, dimensions)
        if text.held_nul and embedding is not None:
            vector, vector_problem = None, vector_problem or "embedding was made of text with NUL characters"
        moment = timestamp_from(written_time)
        if _TOO_EXACT.search(written_time):
            text.changes.append("timestamp was more exact than a microsecond")
        return SourceRow(
            rowid,
            _id_from(stored_id, (*content, written_time), text.changes),
            *content,
            timestamp=moment,
            vector=vector,
            vector_problem=vector_problem,
            project=text.optional("project", project, MAX_PROJECT_CHARACTERS) or None,
            agent_id=text.optional("agent_id", agent, MAX_NAME_CHARACTERS),
            language=text.optional("language", language, MAX_NAME_CHARACTERS),
            altered="; ".join(text.changes) or None,
        )
    except UnusableCellError as problem:
        return Reject(rowid, shown_id(stored_id), str(problem))


def _id_from(cell: Cell, content: Sequence[str | None], changes: list[str]) -> UUID:
    """The same id in every run: it depends on the content, not on the rowid, which VACUUM changes."""
    if cell is None or cell == b"":
        changes.append("id was missing, made from the content")
        return uuid5(NAMESPACE_URL, repr(content))
    written = _readable(cell)
    try:
        found = UUID(written)
    except ValueError:
        found = uuid5(NAMESPACE_URL, written)
    if str(found) != written:
        changes.append(f"id was {_shown(written)!r}")
    return found


def timestamp_from(text: str) -> datetime:
    """What AI-AfterImage wrote, in UTC; without a zone it is UTC already."""
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UnusableCellError(f"timestamp must be ISO 8601 in the years 1 to 9999, got {text!r}") from None


def vector_from(cell: Cell, vector_type: str, dimensions: int) -> tuple[Vector | None, str | None]:
    """The vector at unit length, or what is wrong with it; neither for NULL."""
    if cell is None:
        return None, None
    if not isinstance(cell, bytes):
        return None, "embedding is not stored as a blob"
    expected = dimensions * np.dtype(vector_type).itemsize
    if len(cell) != expected:
        return None, f"embedding has {len(cell):,} bytes, expected {expected:,} ({dimensions} dimensions)"
    stored = np.frombuffer(cell, vector_type)
    if not np.isfinite(stored).all():
        return None, "embedding holds values that are not finite"
    vector = stored.astype(np.float64)
    length = math.sqrt(vector @ vector)
    if length == 0:
        return None, "embedding is all zero"
    if abs(length - 1) > UNIT_TOLERANCE:
        vector /= length
    return vector.astype(np.float32), None


def shown_id(cell: Cell) -> str | None:
    """An id for people to read, whatever is stored; None for NULL."""
    return None if cell is None else _shown(_readable(cell).replace("\0", "\ufffd"))


def _readable(cell: bytearray | bytes | float) -> str:
    return str(cell) if isinstance(cell, int | float) else cell.decode(errors="backslashreplace")


def _shown(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."
