"""Routes of memories, on each store."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.api.cursors import encode_cursor

CODE = "def parse_header(line):\n\treturn line.partition(':')  # é 😀\r\n"


def body(**fields: Any) -> dict[str, Any]:
    return {"file_path": "src/headers.py", "new_code": CODE, **fields}


async def store(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/v1/memories", json=body(**fields))
    assert answer.status_code == 201, answer.text
    stored: dict[str, Any] = answer.json()
    return stored


async def test_a_memory_is_stored_verbatim_and_found_at_its_location(client: httpx.AsyncClient) -> None:
    sent = body(
        project="p", old_code="", context="c", session_id="s", agent_id="a", timestamp="2026-01-02T03:04:05+02:00"
    )
    answer = await client.post("/v1/memories", json=sent)
    memory = (await client.get(answer.headers["location"])).json()
    assert memory["timestamp"] == "2026-01-02T01:04:05Z"
    assert {name: memory[name] for name in sent if name != "timestamp"} == {
        name: value for name, value in sent.items() if name != "timestamp"
    }
    assert memory["language"] == "python"
    assert memory["id"] == answer.json()["id"]


async def test_a_write_with_an_id_can_be_repeated(client: httpx.AsyncClient) -> None:
    sent = body(id=str(uuid4()))
    first = await client.post("/v1/memories", json=sent)
    again = await client.post("/v1/memories", json=sent)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["created_at"] == first.json()["created_at"]
    assert (await client.get("/v1/stats")).json()["total_entries"] == 1


async def test_an_id_with_other_content_is_a_conflict_that_names_the_field(client: httpx.AsyncClient) -> None:
    memory = await store(client)
    answer = await client.post("/v1/memories", json=body(id=memory["id"], context="other"))
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert "another context" in answer.json()["detail"]


async def test_a_batch_answers_for_each_memory_in_order(client: httpx.AsyncClient) -> None:
    there = await store(client)
    taken = body(id=there["id"], new_code="other")
    answer = await client.post(
        "/v1/memories/batch",
        json={"memories": [body(), {"file_path": "x"}, taken, body(id=there["id"]), 7, body(embedding=[1.0])]},
    )
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [one["status"] for one in results] == ["created", "rejected", "rejected", "existing", "rejected", "rejected"]
    assert [one["index"] for one in results] == list(range(6))
    assert "new_code" in results[1]["error"]
    assert "384" in results[5]["error"]
    assert (await client.get("/v1/stats")).json()["total_entries"] == 2


async def test_a_memory_twice_in_a_batch_is_stored_once(client: httpx.AsyncClient) -> None:
    one = body(id=str(uuid4()))
    answer = await client.post("/v1/memories/batch", json={"memories": [one, one]})
    assert [result["status"] for result in answer.json()["results"]] == ["created", "existing"]


async def test_waiting_for_the_embedding_answers_when_it_is_there(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/memories?wait=embedding", json=body())
    assert answer.json()["embedding_status"] == "ready"
    found = await client.post("/v1/search/semantic", json={"query": "parse header"})
    assert [hit["memory"]["id"] for hit in found.json()["hits"]] == [answer.json()["id"]]


async def test_the_vector_follows_by_itself(client: httpx.AsyncClient) -> None:
    memory = await store(client)
    async with asyncio.timeout(10):
        while (await client.get(f"/v1/memories/{memory['id']}")).json()["embedding_status"] != "ready":
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("number", [1e300, 1.7e308, 1e-310, 5e-324, 3])
async def test_a_given_vector_is_taken_at_any_length(client: httpx.AsyncClient, number: float) -> None:
    memory = await store(client, embedding=[number] * 384)
    assert memory["embedding_status"] == "ready"


async def test_a_deleted_memory_is_not_found(client: httpx.AsyncClient) -> None:
    memory = await store(client)
    assert (await client.delete(f"/v1/memories/{memory['id']}")).status_code == 204
    for method in ("GET", "DELETE"):
        answer = await client.request(method, f"/v1/memories/{memory['id']}")
        assert answer.status_code == 404
        assert memory["id"] in answer.json()["detail"]


async def test_an_id_in_two_projects_must_be_asked_for_with_its_project(client: httpx.AsyncClient) -> None:
    memory = await store(client, project="a")
    await store(client, project="b", id=memory["id"], new_code="other")
    assert (await client.get(f"/v1/memories/{memory['id']}")).status_code == 409
    found = await client.get(f"/v1/memories/{memory['id']}", params={"project": "b"})
    assert found.json()["new_code"] == "other"


async def test_the_list_is_followed_by_its_cursor(client: httpx.AsyncClient) -> None:
    ids = [(await store(client, session_id="s"))["id"] for _ in range(5)]
    await store(client, session_id="t")
    seen: list[str] = []
    params = {"session_id": "s", "limit": "2"}
    while True:
        page = (await client.get("/v1/memories", params=params)).json()
        seen += [memory["id"] for memory in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == ids[::-1]


WRONG = {
    "no code": (body(new_code=""), "new_code"),
    "no path": ({"new_code": "x"}, "file_path"),
    "long path": (body(file_path="x" * 4097), "4096"),
    "large code": (body(new_code="é" * 524_289), "1048576"),
    "NUL": (body(new_code="a\0b"), "NUL"),
    "unknown field": (body(code="x"), "code"),
    "naive time": (body(timestamp="2026-01-01T00:00:00"), "timestamp"),
    "time before the calendar": (body(timestamp="0001-01-01T00:00:00+14:00"), "timestamp"),
    "long project": (body(project="p" * 201), "200"),
    "bad id": (body(id="x"), "id"),
    "short vector": (body(embedding=[1.0, 2.0]), "384"),
    "zero vector": (body(embedding=[0.0] * 384), "zero"),
    "not a number": (body(embedding=["x"] * 384), "embedding"),
    "a list": ([], "object"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_bad_input_is_named_with_its_limit(client: httpx.AsyncClient, name: str) -> None:
    sent, expected = WRONG[name]
    answer = await client.post("/v1/memories", json=sent)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert expected in problem["detail"]
    assert problem["type"] == "urn:afterimage:problem:invalid-input"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert (await client.get("/v1/stats")).json()["total_entries"] == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"file_path": "x", "new_code": "\\ud800"}',
        b'{"file_path": "\\udfff", "new_code": "x"}',
        b'{"file_path": "x", "new_code": "x", "session_id": "\\ud800"}',
        b'{"file_path":"x","new_code":NaN}',
        b"[" * 5000,
    ],
)
async def test_a_broken_body_is_a_problem_and_not_a_crash(client: httpx.AsyncClient, raw: bytes) -> None:
    answer = await client.post("/v1/memories", content=raw, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


FORGED = [
    encode_cursor(time, project, UUID(int=1))
    for time, project in (
        ("2026-01-01T00:00:00", "p"),
        ("0001-01-01T00:00:00+14:00", "p"),
        ("9999-12-31T23:59:59-14:00", "p"),
        ("2026-01-01T00:00:00Z", "a\0"),
        ("2026-01-01T00:00:00Z", "\ud800"),
        ("2026-01-01T00:00:00Z", ""),
    )
]


async def test_half_a_surrogate_pair_is_refused_alone(client: httpx.AsyncClient) -> None:
    sent = b'{"memories": [{"file_path": "a", "new_code": "x"}, {"file_path": "\\ud800", "new_code": "x"}]}'
    answer = await client.post("/v1/memories/batch", content=sent, headers={"content-type": "application/json"})
    assert [one["status"] for one in answer.json()["results"]] == ["created", "rejected"]
    assert "unicode" in answer.json()["results"][1]["error"]


@pytest.mark.parametrize("name", ["session_id", "file_path", "projects"])
async def test_half_a_surrogate_pair_in_a_filter_is_refused(client: httpx.AsyncClient, name: str) -> None:
    value = b'["\\ud800"]' if name == "projects" else b'"\\ud800"'
    sent = b'{"query": "x", "' + name.encode() + b'": ' + value + b"}"
    answer = await client.post("/v1/search/fts", content=sent, headers={"content-type": "application/json"})
    assert answer.status_code == 422


@pytest.mark.parametrize("cursor", ["x", "e30", "WyJhIiwiYiIsImMiXQ", "é", *FORGED])
async def test_a_foreign_cursor_is_refused(client: httpx.AsyncClient, cursor: str) -> None:
    answer = await client.get("/v1/memories", params={"cursor": cursor})
    assert answer.status_code == 422
    assert "cursor" in answer.json()["detail"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/nothing", 404), ("PUT", "/v1/memories", 405)])
async def test_a_wrong_address_is_a_problem_too(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert path in answer.json()["detail"]


async def test_the_request_id_of_the_client_comes_back(client: httpx.AsyncClient) -> None:
    answer = await client.get("/livez", headers={"X-Request-ID": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    other = await client.get("/livez", headers={"X-Request-ID": "no good\x7f"})
    assert other.headers["x-request-id"] != "no good\x7f"


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_that_a_page_in_a_browser_could_send_unasked_is_refused(
    client: httpx.AsyncClient, media_type: str
) -> None:
    content = b'{"file_path": "a.py", "new_code": "x = 1", "memories": [], "query": "x"}'
    for path in ("/v1/memories", "/v1/memories/batch", "/v1/search/fts"):
        answer = await client.post(path, content=content, headers={"content-type": media_type})
        assert answer.status_code == 415, path
        assert f"must be application/json, got {media_type or 'none'!r}" in answer.json()["detail"]


async def test_half_a_surrogate_pair_is_named_and_costs_a_batch_one_memory(client: httpx.AsyncClient) -> None:
    content = rb'{"memories": [{"file_path": "a.py", "new_code": "\ud800"}, {"file_path": "b.py", "new_code": "y"}]}'
    headers = {"content-type": "application/json"}
    first, second = (await client.post("/v1/memories/batch", content=content, headers=headers)).json()["results"]
    assert first["status"] == "rejected"
    assert first["error"].startswith("new_code: ")
    assert second["status"] == "created"
