"""Bounds on size, number, time and rate: refused with the limit named, and nothing is stored."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from app.access import KeyScope
from app.api.limits import kind_of
from app.main import create_app
from app.settings import Settings
from app.traffic import Kind
from tests.source_files import entry, write_ai_afterimage

MEMORY = {"file_path": "a.py", "new_code": "x = 1"}


@asynccontextmanager
async def limited(settings: Settings, **more: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Any]]:
    """A client of an application with other settings, and its services."""
    app = create_app(settings.model_validate({**settings.model_dump(), **more}))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client, app.state.services


async def sent_again(client: httpx.AsyncClient, memory: dict[str, Any]) -> int:
    """The status of the first answer that is no refusal: a service that has just been full may still be busy."""
    async with asyncio.timeout(20):
        while (status := (await client.post("/v1/memories", json=memory)).status_code) == 503:
            await asyncio.sleep(0.01)
    return status


async def begun(client: httpx.AsyncClient, kind: Kind) -> None:
    """Returns when a request of the kind is in flight."""
    async with asyncio.timeout(20):
        while f'afterimage_in_flight{{kind="{kind}"}} 1.0' not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.01)


async def parts(*content: bytes, pause: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    for part in content:
        yield part
    if pause is not None:
        await pause.wait()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_refused_and_not_stored(settings: Settings, *, chunked: bool) -> None:
    body = json.dumps({**MEMORY, "context": "x" * 3000}).encode()
    headers = {"content-type": "application/json"}
    async with limited(settings, max_body_bytes=2048) as (client, services):
        for path in ("/v1/memories", "/v1/memories/batch", "/v1/search/fts", "/v1/admin/keys", "/v1/admin/exports"):
            content = parts(body[:2000], body[2000:]) if chunked else body
            answer = await client.post(path, content=content, headers=headers)
            assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json"), path
            assert answer.json()["type"] == "urn:afterimage:problem:too-large"
            assert "2048 bytes (AFTERIMAGE_MAX_BODY_BYTES)" in answer.json()["detail"]
        assert (await services.memories.stats(None)).total_entries == 0
        assert (await client.post("/v1/memories", json=MEMORY)).status_code == 201


async def test_a_file_to_import_has_a_limit_of_its_own(settings: Settings, tmp_path: Path) -> None:
    content = write_ai_afterimage(tmp_path / "memory.db", [entry(1)]).read_bytes()
    assert len(content) > 2048
    async with limited(settings, max_body_bytes=2048) as (client, _):
        headers = {"content-type": "application/vnd.sqlite3"}
        assert (await client.post("/v1/admin/imports", content=content, headers=headers)).status_code == 202
        large = b'{"path": "' + b"x" * 70_000 + b'"}'
        answer = await client.post("/v1/admin/imports", content=large, headers={"content-type": "application/json"})
        assert (answer.status_code, "65536 bytes" in answer.json()["detail"]) == (413, True)


async def test_more_writes_than_the_limit_are_sent_away_and_searches_are_not(settings: Settings) -> None:
    pause = asyncio.Event()
    body = json.dumps(MEMORY).encode()
    headers = {"content-type": "application/json"}
    async with limited(settings, max_writes_in_flight=1) as (client, _):
        slow = asyncio.create_task(client.post("/v1/memories", content=parts(body, pause=pause), headers=headers))
        await begun(client, Kind.WRITES)
        refused = await client.post("/v1/memories", json=MEMORY)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "1 writes are in flight, which is the limit" in refused.json()["detail"]
        assert (await client.post("/v1/search/fts", json={"query": "x"})).status_code == 200
        assert (await client.get("/v1/admin/imports")).status_code == 200
        pause.set()
        assert (await slow).status_code == 201
        assert (await client.post("/v1/memories", json=MEMORY)).status_code == 201


async def test_a_request_that_takes_too_long_is_ended(settings: Settings) -> None:
    async with limited(settings, request_timeout_seconds=0.2, max_writes_in_flight=1) as (client, _):
        content = parts(b'{"file_path"', pause=asyncio.Event())
        answer = await client.post("/v1/memories", content=content, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "0.2 s (AFTERIMAGE_REQUEST_TIMEOUT_SECONDS)" in answer.json()["detail"]
        assert await sent_again(client, MEMORY) == 201


async def test_each_key_has_a_rate_of_its_own(settings: Settings) -> None:
    async with limited(settings, rate_limit_per_minute=3) as (client, services):
        made = [await services.keys.create(name, [KeyScope.READ], None, None) for name in ("a", "b")]
        first, second = ({"Authorization": f"Bearer {text}"} for _, text in made)
        for left in (2, 1, 0):
            answer = await client.get("/v1/stats", headers=first)
            assert answer.status_code == 200
            assert answer.headers["ratelimit-policy"] == '"default";q=3;w=60'
            assert answer.headers["ratelimit"].startswith(f'"default";r={left};t=')
        refused = await client.get("/v1/stats", headers=first)
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:afterimage:problem:too-many-requests")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["ratelimit"].startswith('"default";r=0;t=')
        assert (await client.get("/v1/stats", headers=second)).status_code == 200
        assert (await client.get("/livez", headers=first)).status_code == 200


async def test_without_a_rate_nothing_is_said_about_it(client: httpx.AsyncClient) -> None:
    assert "ratelimit" not in (await client.get("/v1/stats")).headers


def test_which_requests_share_a_limit() -> None:
    assert {kind_of("POST", path) for path in ("/v1/memories", "/v1/memories/batch")} == {Kind.WRITES}
    assert kind_of("DELETE", "/v1/memories/x") is Kind.WRITES
    assert {kind_of("GET", path) for path in ("/v1/memories", "/v1/memories/x", "/v1/stats")} == {Kind.SEARCHES}
    assert kind_of("POST", "/v1/search/hybrid") is Kind.SEARCHES
    assert kind_of("GET", "/v1/admin/imports/x/events") is Kind.EVENT_STREAMS
    assert {kind_of("POST", path) for path in ("/v1/admin/imports", "/metrics")} == {None}


async def test_a_statement_that_a_lock_holds_up_is_answered_in_time(database: str, tmp_path: Path) -> None:
    held = {"database_url": database, "embedding_model": "hashing", "spool_folder": tmp_path, "max_pool_size": 2}
    async with limited(Settings.model_validate(held), statement_timeout_seconds=1) as (client, _):
        holder = await asyncpg.connect(database)
        try:
            async with holder.transaction():
                await holder.execute("LOCK TABLE memories IN ACCESS EXCLUSIVE MODE")
                async with asyncio.timeout(10):
                    write = await client.post("/v1/memories", json=MEMORY)
                    search = await client.post("/v1/search/fts", json={"query": "x"})
                for answer in (write, search):
                    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                    assert "AFTERIMAGE_STATEMENT_TIMEOUT_SECONDS" in answer.json()["detail"]
        finally:
            await holder.close()
        assert await sent_again(client, {**MEMORY, "id": str(uuid4())}) in (200, 201)
        assert (await client.get("/v1/stats")).json()["total_entries"] == 1


async def test_batches_queries_hits_and_pages_have_a_largest_size(client: httpx.AsyncClient) -> None:
    too_large = [
        await client.post("/v1/memories/batch", json={"memories": [MEMORY] * 1001}),
        await client.post("/v1/search/fts", json={"query": "x" * 100_001}),
        await client.post("/v1/search/fts", json={"query": "x", "limit": 101}),
        await client.get("/v1/memories", params={"limit": 1001}),
    ]
    for answer, limit in zip(too_large, ("1000", "100000", "100", "1000"), strict=True):
        assert (answer.status_code, limit in answer.json()["detail"]) == (422, True), answer.text
    largest = [
        await client.post("/v1/search/fts", json={"query": "x" * 100_000, "limit": 100}),
        await client.get("/v1/memories", params={"limit": 1000}),
    ]
    assert [answer.status_code for answer in largest] == [200, 200]


async def test_more_searches_than_the_limit_are_sent_away_and_writes_are_not(settings: Settings) -> None:
    pause = asyncio.Event()
    headers = {"content-type": "application/json"}
    async with limited(settings, max_searches_in_flight=1) as (client, _):
        content = parts(b'{"query": "x"}', pause=pause)
        slow = asyncio.create_task(client.post("/v1/search/fts", content=content, headers=headers))
        await begun(client, Kind.SEARCHES)
        refused = await client.get("/v1/stats")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (await client.post("/v1/memories", json=MEMORY)).status_code == 201
        pause.set()
        assert (await slow).status_code == 200


async def test_requests_that_find_no_connection_are_answered_in_time(database: str, tmp_path: Path) -> None:
    alone: dict[str, Any] = {"database_url": database, "embedding_model": "hashing", "spool_folder": tmp_path}
    alone |= {"min_pool_size": 1, "max_pool_size": 1, "acquire_timeout_seconds": 1}
    async with limited(Settings.model_validate(alone)) as (client, services):
        assert await sent_again(client, MEMORY) == 201
        async with services.store._connections._pool.acquire(), asyncio.timeout(20):
            for answer in (
                await client.post("/v1/memories", json=MEMORY),
                await client.post("/v1/search/fts", json={"query": "x"}),
                await client.get("/v1/memories"),
            ):
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert "no database connection was to be had within 1 s" in answer.json()["detail"]
                assert "AFTERIMAGE_MAX_POOL_SIZE" in answer.json()["detail"]
        assert await sent_again(client, MEMORY) == 201


async def test_more_waiting_imports_than_the_limit_are_sent_away(settings: Settings, folder: Path) -> None:
    content = write_ai_afterimage(folder / "memory.db", [entry(1)]).read_bytes()
    sqlite = {"content-type": "application/vnd.sqlite3"}
    async with limited(settings, max_queued_imports=1) as (client, services):
        await services.imports.stop()
        first = await client.post("/v1/admin/imports", json={"path": "memory.db"})
        assert first.status_code == 202
        for refused in (
            await client.post("/v1/admin/imports", json={"path": "memory.db"}),
            await client.post("/v1/admin/imports?project=p", content=content, headers=sqlite),
        ):
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
            assert "1 imports wait already" in refused.json()["detail"]
            assert "AFTERIMAGE_MAX_QUEUED_IMPORTS" in refused.json()["detail"]
        assert len(list(settings.spool_folder.glob("*.sqlite"))) == 1
        await client.post(f"{first.headers['location']}/cancel")
        again = await client.post("/v1/admin/imports?project=p", content=content, headers=sqlite)
        assert again.status_code == 202
