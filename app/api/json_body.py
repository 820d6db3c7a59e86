"""JSON bodies, read and checked in one pass by pydantic-core."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from app.errors import UnsupportedMediaTypeError

M = TypeVar("M", bound=BaseModel)


def read_as(model: type[M]) -> Callable[[Request], Awaitable[M]]:
    """Dependency: the body as a model; a route with it has `openapi_extra=described(model)`.

    It stands behind the caller, who is refused before the body is looked at. A media type other than JSON is refused: a
    page in a browser may send such a body to this machine unasked.
    """

    async def read(request: Request) -> M:
        return parse(model, await json_of(request))

    return read


def described(model: type[BaseModel]) -> dict[str, Any]:
    """The body for the OpenAPI document, with the models that it is made of in place."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})
    text = json.dumps(schema)
    for name, part in parts.items():
        text = text.replace(json.dumps({"$ref": f"#/$defs/{name}"}), json.dumps(part))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": json.loads(text)}}}}


async def json_of(request: Request) -> bytes:
    """The body.

    Raises:
        UnsupportedMediaTypeError: it says that it is not JSON.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise UnsupportedMediaTypeError(f"content-type: must be application/json, got {media_type or 'none'!r}")
    return await request.body()


def parse(model: type[M], body: bytes) -> M:
    """The body as a model.

    Raises:
        RequestValidationError: it is no JSON, or not of this form.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if error.errors(include_input=False)[0]["type"] != "json_invalid":
            raise refusal(error) from None
        return _parse_odd(model, body, error)


def refusal(error: ValidationError) -> RequestValidationError:
    """The error as that of a request, with what is wrong in the body."""
    items = error.errors(include_url=False)
    return RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in items])


def _parse_odd(model: type[M], body: bytes, why: ValidationError) -> M:
    """What Python takes for JSON and pydantic-core does not, such as half a surrogate pair: its field is named so."""
    try:
        return model.model_validate(json.loads(body))
    except ValidationError as error:
        raise refusal(error) from None
    except (ValueError, RecursionError):
        raise refusal(why) from None
