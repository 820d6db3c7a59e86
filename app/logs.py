"""Structured logs: one line an event, as JSON or for a person at a terminal."""

import json
import logging
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Literal, TextIO

import structlog
from pydantic_core import PydanticSerializationError, to_json

from app.errors import AfterImageError, InvalidInputError

TELLING = (OSError, AttributeError, TypeError, NameError, ImportError, NotImplementedError, AfterImageError)
"""Errors whose message tells of the program; that of any other may hold what somebody has sent."""

WARNING_SECONDS = 60.0
"""Between two warnings of the same."""

log = structlog.get_logger(__name__)

KEPT_DETAILS = ("sqlstate", "table_name", "column_name", "constraint_name", "sqlite_errorname")


def describe(error: BaseException) -> str:
    """An error in one line that holds nothing of what is stored or searched, unlike its own message."""
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    if isinstance(error, TELLING) and not isinstance(error, InvalidInputError | UnicodeError):
        return f"{name}: {' '.join(str(error).split())}"
    details = [f"{key}={value}" for key in KEPT_DETAILS if (value := getattr(error, key, None))]
    return " ".join([name, *details])


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what led to it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _trace(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Where an error happened, without its message and without the values of variables."""
    found = event.pop("exc_info", None)
    error = found[1] if isinstance(found, tuple) else sys.exc_info()[1] if found is True else found
    if isinstance(error, BaseException):
        parts = []
        for cause in _causes(error):
            frames = "".join(traceback.format_tb(cause.__traceback__))
            parts.append(f"Traceback (most recent call last):\n{frames}{describe(cause)}")
        event["exception"] = "\n\ncaused by\n\n".join(parts)
    return event


def _first_line(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Libraries write the error itself, or a task that holds it, below their first line."""
    event["event"] = str(event["event"]).partition("\n")[0]
    return event


def _json(event: structlog.typing.EventDict, default: Callable[[Any], Any]) -> str:
    """The event in ASCII, in a fourth of the time of `json`, which takes what is no UTF-8, as names of files may be."""
    try:
        return to_json(event, ensure_ascii=True, fallback=default).replace(b"\x7f", b"\\u007f").decode()
    except PydanticSerializationError:
        return json.dumps(event, default=str)


class _Lines:
    """Where our events go, without the records of `logging`: a request logs a line, in half the time."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self.name = name
        self._stream = stream

    def msg(self, line: str) -> None:
        """Writes a line; where that fails nobody is left to be told, and the request goes on."""
        with suppress(OSError, ValueError):
            self._stream.write(f"{line}\n")
            self._stream.flush()

    debug = info = warning = error = exception = critical = msg


class SeldomWarnings:
    """Warns of what goes on for long: of each once a minute, however often it is met."""

    def __init__(self) -> None:
        self._warned_at: dict[str, float] = {}

    def warn(self, event: str, **details: Any) -> None:
        """Logs it, unless that was done within the last minute."""
        if time.monotonic() - self._warned_at.get(event, -math.inf) > WARNING_SECONDS:
            self._warned_at[event] = time.monotonic()
            log.warning(event, **details)


def configure_logs(level: str, form: Literal["auto", "json", "console"]) -> None:
    """Sends our events, and those of the libraries, to standard error; `auto` is for a person if that is a terminal."""
    for_person = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if for_person
        else structlog.processors.JSONRenderer(serializer=_json)
    )
    structlog.configure(
        processors=[*shared, _trace, render],
        logger_factory=partial(_Lines, sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[_first_line, _trace, structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)  # a traceback a second while the server is down
    logging.getLogger("uvicorn.error").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """False for what the log has already, with the id of the request."""
    return not str(record.msg).startswith("Exception in ASGI application")
