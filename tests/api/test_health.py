"""Health, the OpenAPI document and its pages."""

import asyncio
import re

import httpx
from fastapi import FastAPI


async def test_readiness_names_each_part(client: httpx.AsyncClient, application: FastAPI) -> None:
    async with asyncio.timeout(10):
        while (answer := await client.get("/readyz")).json()["checks"]["embedding"] != "ok":
            await asyncio.sleep(0.01)
    backend = application.state.services.store.backend
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "checks": {backend: "ok", "embedding": "ok"}})


async def test_life_is_told_without_the_database(client: httpx.AsyncClient, application: FastAPI) -> None:
    application.state.services = None
    assert (await client.get("/livez")).json() == {"status": "ok"}


async def test_all_background_work_runs_while_the_application_does(application: FastAPI) -> None:
    assert application
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert names >= {"embedding", "embed-fresh", "embed-queued", "exports", "imports"}
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
