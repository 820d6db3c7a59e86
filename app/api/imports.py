"""Routes of imports."""

from collections.abc import AsyncIterable
from contextlib import AbstractAsyncContextManager
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import TypeAdapter

from app.access import Caller
from app.api.deps import Admin, Given, Services, log_projects
from app.api.headers import first_field
from app.api.json_body import parse, refuse_encoded
from app.api.problems import responses
from app.api.schemas import (
    MAX_PAGE,
    FindingPage,
    ImportIn,
    ImportPage,
    ImportQuery,
    Undone,
)
from app.api.stopping import ToldToStop
from app.audit import Action
from app.errors import TooLargeError, UnsupportedMediaTypeError
from app.imports import ImportOptions
from app.models import FindingKind, Import

SQLITE_MEDIA_TYPES = {"application/vnd.sqlite3", "application/x-sqlite3", "application/octet-stream"}

MAX_JSON_BYTES = 64 * 1024

AS_JSON = TypeAdapter(Import)
"""An event reads as the answer of the other routes does."""

router = APIRouter(prefix="/v1/admin/imports", tags=["imports"])

BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": ImportIn.model_json_schema(),
                "example": {"path": "memory.db", "project": "shop"},
            },
            "application/vnd.sqlite3": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post("", status_code=202, responses=responses(413, 415, 422), openapi_extra=BODY)
async def start_import(
    request: Request, response: Response, given: Given, caller: Admin, query: Annotated[ImportQuery, Query()]
) -> Import:
    """Brings an AI-AfterImage file in, or a file of this service's own SQLite store.

    Send JSON with the `path` of a file below the server's import folder, which needs a key for all projects, or the
    file itself as `application/vnd.sqlite3` with the options as query parameters. Follow the import at the address in
    `Location`.
    """
    refuse_encoded(request)
    media_type = first_field(request.scope, b"content-type").partition(";")[0].strip().lower()
    if media_type in SQLITE_MEDIA_TYPES:
        options = _options(query, caller)
        async with _recorded(given, caller, "upload", options) as action:
            job = await given.imports.queue_upload(request.stream(), options)
            action.came_to(job.id, project=job.project)
    elif media_type == "application/json":
        body = parse(ImportIn, await _small(request))
        caller.require_all_projects("the import of a file of the server, which may hold those of others")
        options = _options(body, caller)
        async with _recorded(given, caller, body.path, options) as action:
            job = await given.imports.queue_file(body.path, options)
            action.came_to(job.id, project=job.project)
    else:
        raise UnsupportedMediaTypeError(
            f"content-type: must be application/json or application/vnd.sqlite3, got {media_type or 'none'!r}"
        )
    response.headers["Location"] = f"{router.prefix}/{job.id}"
    return job


@router.get("", responses=responses(422))
async def list_imports(
    given: Given, caller: Admin, limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50, cursor: UUID | None = None
) -> ImportPage:
    """Imports, newest first."""
    items = list(await given.imports.page(caller.projects, limit + 1, cursor))
    following = str(items[limit - 1].id) if len(items) > limit else None
    return ImportPage(items=items[:limit], next_cursor=following)


async def existing(import_id: UUID, given: Given, caller: Admin) -> Import:
    """The import of the address, found before a stream begins."""
    return await given.imports.get(import_id, caller.projects)


Existing = Annotated[Import, Depends(existing)]


@router.get("/{import_id}", responses=responses(404, 422))
async def get_import(job: Existing) -> Import:
    """One import: its state, stage, progress and counts."""
    return job


@router.get("/{import_id}/events", responses=responses(404, 422), response_class=EventSourceResponse)
async def follow_import(
    job: Existing, given: Given, caller: Admin, stopping: ToldToStop
) -> AsyncIterable[ServerSentEvent]:
    """The import as server-sent events, whenever it has changed, until it has ended.

    Each event is the whole import, so that one who comes back later has missed nothing that counts. A stream ends
    before the import when the service stops, and within a few seconds when its key is revoked or expires.
    """
    async for seen in given.import_watch.follow(job, caller, stopping):
        yield ServerSentEvent(raw_data=AS_JSON.dump_json(seen).decode(), event="import")


@router.get("/{import_id}/rejects", responses=responses(404, 422))
async def list_rejects(
    import_id: UUID,
    given: Given,
    caller: Admin,
    kind: Annotated[
        FindingKind, Query(description="`mismatched` and `missing` are what validation found.")
    ] = FindingKind.REJECT,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    cursor: Annotated[int | None, Query(ge=-(2**63), lt=2**63)] = None,
) -> FindingPage:
    """The rows that were not taken, with the reason, by their rowid in the source."""
    items = list(await given.imports.findings(import_id, caller.projects, kind, limit + 1, cursor))
    following = str(items[limit - 1].rowid) if len(items) > limit else None
    return FindingPage(items=items[:limit], next_cursor=following)


@router.post("/{import_id}/cancel", status_code=202, responses=responses(404, 422))
async def cancel_import(import_id: UUID, given: Given, caller: Admin) -> Import:
    """Stops an import after the batch in hand; what was imported stays. One that has ended stays as it is."""
    async with given.audit.record(caller, "import.cancel", import_id):
        return await given.imports.cancel(import_id, caller.projects)


@router.delete("/{import_id}/memories", responses=responses(404, 409, 422))
async def undo_import(import_id: UUID, given: Given, caller: Admin) -> Undone:
    """Deletes exactly the memories that an import brought in."""
    async with given.audit.record(caller, "import.undo", import_id) as action:
        deleted = await given.imports.undo(import_id, caller.projects)
        action.came_to(deleted=deleted)
    return Undone(deleted=deleted)


def _recorded(
    given: Services, caller: Caller, source: str, options: ImportOptions
) -> AbstractAsyncContextManager[Action]:
    return given.audit.record(caller, "import.start", source=source, project=options.project, dry_run=options.dry_run)


def _options(query: ImportQuery, caller: Caller) -> ImportOptions:
    log_projects(query.project)
    if query.project is None:  # this service's own files may hold any
        caller.require_all_projects("an import that names no project")
    else:
        caller.require_project(query.project)
    return ImportOptions(project=query.project, validate=query.validate_rows, dry_run=query.dry_run)


async def _small(request: Request) -> bytes:
    """The body, which holds a path and a few options; a file may be larger, and so the route has no limit."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise TooLargeError(f"the body is larger than {MAX_JSON_BYTES} bytes; a file is application/vnd.sqlite3")
    return body
