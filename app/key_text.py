"""Keys on the command line: what is asked for, in words, and a key in one line."""

import re
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from app.access import Key
from app.api.problems import sentences
from app.api.schemas import KeyIn
from app.errors import InvalidInputError

SPAN = re.compile(r"(\d{1,5})([hdw])", re.ASCII)
HOURS = {"h": 1, "d": 24, "w": 7 * 24}


def key_asked_for(name: str, scopes: str, projects: str | None, expires: str | None) -> KeyIn:
    """The key that the options ask for, checked as the route checks it.

    Raises:
        InvalidInputError: names the wrong value and what is allowed.
    """
    try:
        return KeyIn.model_validate(
            {
                "name": name,
                "scopes": _parts(scopes),
                "projects": None if projects is None else _parts(projects),
                "expires_at": None if expires is None else expiry(expires, datetime.now(UTC)),
            }
        )
    except ValidationError as error:
        raise InvalidInputError(sentences(error.errors())) from None


def expiry(text: str, now: datetime) -> datetime:
    """The time that `90d`, `12h`, `4w`, a date or a time stands for; without a zone it is UTC.

    Raises:
        InvalidInputError: it is none of these.
    """
    if span := SPAN.fullmatch(text):
        return now + timedelta(hours=int(span[1]) * HOURS[span[2]])
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"--expires: must be a time as 2030-01-31, or a span as 90d or 12h, got {text!r}"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def describe_key(key: Key) -> str:
    """A key in one line."""
    words = [str(key.id), ",".join(key.scopes), ",".join(key.projects) if key.projects else "all projects"]
    if key.revoked_at:
        words.append(f"revoked {key.revoked_at:%Y-%m-%d %H:%M}")
    elif key.expires_at:
        words.append(f"{'expires' if key.usable(datetime.now(UTC)) else 'expired'} {key.expires_at:%Y-%m-%d %H:%M}")
    return "  ".join([*words, key.name])


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
