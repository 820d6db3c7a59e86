"""JSON that would keep everybody waiting is refused before it is read; what is wrong is said in a few words."""

import gc
import gzip
import json
import time
import tracemalloc
from uuid import uuid4

import httpx
import pytest

from app.api.json_body import MAX_FAULTS, MAX_VALUES
from app.api.problems import SHOWN_ERRORS

JSON = {"content-type": "application/json"}
MEMORY = {"file_path": "a.py", "new_code": "x = 1"}
LARGE_BYTES = 8 * 1024**2
SECONDS = 10.0
"""Each took minutes, or a part of the machine's memory, when all of it was read and repeated in the answer."""

LARGE = {
    "many fields": b"{" + b",".join(b'"%d":0' % number for number in range(LARGE_BYTES // 12)) + b"}",
    "many values": b'{"embedding":[' + b"0," * (LARGE_BYTES // 2) + b"0]}",
    "many empty objects": b'{"memories":[' + b"{}," * (LARGE_BYTES // 3) + b"{}]}",
    "deep lists": b"[" * LARGE_BYTES,
    "deep objects": b'{"a":' * (LARGE_BYTES // 5),
    "nested lists": b'{"x":[' + (b"[" * 400 + b"]" * 400 + b",") * (LARGE_BYTES // 801) + b"0]}",
    "many digits": b'{"limit":' + b"9" * LARGE_BYTES + b"}",
    "a long name": b'{"' + b"x" * LARGE_BYTES + b'": 1}',
    "a long text": b'{"new_code": "' + b"x" * LARGE_BYTES + b'"}',
}


@pytest.mark.parametrize("name", LARGE)
async def test_a_large_body_is_refused_soon_and_shortly(client: httpx.AsyncClient, name: str) -> None:
    for path in ("/v1/memories", "/v1/memories/batch", "/v1/search/fts"):
        began = time.perf_counter()
        answer = await client.post(path, content=LARGE[name], headers=JSON)
        assert answer.status_code == 422, answer.text[:1000]
        assert len(answer.content) < 10_000
        assert time.perf_counter() - began < SECONDS


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"file_path":', "the body is no JSON: Expecting value"),
        (b'{"new_code": "\xff"}', "the body is no JSON: must be UTF-8"),
        (json.dumps(MEMORY).encode("utf-16"), "must be UTF-8"),
        (b"[" * 5000, "is nested too deeply"),
        (b"9" * 5000, "a number of too many digits"),
        (b"[" + b"0," * MAX_VALUES + b"0]", f"at most {MAX_VALUES} values"),
        (json.dumps({**MEMORY, "name": 1}).encode(), "name: Extra inputs are not permitted, got 1"),
        (
            json.dumps({**MEMORY, **{f"f{number}": 1 for number in range(MAX_FAULTS)}}).encode(),
            f"f{SHOWN_ERRORS - 1}: Extra inputs are not permitted, got 1",
        ),
        (
            json.dumps({**MEMORY, **{f"f{number}": 1 for number in range(MAX_FAULTS + 1)}}).encode(),
            f"has {MAX_FAULTS + 1} faults, more than {MAX_FAULTS}; see its fields in /docs",
        ),
        (
            json.dumps({**MEMORY, "embedding": ["x"] * 9}).encode(),
            'embedding[0]: Input should be a valid number, got "x"',
        ),
        (json.dumps({**MEMORY, "timestamp": 1700000000}).encode(), "timestamp: must be a time with its zone"),
        (json.dumps({**MEMORY, "timestamp": "1700000000"}).encode(), "timestamp: must be a time with its zone"),
    ],
)
async def test_what_is_wrong_with_a_body_is_said(client: httpx.AsyncClient, raw: bytes, said: str) -> None:
    answer = await client.post("/v1/memories", content=raw, headers=JSON)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert len(answer.json()["errors"]) <= SHOWN_ERRORS


async def test_a_refused_body_is_let_go(client: httpx.AsyncClient) -> None:
    """Without the garbage collector, which the service lets rest."""
    refused = (b"[" * LARGE_BYTES, b'{"a":"' + b"x" * LARGE_BYTES + b'"}', b'{"file_path":' + b" " * LARGE_BYTES)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for raw in refused:
            for _ in range(3):
                assert (await client.post("/v1/memories", content=raw, headers=JSON)).status_code == 422
            assert tracemalloc.get_traced_memory()[0] < LARGE_BYTES, raw[:10]
        there = {**MEMORY, "id": str(uuid4())}
        assert (await client.post("/v1/memories", json=there)).status_code == 201
        other = json.dumps({**there, "context": "x" * (LARGE_BYTES // 8)}).encode()
        for _ in range(20):
            assert (await client.post("/v1/memories", content=other, headers=JSON)).status_code == 409
        assert tracemalloc.get_traced_memory()[0] < LARGE_BYTES
    finally:
        tracemalloc.stop()
        gc.enable()


async def test_a_memory_of_a_batch_with_very_many_faults_is_rejected_alone_and_soon(client: httpx.AsyncClient) -> None:
    faulty = {**MEMORY, **dict.fromkeys(map(str, range(LARGE_BYTES // 12)), 0)}
    began = time.perf_counter()
    answer = await client.post("/v1/memories/batch", json={"memories": [MEMORY, faulty]})
    assert [one["status"] for one in answer.json()["results"]] == ["created", "rejected"]
    assert answer.json()["results"][1]["error"].startswith(f"has {LARGE_BYTES // 12} faults, more than {MAX_FAULTS};")
    assert time.perf_counter() - began < SECONDS


async def test_what_is_no_object_in_a_batch_is_rejected_alone_and_called_so(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/memories/batch", json={"memories": ["x", MEMORY]})
    assert [one["error"] for one in answer.json()["results"]] == ['Input should be an object, got "x"', None]


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip", "GZIP", ""])
async def test_a_compressed_body_is_refused_whatever_it_holds(client: httpx.AsyncClient, encoding: str) -> None:
    plain = json.dumps(MEMORY).encode()
    for path, media_type in (("memories", "application/json"), ("admin/imports", "application/vnd.sqlite3")):
        for body in (plain, gzip.compress(plain)):
            headers = {"content-type": media_type, "content-encoding": encoding}
            answer = await client.post(f"/v1/{path}", content=body, headers=headers)
            assert (answer.status_code, "content-encoding" in answer.json()["detail"]) == (415, True)
    assert (await client.get("/v1/stats")).json()["total_entries"] == 0
    twice = [*JSON.items(), ("content-encoding", "identity"), ("content-encoding", "gzip")]
    assert (await client.post("/v1/memories", content=gzip.compress(plain), headers=twice)).status_code == 415
    identity = await client.post("/v1/memories", content=plain, headers={**JSON, "content-encoding": "identity"})
    assert identity.status_code == 201


async def test_commas_in_code_are_no_values(client: httpx.AsyncClient) -> None:
    memory = {"file_path": "a.py", "new_code": '[,{"\\' * 120_000}
    answer = await client.post("/v1/memories/batch", json={"memories": [memory] * 3})
    assert [one["status"] for one in answer.json()["results"]] == ["created"] * 3


async def test_a_byte_order_mark_does_no_harm(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/memories", content=json.dumps(MEMORY).encode("utf-8-sig"), headers=JSON)
    assert answer.status_code == 201


async def test_a_wrong_method_is_told_all_that_are_allowed(client: httpx.AsyncClient) -> None:
    answer = await client.request("PUT", "/v1/memories")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")


async def test_each_id_of_an_answer_is_linked_to_the_routes_that_take_it(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    operations = {one["operationId"]: path for path, methods in document["paths"].items() for one in methods.values()}
    linked = {
        operations[name]
        for methods in document["paths"].values()
        for operation in methods.values()
        for response in operation["responses"].values()
        for name in response.get("links", {})
    }
    assert linked == {path for path in document["paths"] if "{" in path}
