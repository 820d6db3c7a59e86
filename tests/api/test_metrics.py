"""What Prometheus reads."""

import re

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.api.test_access import bearer


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
    assert after[("afterimage_connections_awaited",)] == 0
    assert after[("afterimage_embedding_pending",)] == 0
    assert after["afterimage_imports", "running"] == 0


async def test_a_key_for_some_projects_does_not_see_the_numbers_of_all(client: httpx.AsyncClient) -> None:
    admin = (await client.post("/v1/admin/keys", json={"name": "a", "scopes": ["admin"]})).json()["key"]
    asked = {"name": "b", "scopes": ["read"], "projects": ["p"]}
    bound = (await client.post("/v1/admin/keys", json=asked, headers=bearer(admin))).json()["key"]
    assert (await client.get("/metrics", headers=bearer(bound))).status_code == 403
    assert await samples(client, **bearer(admin))
