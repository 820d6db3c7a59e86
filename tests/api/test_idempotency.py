"""Writes with an `Idempotency-Key`, on each store."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiosqlite
import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from app.access import KeyScope
from app.api.deps import Services
from app.main import create_app
from app.settings import Settings
from tests.api.test_memories import body

SINGLE, BATCH = "/v1/memories", "/v1/memories/batch"
MALFORMED = "urn:afterimage:problem:idempotency-key-malformed"
REUSED = "urn:afterimage:problem:idempotency-key-reused"
OUTSTANDING = "urn:afterimage:problem:idempotency-key-outstanding"


def key(text: str = "k-1") -> dict[str, str]:
    return {"Idempotency-Key": text}


@asynccontextmanager
async def running(settings: Settings, **more: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
    """A client of another instance of the application, and its services."""
    app = create_app(settings.model_validate({**settings.model_dump(), **more}))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client, app.state.services


async def total(client: httpx.AsyncClient, **headers: str) -> int:
    count: int = (await client.get("/v1/stats", headers=headers)).json()["total_entries"]
    return count


def assert_replayed(first: httpx.Response, again: httpx.Response) -> None:
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    for name in ("location", "content-type", "content-length"):
        assert again.headers.get(name) == first.headers.get(name)
    assert (again.status_code, again.content) == (first.status_code, first.content)


async def test_a_repeated_write_gets_the_first_answer_again(client: httpx.AsyncClient) -> None:
    first = await client.post(SINGLE, json=body(), headers=key())
    assert (first.status_code, first.headers["location"]) == (201, f"/v1/memories/{first.json()['id']}")
    assert_replayed(first, await client.post(SINGLE, json=body(), headers=key()))
    assert await total(client) == 1


async def test_the_answer_is_the_same_as_without_a_key(client: httpx.AsyncClient) -> None:
    sent = body(project="p", context="é\u2028", timestamp="2026-01-02T03:04:05.678+02:00")
    varying = r'"(id|created_at)":"[^"]+"'
    for path, json in ((SINGLE, sent), (BATCH, {"memories": [sent, {}]})):
        plain, keyed = [await client.post(path, json=json, headers=headers) for headers in ({}, key(path))]
        assert re.sub(varying, "", keyed.text) == re.sub(varying, "", plain.text)
        assert keyed.headers["content-type"] == plain.headers["content-type"]


async def test_a_key_is_the_same_with_and_without_quotes(client: httpx.AsyncClient) -> None:
    first = await client.post(SINGLE, json=body(), headers=key("k"))
    assert_replayed(first, await client.post(SINGLE, json=body(), headers=key(' "k" ')))
    quoted = await client.post(SINGLE, json=body(), headers=key(r'"a \"b\" \\ c, d;"'))
    assert (quoted.status_code, await total(client)) == (201, 2)


NO_KEYS = [
    [""],
    ['""'],
    ['"open'],
    ['"a"b"'],
    [r'"a\b"'],
    ['"a";p=1'],
    ["a b"],
    ["a,b"],
    ["a", "b"],
    ['"a"', '"a"'],
    ["é"],
    ["x" * 256],
    [f'"{"x" * 256}"'],
]


async def test_a_malformed_key_is_refused(client: httpx.AsyncClient) -> None:
    for fields in NO_KEYS:
        sent = [(b"Idempotency-Key", one.encode()) for one in fields]
        for path, json in ((SINGLE, body()), (BATCH, {"memories": [body()]})):
            answer = await client.post(path, json=json, headers=sent)
            assert (answer.status_code, answer.json()["type"]) == (400, MALFORMED), fields
            assert "1 to 255 ASCII characters" in answer.json()["detail"]
    assert await total(client) == 0


async def test_a_key_may_have_255_characters(client: httpx.AsyncClient) -> None:
    first = await client.post(SINGLE, json=body(), headers=key("x" * 255))
    assert_replayed(first, await client.post(SINGLE, json=body(), headers=key(f'"{"x" * 255}"')))


async def test_another_request_with_the_key_is_refused(client: httpx.AsyncClient) -> None:
    first = await client.post(SINGLE, json=body(), headers=key())
    others: list[tuple[str, Any]] = [
        (SINGLE, body(context="other")),
        (SINGLE, body(project="other")),
        (f"{SINGLE}?wait=embedding", body()),
        (BATCH, {"memories": [body()]}),
        (BATCH, {"memories": [{}]}),
    ]
    for path, json in others:
        answer = await client.post(path, json=json, headers=key())
        assert (answer.status_code, answer.json()["type"]) == (422, REUSED), path
        assert "'k-1'" in answer.json()["detail"]
    assert_replayed(first, await client.post(SINGLE, json=body(), headers=key()))
    assert await total(client) == 1


async def test_an_error_leaves_the_key_free(client: httpx.AsyncClient) -> None:
    taken = (await client.post(SINGLE, json=body())).json()["id"]
    for wrong, status in ((body(new_code=""), 422), (body(embedding=[1.0]), 422), (body(id=taken, context="x"), 409)):
        assert (await client.post(SINGLE, json=wrong, headers=key())).status_code == status
    assert (await client.post(SINGLE, json=body(), headers=key())).status_code == 201
    assert await total(client) == 2


async def test_a_refused_secret_leaves_the_key_free(settings: Settings) -> None:
    async with running(settings, secrets="reject") as (client, _):
        secret = body(new_code=f"token = 'ghp_{'a1B2c3' * 6}'")
        assert (await client.post(SINGLE, json=secret, headers=key())).status_code == 422
        batch = await client.post(BATCH, json={"memories": [secret]}, headers=key())
        assert [one["status"] for one in batch.json()["results"]] == ["rejected"]
        assert (await client.post(SINGLE, json=body(), headers=key())).status_code == 201


async def test_what_is_kept_holds_no_secret(client: httpx.AsyncClient, application: FastAPI) -> None:
    secret = f"ghp_{'a1B2c3' * 6}"
    first = await client.post(SINGLE, json=body(new_code=f"token = '{secret}'"), headers=key())
    assert first.json()["redacted"] == 1
    kept = await application.state.services.store.idempotency.find("anyone", "k-1")
    assert (secret.encode() in kept[0].body, kept[0].body) == (False, first.content)


async def test_a_memory_that_was_there_is_answered_so_again(client: httpx.AsyncClient) -> None:
    sent = body(id=str(uuid4()))
    await client.post(SINGLE, json=sent)
    first = await client.post(SINGLE, json=sent, headers=key())
    assert first.status_code == 200
    assert_replayed(first, await client.post(SINGLE, json=sent, headers=key()))


@pytest.mark.parametrize("path", [SINGLE, f"{SINGLE}?wait=embedding"])
async def test_the_first_answer_comes_again_after_the_memory_was_deleted(client: httpx.AsyncClient, path: str) -> None:
    first = await client.post(path, json=body(), headers=key())
    assert (await client.delete(first.headers["location"])).status_code == 204
    assert_replayed(first, await client.post(path, json=body(), headers=key()))
    assert await total(client) == 0


async def test_a_repeated_batch_gets_the_first_answer_again(client: httpx.AsyncClient) -> None:
    sent = {"memories": [body(), {"file_path": "x"}, body(context="c")]}
    first = await client.post(BATCH, json=sent, headers=key())
    assert [one["status"] for one in first.json()["results"]] == ["created", "rejected", "created"]
    assert_replayed(first, await client.post(BATCH, json=sent, headers=key()))
    assert await total(client) == 2


async def test_a_batch_that_was_rejected_whole_leaves_the_key_free(client: httpx.AsyncClient) -> None:
    taken = (await client.post(SINGLE, json=body())).json()["id"]
    for wrong in ({}, body(id=taken, context="x")):
        answer = await client.post(BATCH, json={"memories": [wrong]}, headers=key())
        assert [one["status"] for one in answer.json()["results"]] == ["rejected"]
    answer = await client.post(BATCH, json={"memories": [body()]}, headers=key())
    assert [one["status"] for one in answer.json()["results"]] == ["created"]


@pytest.mark.parametrize("path", [SINGLE, BATCH, f"{SINGLE}?wait=embedding"])
async def test_of_many_at_once_one_stores(client: httpx.AsyncClient, path: str) -> None:
    json = {"memories": [body()]} if path == BATCH else body()
    answers = await asyncio.gather(*(client.post(path, json=json, headers=key()) for _ in range(50)))
    assert_one_stored(answers)
    assert await total(client) == 1


@pytest.mark.parametrize("settings", ["postgresql"], indirect=True)
async def test_of_many_at_once_in_two_instances_one_stores(settings: Settings, tmp_path: Path) -> None:
    async with running(settings) as (one, _), running(settings, spool_folder=tmp_path / "other") as (other, _):
        for attempt in range(5):
            sent = body(context=f"{attempt}")
            answers = await asyncio.gather(
                *((one, other)[number % 2].post(SINGLE, json=sent, headers=key(f"{attempt}")) for number in range(50))
            )
            assert_one_stored(answers)
        assert await total(one) == 5


def assert_one_stored(answers: list[httpx.Response]) -> None:
    """One answer is the first, the others are the same again or tell to come later."""
    given = [answer for answer in answers if answer.status_code in (200, 201)]
    [first] = [answer for answer in given if "idempotent-replayed" not in answer.headers]
    for again in given:
        if again is not first:
            assert_replayed(first, again)
    for later in answers:
        if later not in given:
            assert (later.status_code, later.headers["retry-after"]) == (409, "1")
            assert later.json()["type"] == OUTSTANDING


@asynccontextmanager
async def held(settings: Settings) -> AsyncIterator[None]:
    """Nobody can write meanwhile; who tries waits."""
    if settings.backend == "sqlite":
        async with aiosqlite.connect(settings.sqlite_path, isolation_level=None) as connection:
            await connection.execute("BEGIN IMMEDIATE")
            yield
    else:
        assert settings.database_url is not None
        other = await asyncpg.connect(settings.database_url.get_secret_value())
        async with other.transaction():
            await other.execute("LOCK TABLE memories IN EXCLUSIVE MODE")
            yield
        await other.close()


async def test_while_the_first_is_running_others_are_told_to_come_later(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    async with held(settings):
        both = [asyncio.create_task(client.post(SINGLE, json=body(), headers=key())) for _ in range(2)]
        done, pending = await asyncio.wait(both, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        later = [*(one.result() for one in done), await client.post(SINGLE, json=body(context="x"), headers=key())]
        assert [(one.status_code, one.json()["type"]) for one in later] == [(409, OUTSTANDING)] * 2
        assert {one.headers["retry-after"] for one in later} == {"1"}
    [first] = [await one for one in pending]
    assert first.status_code == 201
    assert_replayed(first, await client.post(SINGLE, json=body(), headers=key()))


async def test_a_write_that_was_not_waited_for_is_waited_for_when_repeated(settings: Settings) -> None:
    path = f"{SINGLE}?wait=embedding"
    async with running(settings) as (client, services):
        await services.models.active.worker.stop()
        for _ in range(2):
            assert (await client.post(path, json=body(), headers=key())).status_code == 503
        assert await total(client) == 1
    async with running(settings) as (client, _):
        answer = await client.post(path, json=body(), headers=key())
        assert (answer.status_code, answer.headers["idempotent-replayed"]) == (201, "true")
        assert answer.json()["embedding_status"] == "ready"
        assert (await client.get(answer.headers["location"])).json() == {
            name: value for name, value in answer.json().items() if name != "redacted"
        }
        assert await total(client) == 1


async def test_each_key_of_the_service_has_idempotency_keys_of_its_own(settings: Settings) -> None:
    async with running(settings, admin_key="0123456789abcdef") as (client, services):
        texts = [(await services.keys.create(name, [KeyScope.WRITE], None, None))[1] for name in ("a", "b")]
        callers = [{"Authorization": f"Bearer {text}"} for text in (*texts, "0123456789abcdef")]
        assert (await client.post(SINGLE, json=body(), headers=key())).status_code == 401
        for number, caller in enumerate(callers):
            sent = body(context=f"{number}")
            first = await client.post(SINGLE, json=sent, headers={**key(), **caller})
            assert first.status_code == 201
            assert_replayed(first, await client.post(SINGLE, json=sent, headers={**key(), **caller}))
        assert await total(client, **callers[-1]) == 3


def test_it_is_described() -> None:
    document = create_app(Settings()).openapi()
    for path in (SINGLE, BATCH):
        operation = document["paths"][path]["post"]
        [header] = [one for one in operation["parameters"] if one["in"] == "header"]
        assert (header["name"], header["required"]) == ("Idempotency-Key", False)
        assert re.fullmatch(header["schema"]["pattern"], header["example"])
        assert {"400", "409", "422"} <= operation["responses"].keys()
        stored = operation["responses"]["201" if path == SINGLE else "200"]
        assert "Idempotent-Replayed" in stored["headers"]
        assert stored["content"]["application/json"]["schema"]["$ref"].endswith(("StoredMemory", "BatchOut"))
