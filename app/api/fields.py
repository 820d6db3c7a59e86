"""What fields of bodies are made of, and what all bodies have in common."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)
from pydantic_core import PydanticCustomError

from app.models import MAX_NAME_CHARACTERS, MAX_PATH_CHARACTERS, MAX_PROJECT_CHARACTERS, MAX_TEXT_BYTES

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:")


def _storable(text: str) -> str:
    """PostgreSQL's text cannot hold NUL; both stores refuse it, so that a move between them loses nothing."""
    at = text.find("\0")
    if at >= 0:
        raise PydanticCustomError("nul", "must not contain a NUL character, found one at character {at}", {"at": at})
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError(
            "surrogate", "must not contain half a surrogate pair, found one at character {at}", {"at": error.start}
        ) from None
    return text


def _fits(text: str) -> str:
    size = len(text.encode())
    if size > MAX_TEXT_BYTES:
        raise PydanticCustomError(
            "text_too_long",
            "must have at most {limit} bytes of UTF-8, has {size}",
            {"limit": MAX_TEXT_BYTES, "size": size},
        )
    return text


def _rfc3339(sent: Any) -> Any:
    """Nothing but a date and a time in words: pydantic would take a number for seconds, or for milliseconds."""
    if isinstance(sent, datetime) or (isinstance(sent, str) and _RFC3339.match(sent)):
        return sent
    raise PydanticCustomError("time_format", "must be a time with its zone, such as 2026-05-01T12:00:00Z")


def _utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("time_out_of_range", "must lie in the years 1 to 9999 UTC") from None


Time = Annotated[AwareDatetime, BeforeValidator(_rfc3339), AfterValidator(_utc)]
Storable = AfterValidator(_storable)
Text = Annotated[str, Storable, AfterValidator(_fits)]
Code = Annotated[str, StringConstraints(min_length=1), Storable, AfterValidator(_fits)]
Project = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PROJECT_CHARACTERS), Storable]
Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_CHARACTERS), Storable]
FilePath = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PATH_CHARACTERS), Storable]
Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]


class Body(BaseModel):
    """What is common to all bodies: a misspelt field is an error, not silence."""

    model_config = ConfigDict(extra="forbid")
