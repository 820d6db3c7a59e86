"""A change of the embedding model as a person makes it: other settings and a restart, while everything goes on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from app.main import create_app
from app.settings import Settings

COUNT = 200

OLD = "hashing"
NEW = "hashing-100"


@asynccontextmanager
async def service(settings: Settings, model: str) -> AsyncIterator[httpx.AsyncClient]:
    made = create_app(settings.model_copy(update={"embedding_model": model}))
    async with (
        made.router.lifespan_context(made),
        httpx.AsyncClient(transport=httpx.ASGITransport(made), base_url="http://localhost") as client,
    ):
        yield client


async def embedding(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/v1/stats")).json()["embedding"]
    return found


async def best(client: httpx.AsyncClient, query: str, mode: str = "semantic") -> str:
    answer = await client.post(f"/v1/search/{mode}", json={"query": query, "limit": 1})
    assert answer.status_code == 200, answer.text
    code: str = answer.json()["hits"][0]["memory"]["new_code"]
    return code


async def fill(client: httpx.AsyncClient) -> None:
    memories = [{"file_path": "a.py", "new_code": f"value_{number}"} for number in range(COUNT)]
    assert (await client.post("/v1/memories/batch", json={"memories": memories})).status_code == 200
    async with asyncio.timeout(30):
        while (await embedding(client))["pending"]:
            await asyncio.sleep(0.05)


async def test_searches_are_right_all_through_a_change_and_end_with_the_new_model(settings: Settings) -> None:
    async with service(settings, OLD) as client:
        await fill(client)
        assert (await embedding(client))["dimensions"] == 384
    async with service(settings, NEW) as client:
        seen = [await embedding(client)]
        async with asyncio.timeout(30):
            while seen[-1]["change"] is not None:
                for mode in ("semantic", "hybrid"):
                    assert await best(client, f"value_{len(seen) % COUNT}", mode) == f"value_{len(seen) % COUNT}"
                seen.append(await embedding(client))
        assert await best(client, "value_7") == "value_7"
    assert (seen[0]["model"], seen[0]["change"]["model"]) == (OLD, NEW)
    assert (seen[-1]["model"], seen[-1]["dimensions"], seen[-1]["pending"]) == (NEW, 100, 0)
    async with service(settings, NEW) as client:
        assert (await embedding(client))["change"] is None
        assert (await client.get("/readyz")).json()["checks"].keys() == {settings.backend, "embedding"}
