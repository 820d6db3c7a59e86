"""The log tells which request, key and projects, and nothing of what is stored, searched or secret."""

import asyncio
import io
import json
import logging
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import structlog
from fastapi import FastAPI
from pydantic import TypeAdapter, ValidationError

from app.logs import configure_logs, describe
from app.settings import Settings
from tests.api.test_access import bearer
from tests.api.test_imports import ended
from tests.conftest import execute
from tests.source_files import entry, write_ai_afterimage

MARKER = "zanzibar"
CODE = f"def {MARKER}(): return '{MARKER}'"

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(params=["json", "console"])
def written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """All that is logged from now on, at the level `debug`."""
    root = logging.getLogger()
    before = root.handlers, root.level, structlog.get_config()
    monkeypatch.setattr(sys, "stderr", text := io.StringIO())
    configure_logs("debug", request.param)
    root.setLevel(logging.WARNING)
    yield text
    root.handlers, level, configuration = before
    root.setLevel(level)
    structlog.configure(**configuration)


def lines(text: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.getvalue().splitlines()]


@pytest.fixture
async def polite(application: FastAPI) -> Any:
    """A client that is answered 500 as others are."""
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as made:
        yield made


async def break_inserts(settings: Settings) -> None:
    """Makes the database refuse each memory with an error that repeats it."""
    if settings.database_url:
        statement = "ALTER TABLE memories ADD CONSTRAINT none CHECK (length(file_path) > 5000) NOT VALID"
        await execute(settings.database_url.get_secret_value(), statement)
        return
    trigger = f"CREATE TRIGGER none BEFORE INSERT ON memories BEGIN SELECT RAISE(ABORT, '{MARKER}'); END"

    def create() -> None:
        with closing(sqlite3.connect(settings.sqlite_path)) as connection:
            connection.execute(trigger)

    await asyncio.to_thread(create)  # another writer may have to go on first


async def test_no_line_holds_code_a_query_or_a_key(
    written: io.StringIO, polite: httpx.AsyncClient, settings: Settings, folder: Path
) -> None:
    made = await polite.post("/v1/admin/keys", json={"name": "me", "scopes": ["admin"]})
    key = made.json()["key"]
    polite.headers.update(bearer(key))
    memory = {"file_path": f"{MARKER}.py", "new_code": CODE, "context": MARKER, "session_id": MARKER}
    for sent in (memory, {**memory, "new_code": [CODE]}, {**memory, MARKER: CODE}, {"new_code": CODE}):
        await polite.post("/v1/memories?wait=embedding", json=sent)
        await polite.post("/v1/memories/batch", json={"memories": [sent, CODE, [CODE]]})
    json_type = {"content-type": "application/json"}
    for raw in (f'{{"new_code": "{CODE}', f'"{CODE}"\xff', f'{{"new_code": "{MARKER}\\ud800", "file_path": "a"}}'):
        await polite.post("/v1/memories", content=raw.encode("latin-1"), headers=json_type)
    for mode in ("fts", "semantic", "hybrid"):
        for query in (CODE, f'"{MARKER}" -{MARKER}', MARKER * 20_000):
            await polite.post(f"/v1/search/{mode}", json={"query": query, "session_id": MARKER})
    await polite.get("/v1/memories", params={"file_path": MARKER, "cursor": MARKER})
    await polite.get("/v1/stats", headers=bearer(f"{key}{MARKER}"))
    await polite.delete(f"/v1/admin/keys/{key}")
    rows: list[dict[str, Any]] = [dict(entry(number)) for number in range(1, 4)]
    rows[0].update(new_code=CODE, embedding=MARKER.encode())
    rows[1].update(new_code="", context=CODE)
    rows[2].update(timestamp=MARKER, new_code=CODE)
    write_ai_afterimage(folder / "memory.db", rows)
    job = await ended(polite, await polite.post("/v1/admin/imports", json={"path": "memory.db"}))
    assert job["counts"]["source_entries"] == 3
    await break_inserts(settings)
    answer = await polite.post("/v1/memories", json=memory)
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, answer.json()["request_id"])
    assert MARKER not in answer.text
    text = written.getvalue()
    assert "request failed" in text
    assert "Traceback" in text
    assert answer.json()["request_id"] in text
    assert MARKER not in text
    assert key[-20:] not in text


@pytest.mark.parametrize("written", ["json"], indirect=True)
async def test_each_request_is_logged_with_its_id_its_key_and_its_projects(
    written: io.StringIO, client: httpx.AsyncClient
) -> None:
    made = (await client.post("/v1/admin/keys", json={"name": "me", "scopes": ["admin"]})).json()
    client.headers.update(bearer(made["key"]))
    memory = {"file_path": "a.py", "new_code": "x = 1", "project": "shop"}
    place = (await client.post("/v1/memories", json=memory)).headers["location"]
    batch = {"memories": [memory, {**memory, "project": "cart"}]}
    found = {}
    for name, method, path, body in (
        ("batch", "POST", "/v1/memories/batch", batch),
        ("search", "POST", "/v1/search/fts", {"query": "x", "projects": ["b", "a"]}),
        ("list", "GET", "/v1/memories?projects=a&projects=b", None),
        ("stats", "GET", "/v1/stats?projects=a", None),
        ("get", "GET", f"{place}?project=shop", None),
        ("export", "POST", "/v1/admin/exports", {"projects": ["shop"]}),
        ("none", "GET", "/v1/stats", None),
        ("delete", "DELETE", f"{place}?project=shop", None),
    ):
        await client.request(method, path, json=body, headers={"X-Request-ID": name})
        [found[name]] = [one for one in lines(written) if one.get("request_id") == name and one["event"] == "request"]
    assert {one["key_id"] for one in found.values()} == {made["details"]["id"]}
    assert {name: one.get("projects") for name, one in found.items()} == {
        "batch": ["cart", "shop"],
        "search": ["a", "b"],
        "list": ["a", "b"],
        "stats": ["a"],
        "get": ["shop"],
        "export": ["shop"],
        "none": None,
        "delete": ["shop"],
    }
    client.headers.pop("authorization")
    await client.get("/livez", headers={"X-Request-ID": "open"})
    [line] = [one for one in lines(written) if one.get("request_id") == "open"]
    assert "key_id" not in line


def errors() -> Iterator[Exception]:
    """Errors as libraries make them, with what was sent in their message."""
    violated = asyncpg.CheckViolationError(f"new row violates {MARKER}")
    violated.detail = f"Failing row contains ({MARKER})."
    violated.sqlstate, violated.constraint_name = "23514", "memories_check"
    yield violated
    yield ValueError(MARKER)
    yield KeyError(MARKER)
    try:
        TypeAdapter(int).validate_python(MARKER)
    except ValidationError as error:
        yield error


def fail(error: Exception) -> None:
    raise RuntimeError(MARKER) from error


def test_an_error_is_described_without_what_was_sent(written: io.StringIO) -> None:
    for error in errors():
        assert MARKER not in describe(error)
        try:
            fail(error)
        except RuntimeError:
            logging.getLogger("uvicorn.error").exception("broken\n")
            structlog.get_logger("app").exception("broken")
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: <Task exception=%r>", MARKER)
    text = written.getvalue()
    assert "Task exception was never retrieved" in text
    for name in ("RuntimeError", "CheckViolationError sqlstate=23514", "constraint_name=memories_check", "ValidationE"):
        assert name in text
    assert MARKER not in text


def test_an_error_of_the_system_says_what_is_wrong() -> None:
    assert describe(FileNotFoundError(2, "No such file", "x")) == "FileNotFoundError: [Errno 2] No such file: 'x'"
    assert describe(asyncio.QueueFull()) == "asyncio.queues.QueueFull"


@pytest.mark.parametrize("written", ["json"], indirect=True)
def test_a_line_holds_any_name_of_a_file_in_ascii(written: io.StringIO) -> None:
    log = structlog.get_logger("app.test")
    names = ["größe.py", "caf\udce9.py", "\x9b31m\u2028\x7f.py"]
    for name in names:
        log.warning("a file", path=name, folder=Path("/srv"))
    text = written.getvalue()
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    assert [(line["path"], line["folder"]) for line in lines(written)] == [(name, "/srv") for name in names]
