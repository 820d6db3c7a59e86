"""The record of what administrators do, on each store."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import UUID

import httpx
from fastapi import FastAPI
from structlog.testing import capture_logs

from app.access import KeyScope
from app.settings import Settings
from tests.api.test_access import bearer, made
from tests.conftest import execute
from tests.source_files import entry, write_ai_afterimage

NOBODYS = "01a20e82-cd37-70df-a52c-de4ebe9e91a1"


async def test_the_record_tells_who_did_what(client: httpx.AsyncClient, folder: Path) -> None:
    first = (await client.post("/v1/admin/keys", json={"name": "me", "scopes": ["admin"]})).json()
    me = {**bearer(first["key"]), "X-Request-ID": "r-1"}
    write_ai_afterimage(folder / "memory.db", [entry(1)])
    job = (await client.post("/v1/admin/imports", json={"path": "memory.db", "project": "p"}, headers=me)).json()
    page = (await client.get("/v1/admin/audit?limit=1", headers=me)).json()
    rest = (await client.get("/v1/admin/audit", params={"cursor": page["next_cursor"]}, headers=me)).json()
    assert [one["action"] for one in page["items"] + rest["items"]] == ["import.start", "key.create"]
    [record] = page["items"]
    assert (record["actor"], record["target"], record["request_id"]) == ("me", job["id"], "r-1")
    assert (UUID(record["key_id"]), record["details"]["project"]) == (UUID(first["details"]["id"]), "p")
    assert [one["details"]["outcome"] for one in page["items"] + rest["items"]] == ["done", "done"]
    assert rest["items"][0]["actor"] == "anyone"
    assert first["key"][-20:] not in str(rest)


async def rename_table(settings: Settings, name: str, other: str) -> None:
    """Behind the back of the service."""
    statement = f"ALTER TABLE {name} RENAME TO {other}"
    if settings.database_url:
        await execute(settings.database_url.get_secret_value(), statement)
        return

    def rename() -> None:
        with closing(sqlite3.connect(settings.sqlite_path)) as connection:
            connection.execute(statement)

    await asyncio.to_thread(rename)  # another writer may have to go on first


async def test_what_cannot_be_recorded_is_not_done(application: FastAPI, settings: Settings, folder: Path) -> None:
    services = application.state.services
    content = write_ai_afterimage(folder / "memory.db", [entry(1)]).read_bytes()
    sqlite = {"content-type": "application/vnd.sqlite3"}
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        client.headers.update(await made(services, KeyScope.ADMIN))
        await services.imports.stop()
        job = (await client.post("/v1/admin/imports", json={"path": "memory.db"})).headers["location"]
        [key] = (await client.get("/v1/admin/keys")).json()["items"]
        places = ("/v1/admin/imports", "/v1/admin/exports", "/v1/admin/keys")
        before = [(await client.get(place)).json() for place in places]
        await rename_table(settings, "audit", "hidden")
        with capture_logs():  # to print the traces takes seconds
            refused = [
                await client.post("/v1/admin/imports", json={"path": "memory.db"}),
                await client.post("/v1/admin/imports?project=p", content=content, headers=sqlite),
                await client.post(f"{job}/cancel"),
                await client.post("/v1/admin/exports"),
                await client.post("/v1/admin/keys", json={"name": "me", "scopes": ["admin"]}),
                await client.delete(f"/v1/admin/keys/{key['id']}"),
            ]
        assert {answer.status_code for answer in refused} <= {500, 503}
        assert [(await client.get(place)).json() for place in places] == before
        assert len(list(settings.spool_folder.glob("*.sqlite"))) == 1
        await rename_table(settings, "hidden", "audit")
        assert (await client.post(f"{job}/cancel")).json()["state"] == "cancelled"


async def test_what_failed_is_recorded_as_failed(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/admin/imports", json={"path": "memory.db"})).status_code == 422
    assert (await client.delete(f"/v1/admin/imports/{NOBODYS}/memories")).status_code == 404
    second, first = (await client.get("/v1/admin/audit")).json()["items"]
    assert (first["action"], first["target"]) == ("import.start", None)
    assert first["details"] == {
        "source": "memory.db",
        "project": None,
        "dry_run": False,
        "outcome": "failed",
        "error": "invalid-source",
    }
    assert (second["action"], second["target"]) == ("import.undo", NOBODYS)
    assert second["details"] == {"outcome": "failed", "error": "not-found"}


async def test_what_was_done_stands_if_its_outcome_cannot_be_recorded(
    application: FastAPI, client: httpx.AsyncClient, settings: Settings
) -> None:
    services = application.state.services
    async with services.audit.record(None, "key.create", name="me") as action:
        key, text = await services.keys.create("me", [KeyScope.ADMIN], None, None)
        action.came_to(key.id)
        await rename_table(settings, "audit", "hidden")
    await rename_table(settings, "hidden", "audit")
    [record] = (await client.get("/v1/admin/audit", headers=bearer(text))).json()["items"]
    assert (record["actor"], record["target"], record["details"]) == ("command line", None, {"name": "me"})
