"""JSON bodies, read and checked in one pass by pydantic-core; what would take long to read is refused unread."""

import json
import re
import traceback
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from app.api.headers import all_fields, first_field
from app.errors import UnsupportedMediaTypeError

MAX_VALUES = 2**20
"""Room for 1,000 memories with vectors of 1,024 numbers. Reading holds the event loop, some 1 µs a value."""

MAX_FAULTS = 50
"""Of a body, or of a memory of a batch, that are looked at one by one; a million would take seconds."""

M = TypeVar("M", bound=BaseModel)

_JSON = re.compile(r"application/(?:[\w.-]+\+)?json", re.ASCII)


async def read_as(model: type[M], request: Request, *, optional: bool = False) -> M:
    """The body as a model; a route that asks for it has `openapi_extra=described(model)`.

    By then the caller is known to have the scope: who has not is refused before the body is looked at. An `optional`
    body may be empty. It is no dependency of the route: a request spends a tenth of its time on these.

    Raises:
        UnsupportedMediaTypeError: see `json_of`.
        RequestValidationError: see `parse`.
    """
    if optional and not await request.body():
        return model()
    return parse(model, await json_of(request))


def described(model: type[BaseModel], *, optional: bool = False) -> dict[str, Any]:
    """The body for the OpenAPI document, with the models that it is made of in place."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})
    text = json.dumps(schema)
    for name, part in parts.items():
        text = text.replace(json.dumps({"$ref": f"#/$defs/{name}"}), json.dumps(part))
    content = {"application/json": {"schema": json.loads(text)}}
    return {"requestBody": {"required": not optional, "content": content}}


async def json_of(request: Request) -> bytes:
    """The body.

    Raises:
        UnsupportedMediaTypeError: it is compressed, or does not say that it is JSON. A page in a browser may send other
            bodies to this machine unasked.
    """
    refuse_encoded(request)
    media_type = first_field(request.scope, b"content-type").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise UnsupportedMediaTypeError(f"content-type: must be application/json, got {media_type or 'none'!r}")
    return await request.body()


def refuse_encoded(request: Request) -> None:
    """Raises UnsupportedMediaTypeError for a compressed body, which would be read as it is."""
    encodings = all_fields(request.scope, b"content-encoding")
    if any(encoding.strip().lower() != "identity" for encoding in encodings):
        given = ", ".join(encodings)
        raise UnsupportedMediaTypeError(f"content-encoding: must be absent, or identity, got {given[:80]!r}")


def parse(model: type[M], body: bytes) -> M:
    """The body as a model.

    Raises:
        RequestValidationError: it is no JSON (RFC 8259), may hold more values than are taken, or is not of this form.
    """
    try:
        return _parsed(model, body)
    except RequestValidationError as error:
        # The frames would hold the body as long as the garbage collector rests, and it rests long.
        traceback.clear_frames(error.__traceback__)
        raise error.with_traceback(None) from None


def _parsed(model: type[M], body: bytes) -> M:
    if _values(body) > MAX_VALUES:
        raise _no_json(f"must hold at most {MAX_VALUES} values; send it in parts")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() > 1 or error.errors(include_input=False)[0]["type"] != "json_invalid":
            raise _refusal(error) from None
    return _parsed_by_python(model, body)


def _parsed_by_python(model: type[M], body: bytes) -> M:
    """What Python takes for JSON and pydantic-core does not, such as half a surrogate pair: its field is named so."""
    try:
        return model.model_validate(json.loads(body.decode("utf-8-sig")))
    except ValidationError as error:
        raise _refusal(error) from None
    except UnicodeDecodeError:
        raise _no_json("must be UTF-8") from None
    except json.JSONDecodeError as error:
        raise _no_json(f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _no_json("is nested too deeply") from None
    except ValueError:
        raise _no_json("holds a number of too many digits") from None


def faults(error: ValidationError) -> list[dict[str, Any]]:
    """What pydantic found wrong; where that is very much, how much it is."""
    count = error.error_count()
    if count > MAX_FAULTS:
        return [
            {
                "type": "too_many_faults",
                "loc": (),
                "msg": f"has {count} faults, more than {MAX_FAULTS}; see its fields in /docs",
            }
        ]
    return [{**item} for item in error.errors(include_url=False)]


def _refusal(error: ValidationError) -> RequestValidationError:
    return RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in faults(error)])


def _no_json(why: str) -> RequestValidationError:
    return RequestValidationError([{"type": "json_invalid", "loc": ("body",), "msg": why, "ctx": {"error": why}}])


def _values(body: bytes) -> int:
    """How many values the body may hold; 0 where they are few enough."""
    if len(body) <= MAX_VALUES or _separators(body) <= MAX_VALUES:
        return 0
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # now a quote begins or ends a string
    if (strings := bare.count(b'"') // 2) > 2 * MAX_VALUES:  # a value has at most a name and a text
        return strings
    return _separators(b"".join(bare.split(b'"')[::2]))


def _separators(body: bytes) -> int:
    """Each value but the first stands behind one of these."""
    return body.count(b",") + body.count(b"[") + body.count(b"{")
