"""The `Idempotency-Key` of a request, as draft-ietf-httpapi-idempotency-key-header has it, and the answer to it."""

import hashlib
import re
from typing import Any

from fastapi import Request, Response

from app.access import Caller
from app.api.headers import all_fields
from app.errors import MalformedKeyError
from app.store.idempotency import Answer, RepeatableRequest

HEADER = "Idempotency-Key"
FIELD = HEADER.lower().encode()
REPLAYED = "Idempotent-Replayed"

MAX_KEY_CHARACTERS = 255
SHOWN_CHARACTERS = 80

_QUOTED = r'(?:[ !#-\[\]-~]|\\["\\])'
_BARE = r"[!#-+\--:<-\[\]-~]"
PATTERN = f'^(?:"{_QUOTED}{{1,{MAX_KEY_CHARACTERS}}}"|{_BARE}{{1,{MAX_KEY_CHARACTERS}}})$'
"""A string of RFC 9651 (structured fields), or without its quotes, as most clients send it."""

_KEY = re.compile(PATTERN, re.ASCII)

KEY_PARAMETER: dict[str, Any] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Makes the write repeatable for 24 hours: a key of your choice, such as a new UUID, of "
    f"1 to {MAX_KEY_CHARACTERS} ASCII characters, in double quotes or, where it holds no space, quote, "
    "comma, semicolon and backslash, without. The same request (route, query and body byte for byte) with the "
    f"same key changes nothing and gets the first answer again, marked by `{REPLAYED}: true`. Another request "
    "with it is answered 422; a repetition while the first is still running 409, with `Retry-After`. Requests "
    "that stored nothing, errors above all, leave the key free. Each of the service's keys has its own.",
    "schema": {"type": "string", "pattern": PATTERN},
    "example": '"8e03978e-40d5-43e8-bc93-6894a57f9324"',
}
"""For `parameters` in the `openapi_extra` of a route: as a parameter of the function it would cost who sends none."""

REPLAYED_HEADER: dict[str, Any] = {
    REPLAYED: {
        "description": f"`true` where this is the first answer to the `{HEADER}`, given again.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}


async def repeatable(request: Request, caller: Caller) -> RepeatableRequest | None:
    """What identifies a request with the header; None without.

    Raises:
        MalformedKeyError: the header is not a key.
    """
    fields = all_fields(request.scope, FIELD)
    if not fields:
        return None
    place = f"{request.method} {request['path']}?".encode() + request["query_string"]
    digest = hashlib.sha256(place + b"\n")
    digest.update(await request.body())
    return RepeatableRequest(caller.identity, _key_from(fields), digest.digest())


def response_of(answer: Answer) -> Response:
    """The answer as a response."""
    headers = {}
    if answer.memory_id is not None:
        headers["Location"] = f"/v1/memories/{answer.memory_id}"
    if answer.replayed:
        headers[REPLAYED] = "true"
    return Response(answer.body, answer.status, headers, "application/json")


def _key_from(fields: list[str]) -> str:
    sent = ", ".join(fields).strip()
    if not _KEY.fullmatch(sent):
        raise MalformedKeyError(
            f"{HEADER}: must be one string of 1 to {MAX_KEY_CHARACTERS} ASCII characters, as in {HEADER}: "
            f'"8e03978e-40d5-43e8-bc93-6894a57f9324", got {sent[:SHOWN_CHARACTERS]!r} ({len(sent)} characters)'
        )
    return re.sub(r"\\(.)", r"\1", sent[1:-1]) if sent.startswith('"') else sent
