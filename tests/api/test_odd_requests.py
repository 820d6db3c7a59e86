"""Requests that try to be taken for others: odd headers, names, ids, methods and paths, on each store."""

import httpx
import pytest
from fastapi import FastAPI

from app.access import KeyScope
from app.api.deps import Services
from tests.api.test_access import made

READ, WRITE, ADMIN = KeyScope.READ, KeyScope.WRITE, KeyScope.ADMIN


@pytest.fixture
def services(application: FastAPI) -> Services:
    found: Services = application.state.services
    return found


async def test_of_several_hosts_and_keys_none_is_believed(client: httpx.AsyncClient, services: Services) -> None:
    for hosts in (("localhost", "evil.example"), ("evil.example", "localhost")):
        answer = await client.get("/v1/stats", headers=[("Host", host) for host in hosts])
        assert answer.status_code == 401
    [(name, good)] = (await made(services, READ)).items()
    for keys in ((good, "Bearer wrong"), ("Bearer wrong", good), (good, good)):
        assert (await client.get("/v1/stats", headers=[(name, key) for key in keys])).status_code == 401
    token = good.removeprefix("Bearer ")
    for parameter in ("key", "access_token", "authorization"):
        assert (await client.get("/v1/stats", params={parameter: token})).status_code == 401


async def test_projects_are_told_apart_by_each_character_of_their_names(
    client: httpx.AsyncClient, services: Services
) -> None:
    everything = await made(services, ADMIN)
    names = ["caf\u00e9", "cafe\u0301", "cafe", "a,b", "a", " ", "default", "a'b%_", "a'bx_", '"q"', "q", "\u200b"]
    memories = [{"file_path": "a.py", "new_code": "x", "project": name} for name in names]
    assert (await client.post("/v1/memories/batch", json={"memories": memories}, headers=everything)).status_code == 200
    for name in names:
        theirs = await made(services, READ, WRITE, projects=[name])
        tried = await client.post("/v1/memories/batch", json={"memories": memories}, headers=theirs)
        created = [one["index"] for one in tried.json()["results"] if one["status"] == "created"]
        assert created == [names.index(name)]
        listed = await client.get("/v1/memories", headers=theirs)
        assert [one["project"] for one in listed.json()["items"]] == [name, name]


async def test_nothing_of_another_project_or_key_leads_to_it(client: httpx.AsyncClient, services: Services) -> None:
    everything = await made(services, ADMIN)
    theirs = await made(services, READ, WRITE, projects=["theirs"])
    memories = [{"file_path": "a.py", "new_code": "x", "project": project} for project in ("mine", "theirs", "mine")]
    batch = await client.post("/v1/memories/batch", json={"memories": memories}, headers=theirs)
    assert [one["status"] for one in batch.json()["results"]] == ["rejected", "created", "rejected"]
    made_all = await client.post("/v1/memories/batch", json={"memories": memories}, headers=everything)
    ids = [one["id"] for one in made_all.json()["results"]]
    same_id = {**memories[1], "id": ids[0]}
    again = await client.post("/v1/memories", json=same_id, headers=theirs)
    assert (again.status_code, again.json().get("project")) == (201, "theirs")  # an id is its project's
    cursor = (await client.get("/v1/memories?projects=mine&limit=1", headers=everything)).json()["next_cursor"]
    page = await client.get("/v1/memories", params={"cursor": cursor}, headers=theirs)
    assert {one["project"] for one in page.json()["items"]} <= {"theirs"}
    key = {"Idempotency-Key": "one"}
    first = await client.post("/v1/memories", json=memories[1], headers={**everything, **key})
    second = await client.post("/v1/memories", json=memories[1], headers={**theirs, **key})
    assert (second.status_code, second.json()["id"] != first.json()["id"]) == (201, True)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PATCH"])
async def test_other_methods_and_paths_lead_nowhere(client: httpx.AsyncClient, services: Services, method: str) -> None:
    everything = await made(services, ADMIN)
    for path in ("/v1/memories", "/v1/stats", "/v1/admin/keys"):
        assert (await client.request(method, path)).status_code == 401
        assert (await client.request(method, path, headers=everything)).status_code == 405
    for path in ("/livez/%2e%2e/v1/stats", "/static-offline-docs/%2e%2e/v1/stats", "//v1/stats", "/readyz/"):
        assert (await client.get(path)).status_code in (401, 404, 307), path
    assert (await client.get("/v1%2Fstats")).status_code == 401
