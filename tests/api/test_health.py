"""Health, the OpenAPI document and its pages."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
from fastapi import FastAPI

from app.access import KeyScope
from app.api.deps import Services
from app.main import create_app
from app.settings import Settings
from tests.api.test_access import made
from tests.conftest import execute


async def test_readiness_names_each_part(client: httpx.AsyncClient, application: FastAPI) -> None:
    async with asyncio.timeout(10):
        while (answer := await client.get("/readyz")).json()["checks"]["embedding"] != "ok":
            await asyncio.sleep(0.01)
    backend = application.state.services.store.backend
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "checks": {backend: "ok", "embedding": "ok"}})


async def test_where_keys_are_asked_for_hosts_and_causes_are_for_those_who_have_one(
    database: str, tmp_path: Path
) -> None:
    admin_key = "0123456789abcdef"
    where = {"database_url": database, "pg_read_hosts": ["/nowhere"], "admin_key": admin_key}
    settings = Settings.model_validate({**where, "embedding_model": "hashing", "spool_folder": tmp_path})
    async with serving(settings) as (client, services), asyncio.timeout(60):
        admin = {"Authorization": f"Bearer {admin_key}"}
        reader, bound = [await made(services, KeyScope.READ, projects=projects) for projects in (None, ["p"])]
        while (await client.get("/readyz")).json()["checks"]["embedding"] != "ok":
            await asyncio.sleep(0.01)
        brief: dict[str, Any] = {"postgresql": "ok", "embedding": "ok", "standbys": "0 of 1 ok"}
        for headers in ({}, bound, {"Authorization": "Bearer wrong"}):
            answer = await client.get("/readyz", headers=headers)
            assert (answer.status_code, answer.json()["checks"]) == (200, brief)
        for headers in (reader, admin):
            checks = (await client.get("/readyz", headers=headers)).json()["checks"]
            assert checks.keys() == {"postgresql", "embedding", "standby /nowhere"}
        async with gone(database):
            for headers in ({}, bound, reader):  # whose keys cannot be looked up
                answer = await client.get("/readyz", headers=headers)
                assert (answer.status_code, answer.json()["checks"]) == (503, {**brief, "postgresql": "down"})
                refused = await client.get("/v1/stats", headers={**reader, **headers})
                assert (refused.status_code, refused.json()["detail"], refused.headers["retry-after"]) == (
                    503,
                    "the store does not answer, and keys are kept there; send it again later",
                    "1",
                )
            checks = (await client.get("/readyz", headers=admin)).json()["checks"]
            assert checks["postgresql"].startswith("PostgreSQL does not answer: ")
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
    application = create_app(settings)
    async with (
        application.router.lifespan_context(application),
        httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://localhost") as client,
    ):
        yield client, application.state.services


@asynccontextmanager
async def gone(url: str) -> AsyncIterator[None]:
    """A database that ends its connections and is not to be found."""
    name = urlsplit(url).path.removeprefix("/")
    server = url.replace(f"/{name}?", "/postgres?")
    end_all = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    while True:
        with suppress(asyncpg.ObjectInUseError):  # somebody has come back meanwhile
            await execute(server, end_all, f"ALTER DATABASE {name} RENAME TO {name}_away")
            break
    try:
        yield
    finally:
        await execute(server, f"ALTER DATABASE {name}_away RENAME TO {name}")


async def test_life_is_told_without_the_database(client: httpx.AsyncClient, application: FastAPI) -> None:
    application.state.services = None
    assert (await client.get("/livez")).json() == {"status": "ok"}


async def test_all_background_work_runs_while_the_application_does(application: FastAPI) -> None:
    assert application
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert names >= {"embed-fresh", "embed-queued", "exports", "imports"}
    assert names >= {"embedding-progress", "sweep", "vector-index", "word-frequencies", "word-index"}


async def test_every_route_is_described_and_every_body_has_an_example(application: FastAPI) -> None:
    document = application.openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), f"{method} {path} has no description"
            for content in operation.get("requestBody", {}).get("content", {}).values():
                schema = content["schema"]
                if "$ref" in schema:
                    schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
                binary = schema.get("format") == "binary"
                assert binary or schema.get("examples") or content.get("example"), f"{method} {path} has no example"


async def test_the_examples_of_the_document_are_accepted(client: httpx.AsyncClient, application: FastAPI) -> None:
    document = application.openapi()
    for path, methods in document["paths"].items():
        body = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json")
        if body is None or "imports" in path:
            continue
        schema = body["schema"]
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        for example in schema["examples"]:
            answer = await client.post(path, json=example)
            assert answer.status_code in (200, 201, 202), (path, answer.text)


async def test_every_reference_of_the_document_leads_somewhere(application: FastAPI) -> None:
    document = application.openapi()
    for name in re.findall(r"#/components/schemas/(\w+)", str(document)):
        assert name in document["components"]["schemas"]


async def test_the_pages_need_nothing_from_outside(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    for address in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert address.startswith("/"), address
        assert (await client.get(address)).status_code == 200, address
