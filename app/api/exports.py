"""Routes of exports."""

from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from app.api.deps import Admin, Given, log_projects
from app.api.json_body import described, read_as
from app.api.problems import responses
from app.api.schemas import ExportIn, ExportList
from app.models import Export

SQLITE_MEDIA_TYPE = "application/vnd.sqlite3"

router = APIRouter(prefix="/v1/admin/exports", tags=["exports"])


@router.post(
    "", status_code=202, responses=responses(409, 413, 415, 422), openapi_extra=described(ExportIn, optional=True)
)
async def start_export(request: Request, response: Response, given: Given, caller: Admin) -> Export:
    """Writes an AI-AfterImage file of all memories, or of those of some projects.

    Follow the export at the address in `Location` until it is `completed`, and fetch its file below `/file`. Exports
    run one after the other, and are removed with their files 24 hours after they have ended, or by `DELETE`.
    """
    body = await read_as(ExportIn, request, optional=True)
    log_projects(*(body.projects or ()))
    for project in body.projects or ():
        caller.require_project(project)
    projects = caller.within(body.projects)
    async with given.audit.record(caller, "export.start", projects=projects) as action:
        job = await given.exports.queue(projects)
        action.came_to(job.id)
    response.headers["Location"] = f"{router.prefix}/{job.id}"
    return job


@router.get("", responses=responses())
async def list_exports(given: Given, caller: Admin) -> ExportList:
    """Exports, newest first."""
    return ExportList(items=await given.exports.recent(caller.projects))


@router.get("/{export_id}", responses=responses(404, 422))
async def get_export(export_id: UUID, given: Given, caller: Admin) -> Export:
    """One export: its state, progress and counts."""
    return await given.exports.get(export_id, caller.projects)


@router.get(
    "/{export_id}/file",
    response_class=FileResponse,
    responses={
        200: {
            "description": "The file.",
            "content": {SQLITE_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        },
        **responses(404, 409, 422),
    },
)
async def get_export_file(export_id: UUID, given: Given, caller: Admin) -> FileResponse:
    """The SQLite file, for AI-AfterImage 0.7 or 0.8, or to be imported again."""
    async with given.audit.record(caller, "export.fetch", export_id):
        path = await given.exports.file(export_id, caller.projects)
    return FileResponse(path, media_type=SQLITE_MEDIA_TYPE, filename="memory.db")


@router.delete("/{export_id}", status_code=204, responses=responses(404, 422))
async def delete_export(export_id: UUID, given: Given, caller: Admin) -> None:
    """Removes an export and its file; ends it if it is running."""
    async with given.audit.record(caller, "export.delete", export_id):
        await given.exports.delete(export_id, caller.projects)
