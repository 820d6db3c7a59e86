"""Routes that store memories."""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from operator import attrgetter
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError

from app.access import Caller
from app.api.deps import Given, Services, Writer, log_projects
from app.api.direct import DirectRoute
from app.api.idempotency import KEY_PARAMETER, REPLAYED_HEADER, repeatable, response_of
from app.api.json_body import described, faults, json_of, parse, read_as
from app.api.problems import responses, sentences
from app.api.schemas import BatchIn, BatchOut, BatchResult, MemoryIn, RoughBatchIn
from app.drafts import Added, AddStatus, Draft
from app.errors import ForbiddenError, InvalidInputError
from app.models import EmbeddingStatus, StoredMemory
from app.store.idempotency import Answer

router = APIRouter(prefix="/v1/memories", tags=["memories"], route_class=DirectRoute)

_stored_fields = attrgetter(
    *("redacted" if field.name == "redacted" else f"memory.{field.name}" for field in fields(StoredMemory))
)
"""Of an `Added` the fields of a StoredMemory, in their order."""

STORED = TypeAdapter(StoredMemory)

WAIT: dict[str, Any] = {
    "name": "wait",
    "in": "query",
    "required": False,
    "description": "`embedding`: answer once it can be found by meaning.",
    "schema": {"type": "string", "const": "embedding"},
}


@router.post(
    "",
    status_code=201,
    response_model=StoredMemory,
    response_description="The memory, as it was stored now.",
    responses={
        200: {
            "model": StoredMemory,
            "description": "It was there already, with the same content.",
            "headers": REPLAYED_HEADER,
        },
        201: {"headers": REPLAYED_HEADER},
        **responses(400, 409, 413, 415, 422),
    },
    openapi_extra={"parameters": [WAIT, KEY_PARAMETER]} | described(MemoryIn),
)
async def add_memory(given: Given, caller: Writer, request: Request) -> Response:
    """Stores an edit, verbatim.

    Credentials are taken out of it first, unless the server is set otherwise.

    It is on the disk and can be found by words when this answers; its vector usually follows within tens of
    milliseconds. With an `id` the request can be repeated: the same content answers 200, other content 409. With an
    `Idempotency-Key` it can be repeated, too, and gets the first answer again.
    """
    waiting = _waits(request)
    body = await read_as(MemoryIn, request)
    log_projects(body.project)
    caller.require_project(body.project)
    draft = body.draft(given.models.target.worker)
    answer_of = partial(_answer, waiting=waiting)
    if repeat := await repeatable(request, caller):
        return response_of(await given.idempotency.add(repeat, [draft], answer_of, wait_for_embedding=waiting))
    return response_of(answer_of([await given.memories.add(draft, wait_for_embedding=waiting)]))


def _waits(request: Request) -> bool:
    """Whether the query asks for it."""
    wait = request.query_params.get("wait") if request.scope["query_string"] else None
    if wait not in {None, "embedding"}:
        message = "Input should be 'embedding'"
        raise RequestValidationError(
            [{"type": "literal_error", "loc": ("query", "wait"), "msg": message, "input": wait}]
        )
    return wait is not None


def _stored(added: Added) -> StoredMemory:
    return StoredMemory(*_stored_fields(added))


def _answer(added: Sequence[Added], *, waiting: bool) -> Answer:
    """The answer to keep: who waits is not answered before the vector is there."""
    [one] = added
    if one.error is not None:
        raise one.error
    stored = _stored(one)
    if waiting:
        stored = replace(stored, embedding_status=EmbeddingStatus.READY)
    return Answer(200 if one.status is AddStatus.EXISTING else 201, STORED.dump_json(stored), stored.id)


async def _read_batch(request: Request) -> list[MemoryIn | str]:
    """The memories of a batch; in the place of a bad one, what is wrong with it."""
    body = await json_of(request)
    try:
        return [*BatchIn.model_validate_json(body).memories]
    except ValidationError:
        return [_checked(item) for item in parse(RoughBatchIn, body).memories]


@router.post(
    "/batch",
    response_model=BatchOut,
    responses={200: {"headers": REPLAYED_HEADER}, **responses(400, 409, 413, 415, 422)},
    openapi_extra={"parameters": [KEY_PARAMETER]} | described(BatchIn),
)
async def add_memories(given: Given, caller: Writer, request: Request) -> Response:
    """Stores up to 1,000 edits in one transaction; a bad one is rejected alone.

    With an `Idempotency-Key` the request can be repeated, and gets the first answer again; one of which every edit was
    rejected leaves the key free.
    """
    drafts, results = _drafts(await _read_batch(request), given, caller)
    log_projects(*(draft.project for draft in drafts.values()))

    def answer_of(added: Sequence[Added]) -> Answer:
        for index, one in zip(drafts, added, strict=True):
            results[index] = BatchResult.of(index, drafts[index], one)
        out = BatchOut(results=[results[index] for index in sorted(results)])
        return Answer(200, out.model_dump_json().encode())

    if repeat := await repeatable(request, caller):
        return response_of(await given.idempotency.add(repeat, list(drafts.values()), answer_of))
    return response_of(answer_of(await given.memories.add_all(list(drafts.values()))))


def _checked(item: Any) -> MemoryIn | str:
    try:
        return MemoryIn.model_validate(item)
    except ValidationError as error:
        return sentences(faults(error))


def _drafts(
    batch: Sequence[MemoryIn | str], given: Services, caller: Caller
) -> tuple[dict[int, Draft], dict[int, BatchResult]]:
    """The drafts of a batch by their place in it, and the results of what cannot be stored.

    What was read is not kept: the numbers of a vector are ten times as large as the vector.
    """
    drafts: dict[int, Draft] = {}
    rejected: dict[int, BatchResult] = {}
    for index, item in enumerate(batch):
        try:
            drafts[index] = _draft(item, given, caller)
        except (InvalidInputError, ForbiddenError) as error:
            rejected[index] = BatchResult(index=index, id=None, status=AddStatus.REJECTED, error=str(error))
    return drafts, rejected


def _draft(item: MemoryIn | str, given: Services, caller: Caller) -> Draft:
    """Raises InvalidInputError or ForbiddenError if it cannot be stored."""
    if isinstance(item, str):
        raise InvalidInputError(item)
    caller.require_project(item.project)
    return item.draft(given.models.target.worker)
