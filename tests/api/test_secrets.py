"""Secrets in what is sent: taken out before anything else sees them, refused, or let through, as the settings say."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.settings import Settings
from tests.api.test_imports import ended
from tests.api.test_limits import limited
from tests.source_files import entry, write_ai_afterimage
from tests.test_redaction import JWT

TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9" * 2
CODE = f"key = '{TOKEN}'\n"
MEMORY = {"file_path": "a.py", "new_code": CODE, "old_code": f"# {JWT}\n# {TOKEN}", "context": "rotate the key"}
CLEAN = {
    **MEMORY,
    "new_code": "key = '[REDACTED:github-token]'\n",
    "old_code": "# [REDACTED:jwt]\n# [REDACTED:github-token]",
}


async def everything(client: httpx.AsyncClient) -> str:
    """All that a client can read, as text."""
    page = await client.get("/v1/memories")
    found = await client.post("/v1/search/hybrid", json={"query": f"key {TOKEN} {JWT}", "explain": False})
    return page.text + found.text


async def test_secrets_are_taken_out_and_counted(client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]) -> None:
    sent = {**MEMORY, "id": "01a20e82-cd37-70df-a52c-de4ebe9e91a1"}
    answer = await client.post("/v1/memories?wait=embedding", json=sent)
    assert (answer.status_code, answer.json()["redacted"]) == (201, 3)
    assert {name: answer.json()[name] for name in MEMORY} == CLEAN
    again = await client.post("/v1/memories", json=sent)
    assert (again.status_code, again.json()["redacted"]) == (200, 3)
    clean = await client.post("/v1/memories", json={**MEMORY, "new_code": "x", "old_code": None})
    assert clean.json()["redacted"] == 0
    text = await everything(client) + str(capsys.readouterr())
    assert TOKEN not in text
    assert JWT not in text


async def test_each_memory_of_a_batch_says_how_many(client: httpx.AsyncClient) -> None:
    batch = {"memories": [{"file_path": "a.py", "new_code": "x"}, MEMORY]}
    results = (await client.post("/v1/memories/batch", json=batch)).json()["results"]
    assert [(one["status"], one["redacted"]) for one in results] == [("created", 0), ("created", 3)]


async def test_they_are_refused_where_the_settings_say_so(settings: Settings) -> None:
    async with limited(settings, secrets="reject") as (client, services):
        answer = await client.post("/v1/memories", json=MEMORY)
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:afterimage:problem:holds-a-secret")
        assert "new_code: holds 1 secret(s): github-token in line 1" in answer.json()["detail"]
        batch = {"memories": [MEMORY, {"file_path": "a.py", "new_code": "x"}]}
        answer = await client.post("/v1/memories/batch", json=batch)
        refused, taken = answer.json()["results"]
        assert (refused["status"], refused["id"], taken["status"]) == ("rejected", None, "created")
        assert "github-token" in refused["error"]
        assert TOKEN not in answer.text
        assert (await services.memories.stats(None)).total_entries == 1


async def test_they_stay_where_the_settings_say_so(settings: Settings) -> None:
    async with limited(settings, secrets="allow") as (client, _):
        answer = await client.post("/v1/memories", json=MEMORY)
        assert (answer.json()["new_code"], answer.json()["redacted"]) == (CODE, 0)


def source(folder: Path) -> Path:
    rows: list[dict[str, Any]] = [dict(entry(number)) for number in (1, 2, 3)]
    rows[1]["new_code"] = CODE
    return write_ai_afterimage(folder / "memory.db", rows)


async def test_an_import_takes_them_out_counts_them_and_compares_what_is_left(
    client: httpx.AsyncClient, application: FastAPI, folder: Path
) -> None:
    source(folder)
    job = await ended(client, await client.post("/v1/admin/imports", json={"path": "memory.db"}))
    assert (job["counts"]["migrated"], job["counts"]["redacted"]) == (3, 1)
    assert job["validation"] == {"checked": 3, "mismatched": 0, "missing": 0}
    again = await ended(client, await client.post("/v1/admin/imports", json={"path": "memory.db"}))
    assert (again["counts"]["skipped"], again["counts"]["redacted"]) == (3, 0)
    assert TOKEN not in await everything(client)
    del application


async def test_an_import_lists_the_rows_that_it_refuses(settings: Settings, folder: Path) -> None:
    source(folder)
    async with limited(settings, secrets="reject") as (client, _):
        job = await ended(client, await client.post("/v1/admin/imports", json={"path": "memory.db"}))
        assert (job["counts"]["migrated"], job["counts"]["failed"]) == (2, 1)
        assert job["validation"] == {"checked": 2, "mismatched": 0, "missing": 0}
        [reject] = (await client.get(f"/v1/admin/imports/{job['id']}/rejects")).json()["items"]
        assert (reject["rowid"], "github-token" in reject["reason"]) == (2, True)


async def test_nothing_of_them_is_in_the_file_of_the_store(tmp_path: Path) -> None:
    given = {"backend": "sqlite", "embedding_model": "hashing", "sqlite_path": tmp_path / "store.db"}
    settings = Settings.model_validate({**given, "spool_folder": tmp_path / "spool"})
    async with limited(settings) as (client, _):
        await client.post("/v1/memories?wait=embedding", json=MEMORY)
        await asyncio.sleep(0)
    with sqlite3.connect(tmp_path / "store.db") as file:
        dump = "\n".join(file.iterdump())
    file.close()
    assert "rotate" in dump
    assert TOKEN[4:20].lower() not in dump.lower()
