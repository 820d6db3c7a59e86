"""Routes of imports, on each store."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.source_files import entry, insert, write_ai_afterimage, write_ai_afterimage_08

SQLITE = {"content-type": "application/vnd.sqlite3"}
FINAL = {"completed", "failed", "cancelled"}


async def ended(client: httpx.AsyncClient, started: httpx.Response) -> dict[str, Any]:
    """The import once it is over."""
    assert started.status_code == 202, started.text
    async with asyncio.timeout(30):
        while True:
            job: dict[str, Any] = (await client.get(started.headers["location"])).json()
            if job["state"] in FINAL:
                return job
            await asyncio.sleep(0.02)


async def test_a_file_below_the_import_folder_is_imported_and_validated(
    client: httpx.AsyncClient, folder: Path
) -> None:
    write_ai_afterimage(folder / "memory.db", [entry(number) for number in range(1, 31)])
    job = await ended(client, await client.post("/v1/admin/imports", json={"path": "memory.db", "project": "p"}))
    assert (job["state"], job["stage"], job["error"]) == ("completed", "done", None)
    assert job["source"]["name"] == "memory.db"
    assert job["source"]["format"] == "AI-AfterImage 0.1-0.7"
    assert job["counts"] == {
        "source_entries": 30,
        "migrated": 30,
        "skipped": 0,
        "failed": 0,
        "reembedded": 30,
        "redacted": 0,
        "altered": 0,
        "unusable_vectors": 0,
    }
    assert job["validation"] == {"checked": 30, "mismatched": 0, "missing": 0}
    assert job["progress"]["percent"] == 100.0
    found = await client.post("/v1/search/fts", json={"query": "f7", "projects": ["p"]})
    assert found.json()["hits"][0]["memory"]["import_id"] == job["id"]


async def test_the_file_itself_can_be_sent(client: httpx.AsyncClient, tmp_path: Path) -> None:
    path = write_ai_afterimage_08(tmp_path / "mine.db", [entry(1, seen_count=4), entry(2)])
    started = await client.post("/v1/admin/imports?project=p", content=path.read_bytes(), headers=SQLITE)
    job = await ended(client, started)
    assert (job["source"]["name"], job["source"]["format"]) == ("upload", "AI-AfterImage 0.8")
    assert job["counts"]["migrated"] == 2
    assert "seen_count of 1 rows" in job["notes"]
    async with asyncio.timeout(10):  # the copy goes just after the end
        while list((tmp_path / "spool").glob("*.sqlite")):
            await asyncio.sleep(0.01)


async def test_a_second_run_skips_what_is_there(client: httpx.AsyncClient, folder: Path) -> None:
    write_ai_afterimage(folder / "memory.db", [entry(1), entry(2)])
    for expected in ((2, 0), (0, 2)):
        job = await ended(client, await client.post("/v1/admin/imports", json={"path": "memory.db"}))
        assert (job["counts"]["migrated"], job["counts"]["skipped"]) == expected


async def test_rows_that_cannot_be_taken_are_listed_in_pages(client: httpx.AsyncClient, folder: Path) -> None:
    rows = [
        entry(number, timestamp="yesterday" if number % 2 else entry(number)["timestamp"]) for number in range(1, 7)
    ]
    rows[2]["file_path"] = "other.py"
    rows[4]["file_path"] = "another.py"
    write_ai_afterimage(folder / "memory.db", rows)
    job = await ended(client, await client.post("/v1/admin/imports", json={"path": "memory.db"}))
    assert (job["state"], job["counts"]["migrated"], job["counts"]["failed"]) == ("completed", 3, 3)
    address = f"/v1/admin/imports/{job['id']}/rejects"
    first = (await client.get(address, params={"limit": 2})).json()
    rest = (await client.get(address, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [one["rowid"] for one in first["items"] + rest["items"]] == [1, 3, 5]
    assert "yesterday" in first["items"][0]["reason"]
    assert rest["next_cursor"] is None


async def test_a_dry_run_stores_nothing(client: httpx.AsyncClient, folder: Path) -> None:
    write_ai_afterimage(folder / "memory.db", [entry(1)])
    job = await ended(client, await client.post("/v1/admin/imports", json={"path": "memory.db", "dry_run": True}))
    assert job["counts"]["migrated"] == 1
    assert (await client.get("/v1/stats")).json()["total_entries"] == 0


async def test_undo_deletes_what_was_imported(client: httpx.AsyncClient, folder: Path) -> None:
    await client.post("/v1/memories", json={"file_path": "a.py", "new_code": "kept"})
    write_ai_afterimage(folder / "memory.db", [entry(1), entry(2)])
    job = await ended(client, await client.post("/v1/admin/imports", json={"path": "memory.db"}))
    answer = await client.delete(f"/v1/admin/imports/{job['id']}/memories")
    assert answer.json() == {"deleted": 2}
    assert (await client.get("/v1/stats")).json()["total_entries"] == 1


async def test_events_follow_an_import_to_its_end(client: httpx.AsyncClient, folder: Path) -> None:
    write_ai_afterimage(folder / "memory.db", [entry(number) for number in range(1, 11)])
    started = await client.post("/v1/admin/imports", json={"path": "memory.db"})
    for _ in range(2):  # the second time is a reconnect, after the end
        async with client.stream("GET", f"{started.headers['location']}/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            data = [json.loads(line[6:]) async for line in stream.aiter_lines() if line.startswith("data: ")]
        assert data[-1]["state"] == "completed"
        assert data[-1] == (await client.get(started.headers["location"])).json()
        assert data[-1]["counts"]["migrated"] == 10


async def test_imports_are_listed_and_an_ended_one_stays_as_it_is(client: httpx.AsyncClient, folder: Path) -> None:
    write_ai_afterimage(folder / "memory.db", [entry(1)])
    jobs = [await ended(client, await client.post("/v1/admin/imports", json={"path": "memory.db"})) for _ in range(3)]
    page = (await client.get("/v1/admin/imports", params={"limit": 2})).json()
    rest = (await client.get("/v1/admin/imports", params={"cursor": page["next_cursor"]})).json()
    assert [job["id"] for job in page["items"] + rest["items"]] == [job["id"] for job in reversed(jobs)]
    answer = await client.post(f"/v1/admin/imports/{jobs[0]['id']}/cancel")
    assert answer.json()["state"] == "completed"


async def test_a_file_that_is_no_source_is_refused_at_once(client: httpx.AsyncClient, folder: Path) -> None:
    (folder / "text.db").write_text("no database")
    for sent in ({"path": "text.db"}, {"path": "../outside.db"}, {"path": "/etc/passwd"}, {"path": "nothing.db"}):
        answer = await client.post("/v1/admin/imports", json=sent)
        assert answer.status_code == 422, answer.text
        assert answer.json()["type"] == "urn:afterimage:problem:invalid-source"
    assert (await client.get("/v1/admin/imports")).json()["items"] == []


async def test_an_upload_that_is_no_source_leaves_nothing_behind(client: httpx.AsyncClient, tmp_path: Path) -> None:
    for content in (b"", b"no database", b"SQLite format 3\0" + bytes(100)):
        answer = await client.post("/v1/admin/imports", content=content, headers=SQLITE)
        assert answer.status_code == 422
    assert list((tmp_path / "spool").glob("*.sqlite*")) == []


async def test_an_upload_in_wal_mode_is_refused_because_rows_may_be_missing(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    path = write_ai_afterimage(tmp_path / "memory.db", [entry(1)])
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        insert(writer, "code_memory", [entry(2)])
        writer.commit()
        answer = await client.post("/v1/admin/imports", content=path.read_bytes(), headers=SQLITE)
    assert answer.status_code == 422
    assert "journal_mode = DELETE" in answer.json()["detail"]
    assert list((tmp_path / "spool").glob("*.sqlite*")) == []


async def test_an_upload_over_the_limit_is_refused(client: httpx.AsyncClient, tmp_path: Path) -> None:
    answer = await client.post("/v1/admin/imports", content=bytes(1024 * 1024 + 1), headers=SQLITE)
    assert answer.status_code == 413
    assert "1048576" in answer.json()["detail"]
    assert list((tmp_path / "spool").glob("*.sqlite*")) == []


async def test_another_media_type_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/admin/imports", content=b"x", headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    assert "application/vnd.sqlite3" in answer.json()["detail"]


@pytest.mark.parametrize("sent", [{}, {"path": ""}, {"path": "x", "unknown": 1}, {"path": "a\0b"}])
async def test_a_bad_request_names_the_field(client: httpx.AsyncClient, sent: dict[str, Any]) -> None:
    answer = await client.post("/v1/admin/imports", json=sent)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] in {"path", "unknown"}


@pytest.mark.parametrize("rest", ["", "/events", "/rejects", "/cancel", "/memories"])
async def test_an_unknown_import_is_not_found(client: httpx.AsyncClient, rest: str) -> None:
    method = {"/cancel": "POST", "/memories": "DELETE"}.get(rest, "GET")
    answer = await client.request(method, f"/v1/admin/imports/01900000-0000-7000-8000-000000000000{rest}")
    assert answer.status_code == 404
