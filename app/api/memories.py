"""Routes of memories that are there."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from app.api.cursors import encode_cursor, position_from
from app.api.deps import Given, Reader, Writer, log_projects
from app.api.fields import Project
from app.api.problems import responses
from app.api.schemas import ListQuery, MemoryPage
from app.models import Memory

router = APIRouter(prefix="/v1", tags=["memories"])

ProjectQuery = Annotated[Project | None, Query(description="Where the same id stands in several projects.")]


@router.get("/memories", responses=responses(422))
async def list_memories(query: Annotated[ListQuery, Query()], given: Given, caller: Reader) -> MemoryPage:
    """Memories, newest first.

    Follow `next_cursor` for more: pages neither repeat nor skip a memory while others write.
    """
    log_projects(*(query.projects or ()))
    after = position_from(query.cursor) if query.cursor else None
    items = await given.memories.page(caller.limit(query.scope()), query.limit + 1, after)
    more = len(items) > query.limit
    items = items[: query.limit]
    last = items[-1] if more else None
    return MemoryPage(
        items=items, next_cursor=encode_cursor(last.timestamp.isoformat(), last.project, last.id) if last else None
    )


@router.get("/memories/{memory_id}", responses=responses(404, 409, 422))
async def get_memory(memory_id: UUID, given: Given, caller: Reader, project: ProjectQuery = None) -> Memory:
    """One memory."""
    log_projects(project)
    return await given.memories.get(memory_id, caller.within([project] if project else None))


@router.delete("/memories/{memory_id}", status_code=204, responses=responses(404, 409, 422))
async def delete_memory(memory_id: UUID, given: Given, caller: Writer, project: ProjectQuery = None) -> None:
    """Deletes a memory, its words and its vectors."""
    log_projects(project)
    await given.memories.delete(memory_id, caller.within([project] if project else None))
