"""What Prometheus reads."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from app.settings import Settings
from tests.api.test_access import bearer
from tests.api.test_imports import ended
from tests.api.test_limits import limited, parts
from tests.api.test_secrets import MEMORY, source
from tests.memories import new


async def samples(client: httpx.AsyncClient, **headers: str) -> dict[tuple[str, ...], float]:
    """Each figure by its name and the values of its labels."""
    answer = await client.get("/metrics", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_requests_are_counted_by_the_template_of_their_route(client: httpx.AsyncClient) -> None:
    memory = {"file_path": "a.py", "new_code": "x = 1"}
    place = (await client.post("/v1/memories?wait=embedding", json=memory)).headers["location"]
    for _ in range(3):
        await client.get(place)
    await client.get(f"{place[:-1]}x")
    for path in ("/nothing", "/v1/nothing/at/all"):
        await client.get(path)
    found = await samples(client)
    assert found["afterimage_requests_total", "GET", "/v1/memories/{memory_id}", "200"] == 3
    assert found["afterimage_requests_total", "GET", "/v1/memories/{memory_id}", "422"] == 1
    assert found["afterimage_requests_total", "POST", "/v1/memories", "201"] == 1
    assert found["afterimage_requests_total", "unmatched", "unmatched", "404"] == 2
    assert found["afterimage_request_duration_seconds_count", "GET", "/v1/memories/{memory_id}"] == 4
    assert not [name for name in found if re.search(r"[0-9a-f]{8}-", str(name))]


async def test_the_load_on_each_part_is_told(client: httpx.AsyncClient) -> None:
    before = await samples(client)
    await client.post("/v1/memories?wait=embedding", json={"file_path": "a.py", "new_code": "x = 1"})
    after = await samples(client)
    assert after[("afterimage_connections_lent_total",)] > before[("afterimage_connections_lent_total",)]
    assert (
        after[("afterimage_connections_wait_seconds_total",)] >= before[("afterimage_connections_wait_seconds_total",)]
    )
    assert after[("afterimage_connections",)] >= 1
    assert after[("afterimage_connections_idle",)] >= 0
    assert after["afterimage_imports", "running"] == 0
    async with asyncio.timeout(20):  # those who open one at the start count as well
        while (await samples(client))[("afterimage_connections_awaited",)]:
            await asyncio.sleep(0.01)


async def test_the_backlog_is_that_of_the_store_whoever_has_queued_it(settings: Settings) -> None:
    async with limited(settings) as (client, services):
        later = datetime.now(UTC) + timedelta(hours=1)
        await services.progress.stop()  # else it may tell of a look before
        await services.store.memories.add([new(), new()], later)
        await services.progress.look()
        assert (await samples(client))[("afterimage_embedding_pending",)] == 2
        assert (await samples(client))[("afterimage_embedding_texts_waiting",)] == 0


async def test_a_key_for_some_projects_does_not_see_the_numbers_of_all(client: httpx.AsyncClient) -> None:
    admin = (await client.post("/v1/admin/keys", json={"name": "a", "scopes": ["admin"]})).json()["key"]
    asked = {"name": "b", "scopes": ["read"], "projects": ["p"]}
    bound = (await client.post("/v1/admin/keys", json=asked, headers=bearer(admin))).json()["key"]
    assert (await client.get("/metrics", headers=bearer(bound))).status_code == 403
    assert await samples(client, **bearer(admin))


async def test_the_page_of_metrics_names_each_and_its_labels(client: httpx.AsyncClient) -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(afterimage_\w+)` \| (.*?) \|", page, re.MULTILINE)
    await client.get("/livez")
    await client.get("/livez")
    told = {
        (
            f"{family.name}_total" if family.type == "counter" else family.name,
            ", ".join(sorted({f"`{label}`" for sample in family.samples for label in sample.labels if label != "le"})),
        )
        for family in text_string_to_metric_families((await client.get("/metrics")).text)
        if not family.name.endswith("_created")
    }
    documented = {(name, ", ".join(sorted(labels.split(", ")))) for name, labels in rows}
    assert told == {(name, labels) for name, labels in documented if labels != "`standby`"}


async def test_secrets_that_were_taken_out_are_counted_once(client: httpx.AsyncClient, folder: Path) -> None:
    body = {**MEMORY, "id": "01a20e82-cd37-70df-a52c-de4ebe9e91a1"}
    for _ in range(2):
        await client.post("/v1/memories", json=body)
    await client.post("/v1/memories/batch", json={"memories": [MEMORY, body]})
    assert (await samples(client))[("afterimage_redactions_total",)] == 6
    source(folder)
    for dry_run in (True, False, False):
        sent = {"path": "memory.db", "dry_run": dry_run}
        await ended(client, await client.post("/v1/admin/imports", json=sent))
    assert (await samples(client))[("afterimage_redactions_total",)] == 7


async def test_what_is_in_flight_is_told_with_its_limit(settings: Settings) -> None:
    pause = asyncio.Event()
    body = json.dumps({"file_path": "a.py", "new_code": "x"}).encode()
    json_type = {"content-type": "application/json"}
    async with limited(settings, max_writes_in_flight=7) as (client, _):
        slow = asyncio.create_task(client.post("/v1/memories", content=parts(body, pause=pause), headers=json_type))
        while (found := await samples(client))["afterimage_in_flight", "writes"] == 0:
            await asyncio.sleep(0.01)
        assert found["afterimage_in_flight", "writes"] == 1
        assert found["afterimage_in_flight_limit", "writes"] == 7
        pause.set()
        assert (await slow).status_code == 201
        assert (await samples(client))["afterimage_in_flight", "writes"] == 0
