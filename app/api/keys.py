"""Routes of keys; they need a key for all projects."""

from uuid import UUID

from fastapi import APIRouter, Request

from app.access import Key
from app.api.deps import Admin, Given
from app.api.json_body import described, read_as
from app.api.problems import responses
from app.api.schemas import KeyIn, KeyList, KeyMade
from app.audit import key_details

router = APIRouter(prefix="/v1/admin/keys", tags=["keys"])

PURPOSE = "the administration of keys"


@router.post("", status_code=201, responses=responses(413, 415, 422), openapi_extra=described(KeyIn))
async def create_key(given: Given, caller: Admin, request: Request) -> KeyMade:
    """Makes a key. Its text is in this answer alone: the service keeps a digest of it.

    From the first key on every request needs one.
    """
    caller.require_all_projects(PURPOSE)
    body = await read_as(KeyIn, request)
    asked = body.name, body.scopes, body.projects, body.expires_at
    async with given.audit.record(caller, "key.create", **key_details(*asked)) as action:
        key, text = await given.keys.create(*asked)
        action.came_to(key.id)
    return KeyMade(key=text, details=key)


@router.get("", responses=responses(422))
async def list_keys(given: Given, caller: Admin) -> KeyList:
    """All keys, newest first, the revoked and expired too."""
    caller.require_all_projects(PURPOSE)
    return KeyList(items=await given.keys.all())


@router.delete("/{key_id}", responses=responses(404, 422))
async def revoke_key(key_id: UUID, given: Given, caller: Admin) -> Key:
    """Revokes a key, from the next request on. It stays in the list."""
    caller.require_all_projects(PURPOSE)
    async with given.audit.record(caller, "key.revoke", key_id) as action:
        key = await given.keys.revoke(key_id)
        action.came_to(name=key.name)
    return key
