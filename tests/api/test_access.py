"""Who may do what: every route times every kind of key, from the route table, on both stores."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.access import KeyScope
from app.api.authentication import OPEN_TO_ALL
from app.api.deps import Needs, Services
from app.main import create_app
from app.settings import Settings
from tests.source_files import entry, write_ai_afterimage

ALL_PROJECTS_ONLY = ("/v1/admin/keys", "/v1/admin/audit", "/metrics")
READ, WRITE, ADMIN = KeyScope.READ, KeyScope.WRITE, KeyScope.ADMIN


@dataclass(frozen=True)
class Rule:
    method: str
    path: str
    needs: KeyScope | None


def routes(app: FastAPI) -> Iterator[APIRoute]:
    for route in app.routes:
        included = getattr(route, "original_router", None)
        for one in included.routes if included else [route]:
            if isinstance(one, APIRoute):
                yield one


def needed(dependant: Any) -> Iterator[KeyScope]:
    for one in dependant.dependencies:
        if isinstance(one.call, Needs):
            yield one.call.scope
        yield from needed(one)


def rules(app: FastAPI) -> list[Rule]:
    """Each route with the scope that it asks for."""
    found = []
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            [route] = [one for one in routes(app) if one.path == path and method.upper() in (one.methods or ())]
            scopes = set(needed(route.dependant))
            assert len(scopes) <= 1, path
            found.append(Rule(method.upper(), path, scopes.pop() if scopes else None))
    return found


async def made(services: Services, *scopes: KeyScope, projects: list[str] | None = None) -> dict[str, str]:
    """The header of a new key."""
    _, text = await services.keys.create("test", scopes, projects, None)
    return bearer(text)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture
def services(application: FastAPI) -> Services:
    found: Services = application.state.services
    return found


async def asked(client: httpx.AsyncClient, rule: Rule, headers: dict[str, str], target: object) -> httpx.Response:
    """The answer to a request about a thing, with a body that is valid nowhere."""
    path = rule.path
    for name in ("memory_id", "import_id", "export_id", "key_id"):
        path = path.replace(f"{{{name}}}", str(target))
    body = {"unknown": 1} if rule.method == "POST" and "cancel" not in path else None
    return await client.request(rule.method, path, headers=headers, json=body)


async def test_every_route_asks_for_a_scope_or_is_open_to_all(application: FastAPI) -> None:
    found = rules(application)
    assert {rule.path for rule in found if rule.needs is None} == {"/livez", "/readyz"} <= OPEN_TO_ALL
    assert {route.path for route in routes(application)} <= {rule.path for rule in found} | OPEN_TO_ALL
    for rule in found:
        if rule.path.startswith("/v1/admin/"):
            assert rule.needs is ADMIN, rule
        elif rule.method == "DELETE" or (rule.path.startswith("/v1/memories") and rule.method == "POST"):
            assert rule.needs is WRITE, rule


async def test_every_route_times_every_kind_of_key(
    client: httpx.AsyncClient, application: FastAPI, services: Services
) -> None:
    revoked, revoked_text = await services.keys.create("revoked", [ADMIN], None, None)
    await services.keys.revoke(revoked.id)
    brief, brief_text = await services.keys.create("brief", [ADMIN], None, datetime.now(UTC) + timedelta(seconds=0.05))
    unknown = f"aft_{uuid4().hex}_{'x' * 43}"
    changed = f"{brief_text[:-1]}{'A' if brief_text[-1] != 'A' else 'B'}"
    keys = {scope: await made(services, scope) for scope in KeyScope}
    bound = await made(services, ADMIN, projects=["other"])
    while brief.usable(datetime.now(UTC)):
        pass
    strangers: list[dict[str, str]] = [
        {},
        bearer(unknown),
        bearer(changed),
        bearer(revoked_text),
        bearer(brief_text),
        bearer(""),
        {"Authorization": "Basic dTpw"},
        {"Authorization": brief_text},
    ]
    for rule in rules(application):
        if rule.needs is None:
            assert (await asked(client, rule, {}, uuid4())).status_code == 200
            continue
        for headers in strangers:
            answer = await asked(client, rule, headers, uuid4())
            assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json"), rule
            assert answer.headers["www-authenticate"].startswith('Bearer realm="afterimage"')
            assert ("invalid_token" in answer.headers["www-authenticate"]) == bool(headers)
        for scope, headers in keys.items():
            answer = await asked(client, rule, headers, uuid4())
            if scope in (rule.needs, ADMIN):
                assert answer.status_code in (200, 202, 404, 409, 422), (rule, scope, answer.text)
            else:
                assert answer.status_code == 403, (rule, scope, answer.text)
                assert f'scope="{rule.needs}"' in answer.headers["www-authenticate"]
                assert answer.json()["type"] == "urn:afterimage:problem:forbidden"
        if rule.path.startswith(ALL_PROJECTS_ONLY):
            answer = await asked(client, Rule(rule.method, rule.path, None), bound, uuid4())
            assert answer.status_code in (403, 422), rule


async def test_another_projects_memories_do_not_exist(client: httpx.AsyncClient, services: Services) -> None:
    everything = await made(services, ADMIN)
    theirs = await made(services, READ, WRITE, projects=["theirs"])
    memory = {"file_path": "a.py", "new_code": "def parse_header(): ...", "session_id": "s", "project": "mine"}
    answer = await client.post("/v1/memories?wait=embedding", json=memory, headers=everything)
    place = answer.headers["location"]
    for address in (place, f"{place}?project=mine"):
        assert (await client.get(address, headers=theirs)).status_code == 404
        assert (await client.delete(address, headers=theirs)).status_code == 404
    for mode in ("fts", "semantic", "hybrid"):
        for more in ({}, {"projects": ["mine"]}, {"projects": ["mine", "theirs"]}, {"session_id": "s"}):
            sent = {"query": "parse_header", **more}
            assert len((await client.post(f"/v1/search/{mode}", json=sent, headers=everything)).json()["hits"]) == (
                0 if more.get("projects") == ["theirs"] else 1
            )
            assert (await client.post(f"/v1/search/{mode}", json=sent, headers=theirs)).json()["hits"] == []
    for query in ("", "?projects=mine", "?session_id=s"):
        assert (await client.get(f"/v1/memories{query}", headers=theirs)).json()["items"] == []
    for query in ("", "?projects=mine"):
        stats = (await client.get(f"/v1/stats{query}", headers=theirs)).json()
        assert (stats["total_entries"], stats["entries_with_embeddings"], stats["unique_files"]) == (0, 0, 0)
        assert (stats["oldest_entry"], stats["embedding"]["pending"]) == (None, 0)
    assert (await client.get(place, headers=everything)).status_code == 200


async def test_a_key_sees_all_of_its_own_project_and_nothing_more(
    client: httpx.AsyncClient, services: Services
) -> None:
    theirs = await made(services, READ, WRITE, projects=["theirs"])
    everything = await made(services, ADMIN)
    for project in ("mine", "theirs"):
        memory = {"file_path": f"{project}.py", "new_code": f"def parse_{project}(): ...", "project": project}
        assert (await client.post("/v1/memories?wait=embedding", json=memory, headers=everything)).status_code == 201
    for mode in ("fts", "semantic", "hybrid"):
        found = await client.post(f"/v1/search/{mode}", json={"query": "parse", "explain": True}, headers=theirs)
        assert [hit["memory"]["project"] for hit in found.json()["hits"]] == ["theirs"]
        assert "mine" not in found.text
    listed = await client.get("/v1/memories", headers=theirs)
    assert ([one["project"] for one in listed.json()["items"]], "mine" in listed.text) == (["theirs"], False)
    stats = (await client.get("/v1/stats", headers=theirs)).json()
    assert (stats["total_entries"], stats["entries_with_embeddings"], stats["unique_files"]) == (1, 1, 1)
    place = f"/v1/memories/{listed.json()['items'][0]['id']}"
    assert (await client.delete(place, headers=theirs)).status_code == 204
    assert (await services.memories.stats(None)).total_entries == 1


async def test_nobody_writes_into_another_project(client: httpx.AsyncClient, services: Services) -> None:
    theirs = await made(services, READ, WRITE, projects=["theirs"])
    mine, own = ({"file_path": "a.py", "new_code": "x = 1", "project": name} for name in ("mine", "theirs"))
    refused = await client.post("/v1/memories", json=mine, headers=theirs)
    assert (refused.status_code, "'mine'" in refused.json()["detail"]) == (403, True)
    batch = await client.post("/v1/memories/batch", json={"memories": [mine, own]}, headers=theirs)
    assert [one["status"] for one in batch.json()["results"]] == ["rejected", "created"]
    assert (await services.memories.stats(None)).total_entries == 1


async def test_imports_and_exports_stay_within_the_projects(
    client: httpx.AsyncClient, services: Services, folder: Path
) -> None:
    everything = await made(services, ADMIN)
    theirs = await made(services, ADMIN, projects=["theirs"])
    write_ai_afterimage(folder / "memory.db", [entry(1)])
    for project in ({}, {"project": "mine"}, {"project": "theirs"}):  # the folder may hold what others have stored
        sent = {"path": "memory.db", **project}
        assert (await client.post("/v1/admin/imports", json=sent, headers=theirs)).status_code == 403
    assert (await client.post("/v1/admin/exports", json={"projects": ["mine"]}, headers=theirs)).status_code == 403
    places = [
        (await client.post("/v1/admin/imports", json={"path": "memory.db", "project": "mine"}, headers=everything)),
        (await client.post("/v1/admin/exports", json={"projects": ["mine", "theirs"]}, headers=everything)),
    ]
    for started in places:
        place = started.headers["location"]
        for method, path in (("GET", place), ("POST", f"{place}/cancel"), ("DELETE", f"{place}/memories")):
            if "exports" not in path or method == "GET":
                assert (await client.request(method, path, headers=theirs)).status_code == 404, path
    for path in (f"{places[0].headers['location']}/rejects", f"{places[0].headers['location']}/events"):
        assert (await client.get(path, headers=theirs)).status_code == 404
    assert (await client.delete(places[1].headers["location"], headers=theirs)).status_code == 404
    assert (await client.get(f"{places[1].headers['location']}/file", headers=theirs)).status_code == 404
    for path in ("/v1/admin/imports", "/v1/admin/exports"):
        assert (await client.get(path, headers=theirs)).json()["items"] == []
        assert len((await client.get(path, headers=everything)).json()["items"]) == 1
    own = await client.post("/v1/admin/exports", headers=theirs)
    assert own.json()["projects"] == ["theirs"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "127.0.0.1:8000", "Origin": "http://localhost:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "evil.example"}, 401),
        ({"Host": "localhost.evil.example"}, 401),
        ({"Origin": "https://evil.example"}, 401),
        ({"Origin": "null"}, 401),
        ({"Origin": "http://["}, 401),
    ],
)
async def test_without_keys_no_page_of_another_machine_is_served(
    client: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    for method, path in (("GET", "/v1/stats"), ("POST", "/v1/search/fts")):
        answer = await client.request(method, path, headers=headers, json={"query": "x"} if method == "POST" else None)
        assert answer.status_code == status
        assert status == 200 or "whose `Host` and `Origin` are local" in answer.json()["detail"]


async def test_a_key_is_made_used_listed_and_revoked(client: httpx.AsyncClient) -> None:
    asked_for = {"name": "ci", "scopes": ["write", "read", "read"], "projects": ["shop"]}
    first = (await client.post("/v1/admin/keys", json={"name": "me", "scopes": ["admin"]})).json()
    me = bearer(first["key"])
    assert (await client.get("/v1/stats")).status_code == 401  # at once: the service is no longer open
    answer = await client.post("/v1/admin/keys", json=asked_for, headers=me)
    key = answer.json()
    assert (answer.status_code, key["details"]["scopes"], key["details"]["projects"]) == (
        201,
        ["read", "write"],
        ["shop"],
    )
    assert (await client.get("/v1/stats", headers=bearer(key["key"]))).status_code == 200
    revoked = await client.delete(f"/v1/admin/keys/{key['details']['id']}", headers=me)
    assert revoked.json()["revoked_at"] is not None
    refused = await client.get("/v1/stats", headers=bearer(key["key"]))
    assert (refused.status_code, "revoked" in refused.json()["detail"]) == (401, True)
    listed = await client.get("/v1/admin/keys", headers=me)
    assert [one["name"] for one in listed.json()["items"]] == ["ci", "me"]
    assert key["key"][-20:] not in listed.text
    again = await client.delete(f"/v1/admin/keys/{key['details']['id']}", headers=me)
    assert again.json() == revoked.json()
    assert (await client.delete(f"/v1/admin/keys/{first['details']['id']}", headers=me)).status_code == 200
    assert (await client.get("/v1/stats")).status_code == 401  # the last key is gone, the door stays shut


async def test_the_key_of_the_settings_may_do_everything(settings: Settings) -> None:
    app = create_app(settings.model_validate({**settings.model_dump(), "admin_key": "0123456789abcdef"}))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        assert (await client.get("/v1/stats")).status_code == 401
        assert (await client.get("/v1/admin/keys", headers=bearer("0123456789abcdef"))).json() == {"items": []}
        assert (await client.get("/v1/stats", headers=bearer("0123456789abcdeF"))).status_code == 401


async def test_without_keys_nobody_from_outside_is_served(application: FastAPI) -> None:
    for address, status in (("192.0.2.7", 401), ("2001:db8::1", 401), ("127.0.0.2", 200), ("::1", 200)):
        transport = httpx.ASGITransport(application, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/v1/stats")).status_code == status, address
            assert (await client.get("/livez")).status_code == 200


async def test_what_a_key_may_not_be(client: httpx.AsyncClient) -> None:
    wrongs: list[dict[str, object]]
    past = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    wrongs = [
        {"scopes": []},
        {"scopes": ["all"]},
        {"projects": []},
        {"expires_at": past},
        {"expires_at": "2030-01-01T00:00:00"},
        {"name": ""},
    ]
    for wrong in wrongs:
        answer = await client.post("/v1/admin/keys", json={"name": "x", "scopes": ["read"], **wrong})
        assert answer.status_code == 422, wrong
    assert (await client.get("/v1/admin/keys")).json() == {"items": []}
