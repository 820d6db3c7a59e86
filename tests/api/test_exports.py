"""Routes of exports, on each store."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
from fastapi import FastAPI

from app.exports import MAX_KEPT, Exports
from app.models import ExportState

EXPORTS = "/v1/admin/exports"


async def store_memories(client: httpx.AsyncClient, count: int = 3) -> None:
    memories = [{"project": f"p{number % 2}", "file_path": f"{number}.py", "new_code": "x"} for number in range(count)]
    assert (await client.post("/v1/memories/batch", json={"memories": memories})).status_code == 200


async def ended(client: httpx.AsyncClient, started: httpx.Response) -> dict[str, Any]:
    """The export once it is over."""
    assert started.status_code == 202, started.text
    async with asyncio.timeout(30):
        while True:
            job: dict[str, Any] = (await client.get(started.headers["location"])).json()
            if job["state"] in ("completed", "failed"):
                return job
            await asyncio.sleep(0.02)


async def test_a_file_is_made_and_can_be_fetched(client: httpx.AsyncClient, tmp_path: Path) -> None:
    await store_memories(client)
    job = await ended(client, await client.post(EXPORTS))
    assert (job["state"], job["counts"]["written"], job["error"]) == ("completed", 3, None)
    assert (job["progress"]["percent"], job["not_carried_over"]["project"]) == (100.0, 3)
    answer = await client.get(f"{EXPORTS}/{job['id']}/file")
    assert answer.headers["content-type"] == "application/vnd.sqlite3"
    assert len(answer.content) == job["size_bytes"]
    (tmp_path / "fetched.db").write_bytes(answer.content)
    with closing(sqlite3.connect(tmp_path / "fetched.db")) as connection:
        assert connection.execute("SELECT count(*) FROM code_memory").fetchone() == (3,)


async def test_projects_can_be_chosen(client: httpx.AsyncClient) -> None:
    await store_memories(client)
    job = await ended(client, await client.post(EXPORTS, json={"projects": ["p1"]}))
    assert (job["projects"], job["counts"]["written"]) == (["p1"], 1)


async def test_a_deleted_export_is_gone_with_its_file(client: httpx.AsyncClient, tmp_path: Path) -> None:
    job = await ended(client, await client.post(EXPORTS))
    assert [one["id"] for one in (await client.get(EXPORTS)).json()["items"]] == [job["id"]]
    assert (await client.delete(f"{EXPORTS}/{job['id']}")).status_code == 204
    for address in (f"{EXPORTS}/{job['id']}", f"{EXPORTS}/{job['id']}/file", f"{EXPORTS}/{uuid4()}"):
        answer = await client.get(address)
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:afterimage:problem:not-found")
    assert list((tmp_path / "spool" / "exports").iterdir()) == []


async def test_so_many_are_kept_and_no_more(client: httpx.AsyncClient) -> None:
    started = [await client.post(EXPORTS) for _ in range(MAX_KEPT + 1)]
    assert [answer.status_code for answer in started] == [202] * MAX_KEPT + [409]
    for answer in started[:-1]:
        assert (await ended(client, answer))["state"] == "completed"


async def test_an_export_that_is_not_complete_has_no_file(application: FastAPI, client: httpx.AsyncClient) -> None:
    await application.state.services.exports.stop()
    job = (await client.post(EXPORTS)).json()
    answer = await client.get(f"{EXPORTS}/{job['id']}/file")
    assert answer.status_code == 409
    assert "queued" in answer.json()["detail"]


async def test_after_a_restart_complete_exports_are_there_and_interrupted_ones_have_failed(
    application: FastAPI, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    folder = tmp_path / "spool" / "exports"
    complete = await ended(client, await client.post(EXPORTS))
    await application.state.services.exports.stop()
    interrupted, queued = [(await client.post(EXPORTS)).json() for _ in range(2)]
    state = folder / f"{interrupted['id']}.json"
    state.write_text(state.read_text().replace('"queued"', '"running"'))
    (folder / f"{interrupted['id']}.sqlite.partial").touch()
    restarted = Exports(application.state.services.store, folder)
    await restarted.start()
    async with asyncio.timeout(20):
        while not all(job.state.is_final for job in await restarted.recent(None)):
            await asyncio.sleep(0.02)
    await restarted.stop()
    states = {str(job.id): (job.state.value, job.error) for job in await restarted.recent(None)}
    assert states[complete["id"]] == states[queued["id"]] == ("completed", None)
    assert states[interrupted["id"]][0] == "failed"
    assert "start another" in str(states[interrupted["id"]][1])
    assert list(folder.glob("*.partial")) == []


async def test_any_process_that_shares_the_folder_tells_of_an_export_and_deletes_it(
    application: FastAPI, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    await store_memories(client)
    other = Exports(application.state.services.store, tmp_path / "spool" / "exports")
    await other.start()
    job = await other.queue(None)
    async with asyncio.timeout(20):
        while not (await other.get(job.id, None)).state.is_final:
            await asyncio.sleep(0.02)
    assert len((await client.get(f"{EXPORTS}/{job.id}/file")).content) == (await other.get(job.id, None)).size_bytes
    await other.delete(job.id, None)
    assert (await client.get(f"{EXPORTS}/{job.id}")).status_code == 404
    assert list((tmp_path / "spool" / "exports").iterdir()) == []
    await other.stop()


async def test_a_running_export_that_another_process_deletes_is_ended(
    application: FastAPI, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    for _ in range(3):
        await store_memories(client, 1000)
    other = Exports(application.state.services.store, tmp_path / "spool" / "exports")
    job = (await client.post(EXPORTS)).json()
    async with asyncio.timeout(20):
        while (await other.get(UUID(job["id"]), None)).state is ExportState.QUEUED:
            await asyncio.sleep(0)
    await other.delete(UUID(job["id"]), None)
    assert list((tmp_path / "spool" / "exports").iterdir()) == []


async def test_when_the_process_that_runs_exports_ends_another_goes_on(
    application: FastAPI, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    other = Exports(application.state.services.store, tmp_path / "spool" / "exports")
    await other.start()
    await application.state.services.exports.stop()
    assert (await ended(client, await client.post(EXPORTS)))["state"] == "completed"
    await other.stop()
