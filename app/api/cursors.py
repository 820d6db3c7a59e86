"""Places in a list, as clients send them back for the next page."""

import base64
import binascii
import json
from datetime import datetime
from uuid import UUID

from pydantic import TypeAdapter

from app.api.fields import Project, Time
from app.errors import InvalidInputError
from app.store.protocol import Position

_TIME: TypeAdapter[datetime] = TypeAdapter(Time)
_PROJECT: TypeAdapter[str] = TypeAdapter(Project)


def encode_cursor(*parts: object) -> str:
    """A place as an opaque text."""
    return base64.urlsafe_b64encode(json.dumps([str(part) for part in parts]).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, parts: int) -> list[str]:
    """The parts of a place.

    Raises:
        InvalidInputError: this is not one of our cursors.
    """
    try:
        decoded = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        decoded = None
    if not isinstance(decoded, list) or len(decoded) != parts or not all(isinstance(part, str) for part in decoded):
        raise InvalidInputError(f"cursor: must be the next_cursor of an earlier page, got {cursor[:80]!r}")
    return decoded


def position_from(cursor: str) -> Position:
    """The place in the list of memories that a cursor stands for."""
    timestamp, project, memory_id = decode_cursor(cursor, 3)
    try:
        return Position(_TIME.validate_python(timestamp), _PROJECT.validate_python(project), UUID(memory_id))
    except ValueError:
        raise InvalidInputError(f"cursor: must be the next_cursor of an earlier page, got {cursor[:80]!r}") from None
