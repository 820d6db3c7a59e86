"""Every error as RFC 9457 `application/problem+json`, rendered in this one place."""

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from app.errors import AfterImageError, InvalidInputError, TooLargeError

SHOWN_CHARACTERS = 80
"""So much of a wrong value, or of the name of a field, is repeated in the answer."""

SHOWN_ERRORS = 20

METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")

EVERYWHERE = (401, 403, 429, 503)
"""What any route for callers can answer: no key, not with this one, too often, too much at once."""

HEADERS = {401: "WWW-Authenticate", 403: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}

TYPE_PREFIX = "urn:afterimage:problem:"


class Problem(BaseModel):
    """What went wrong and how to mend it."""

    type: str = Field(description="Stable name of the kind of error.", examples=["urn:afterimage:problem:not-found"])
    title: str = Field(description="The kind of error in words.", examples=["Not found"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(description="This error: the value and the limit.", examples=["there is no memory 0198…"])
    request_id: str = Field(description="The request in the logs of the server.")
    errors: list[dict[str, str]] | None = Field(None, description="Each wrong field, where there are several.")


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that a route can answer, besides those of every route, for the OpenAPI document."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            "headers": {HEADERS[status]: {"schema": {"type": "string"}}} if status in HEADERS else {},
        }
        for status in sorted({*EVERYWHERE, *statuses})
    }


def add_handlers(app: FastAPI) -> None:
    """Makes the application answer errors as problems."""
    for kind, answer in ANSWERS.items():
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(Exception, _unexpected)


async def answer_to(request: Request, error: Exception) -> Response:
    """An error that is expected as a response; any other is raised again."""
    for kind, answer in ANSWERS.items():
        if isinstance(error, kind):
            return await answer(request, error)
    raise error


def problem(
    request: Request,
    status: int,
    kind: str,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, str]] | None = None,
) -> Response:
    """A problem as a response."""
    body: dict[str, Any] = {
        "type": f"{TYPE_PREFIX}{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request.state.request_id,
    }
    if errors:
        body["errors"] = errors
    # ASCII, because a wrong value may hold what UTF-8 cannot.
    return Response(json.dumps(body), status, dict(headers or {}), "application/problem+json")


def of(request: Request, error: AfterImageError) -> Response:
    """One of our errors as a response."""
    return problem(request, error.status, error.type, error.title, str(error), error.headers)


def too_large(limit: int) -> TooLargeError:
    """The error for a body of more than so many bytes."""
    return TooLargeError(f"the body is larger than {limit} bytes (AFTERIMAGE_MAX_BODY_BYTES); send it in parts")


async def _own(request: Request, error: Exception) -> Response:
    if not isinstance(error, AfterImageError):
        raise error
    return of(request, error)


async def _validation(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    found = [{**item, "loc": item["loc"][1:]} for item in error.errors()[:SHOWN_ERRORS]]
    errors = [{"field": _field(item["loc"]), "message": _sentence(item)} for item in found]
    kind = InvalidInputError
    return problem(request, kind.status, kind.type, kind.title, sentences(found), errors=errors)


async def _gone(request: Request, error: Exception) -> Response:
    """Nobody reads the answer, but the log is spared a traceback."""
    del error
    return problem(request, 400, "client-gone", "Bad request", "the client closed the connection within the body")


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == TooLargeError.status:
        return of(request, too_large(request.app.state.max_body_bytes))
    status = HTTPStatus(error.status_code)
    kind = status.phrase.lower().replace(" ", "-")
    details = {
        404: f"there is nothing at {request.url.path}; see /docs",
        405: f"{request.method} is not allowed at {request.url.path}; see /docs",
    }
    detail = details.get(error.status_code, str(error.detail))
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return problem(request, error.status_code, kind, status.phrase, detail, headers)


ANSWERS: Mapping[type[Exception], Callable[[Request, Exception], Coroutine[Any, Any, Response]]] = {
    AfterImageError: _own,
    RequestValidationError: _validation,
    HTTPException: _http,
    ClientDisconnect: _gone,
}
"""How errors are answered that a route is expected to raise."""


def _allowed(request: Request) -> str:
    """The methods of all routes at the path; Starlette itself names those of one route."""
    routes = request.app.routes
    scopes = [{**request.scope, "method": method} for method in METHODS]
    return ", ".join(
        str(scope["method"]) for scope in scopes if any(route.matches(scope)[0] is Match.FULL for route in routes)
    )


async def _unexpected(request: Request, error: Exception) -> Response:
    del error  # the server logs it with its traceback
    kind = AfterImageError
    detail = "an error of the service; its log has the details under this request_id"
    # The middleware that sends the first otherwise has ended; and the server ends the connection.
    headers = {"X-Request-ID": request.state.request_id, "Connection": "close"}
    return problem(request, kind.status, kind.type, kind.title, detail, headers)


def sentences(errors: Sequence[Any]) -> str:
    """What pydantic found wrong, in one line."""
    parts = [f"{_field(item['loc'])}: {_sentence(item)}".removeprefix(": ") for item in errors[:SHOWN_ERRORS]]
    return "; ".join(parts)


def _field(location: Sequence[str | int]) -> str:
    """A field as `memories[3].file_path`; empty for the whole body."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{_beginning(part)}"
    return path.removeprefix(".")


def _sentence(item: Mapping[str, Any]) -> str:
    """What is allowed, and what was sent."""
    message = str(item["msg"])
    value = item.get("input")
    if item["type"] == "json_invalid":
        return f"the body is no JSON: {item['ctx']['error']}"
    if item["type"] in {"model_type", "dataclass_type"}:  # pydantic names the class
        return f"Input should be an object, got {_shown(value)}"
    if item["type"] in {"missing", "too_many_faults"}:
        return message[0].lower() + message[1:]
    if isinstance(value, str) and item["type"].startswith("string_too"):
        return f"{message}, got {len(value)}"
    if isinstance(value, list | dict) and item["type"].startswith("too_"):
        return message
    return f"{message}, got {_shown(value)}"


def _shown(value: Any) -> str:
    """The beginning of a value as JSON; of a large one no more is written than that."""
    shown = ""
    for part in json.JSONEncoder(default=repr).iterencode(
        value[: SHOWN_CHARACTERS + 1] if isinstance(value, str) else value
    ):
        shown += part
        if len(shown) > SHOWN_CHARACTERS:
            break
    return _beginning(shown)


def _beginning(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
