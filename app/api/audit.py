"""The route of the audit record; it needs a key for all projects."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from app.api.deps import Admin, Given
from app.api.problems import responses
from app.api.schemas import MAX_PAGE, AuditPage

router = APIRouter(prefix="/v1/admin/audit", tags=["keys"])


@router.get("", responses=responses(422))
async def list_audit(
    given: Given, caller: Admin, limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100, cursor: UUID | None = None
) -> AuditPage:
    """What administrators did or tried, newest first: keys, imports and exports, by whom and by which request."""
    caller.require_all_projects("the audit record")
    items = list(await given.audit.page(limit + 1, cursor))
    following = str(items[limit - 1].id) if len(items) > limit else None
    return AuditPage(items=items[:limit], next_cursor=following)
