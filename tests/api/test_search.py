"""Routes of searches, on each store."""

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from app.api.deps import Services
from app.embedding.embedder import query_text

MODES = ["fts", "semantic", "hybrid"]

MEMORIES = [
    {
        "file_path": "http/headers.py",
        "new_code": "def parse_http_header(line): ...",
        "session_id": "s",
        "project": "web",
    },
    {"file_path": "http/cookies.py", "new_code": "def parse_cookie(header): ...", "project": "web"},
    {"file_path": "shop/cart.py", "new_code": "def total(prices): return sum(prices)", "project": "shop"},
]


@pytest.fixture
async def filled(client: httpx.AsyncClient) -> httpx.AsyncClient:
    for memory in MEMORIES:
        answer = await client.post("/v1/memories?wait=embedding", json=memory)
        assert answer.status_code == 201
    return client


async def hits(client: httpx.AsyncClient, mode: str, **asked: Any) -> list[dict[str, Any]]:
    answer = await client.post(f"/v1/search/{mode}", json=asked)
    assert answer.status_code == 200, answer.text
    assert answer.json()["mode"] == mode
    found: list[dict[str, Any]] = answer.json()["hits"]
    return found


async def settled(client: httpx.AsyncClient) -> None:
    """Waits until everything can be found by meaning."""
    async with asyncio.timeout(20):
        while (await client.get("/v1/stats")).json()["embedding"]["pending"]:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("mode", MODES)
async def test_a_question_in_plain_english_finds_the_best_first(filled: httpx.AsyncClient, mode: str) -> None:
    found = await hits(filled, mode, query="how to parse an http header?")
    assert found[0]["memory"]["file_path"] == "http/headers.py"
    scores = [hit["score"] for hit in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


async def test_of_memories_that_point_away_the_newest_comes_first(
    application: FastAPI, client: httpx.AsyncClient
) -> None:
    services: Services = application.state.services
    towards, _ = await services.models.query_vector(query_text("cookie"), None, at_once=True)
    beside = np.roll(towards, 1) - (np.roll(towards, 1) @ towards) * towards
    for at, vector in enumerate([beside / np.linalg.norm(beside) - 0.1 * towards, -towards]):
        memory = {"file_path": f"{at}.py", "new_code": f"f({at})", "timestamp": f"2026-05-01T12:0{at}:00Z"}
        answer = await client.post(
            "/v1/memories", json={**memory, "embedding": (vector / np.linalg.norm(vector)).tolist()}
        )
        assert answer.status_code == 201
    found = await hits(client, "semantic", query="cookie")
    assert [(hit["memory"]["file_path"], hit["score"], hit["semantic_rank"]) for hit in found] == [
        ("1.py", 0, 2), ("0.py", 0, 1)
    ]  # fmt: skip
    assert -1.01 < found[0]["semantic_score"] < found[1]["semantic_score"] < 0


async def test_each_arm_says_its_score_and_rank(application: FastAPI, filled: httpx.AsyncClient) -> None:
    while await application.state.services.store.memories.refresh_frequencies():  # by which words are scored
        pass
    [words, *_] = await hits(filled, "fts", query="cookie")
    assert (words["fts_rank"], words["semantic_rank"], words["semantic_score"]) == (1, None, None)
    [meaning, *_] = await hits(filled, "semantic", query="cookie")
    assert (meaning["semantic_rank"], meaning["fts_rank"], meaning["fts_score"]) == (1, None, None)
    [both, *_] = await hits(filled, "hybrid", query="cookie")
    assert both["fts_score"] == pytest.approx(words["fts_score"])
    assert both["semantic_score"] == pytest.approx(meaning["semantic_score"])
    assert (both["fts_rank"], both["semantic_rank"]) == (1, 1)


@pytest.mark.parametrize("mode", MODES)
async def test_filters_and_limit_hold(filled: httpx.AsyncClient, mode: str) -> None:
    query = "parse header total"
    assert {hit["memory"]["project"] for hit in await hits(filled, mode, query=query, projects=["shop"])} == {"shop"}
    assert len(await hits(filled, mode, query=query, session_id="s")) == 1
    assert len(await hits(filled, mode, query=query, path_prefix="http/")) == 2
    assert len(await hits(filled, mode, query=query, limit=1)) == 1
    assert await hits(filled, mode, query=query, projects=[]) == []


@pytest.mark.parametrize("mode", MODES)
async def test_a_threshold_leaves_out_weaker_hits(filled: httpx.AsyncClient, mode: str) -> None:
    everything = await hits(filled, mode, query="parse http header")
    between = (everything[0]["score"] + everything[1]["score"]) / 2  # counting words anew moves both a bit
    found = await hits(filled, mode, query="parse http header", threshold=between)
    assert [hit["memory"]["id"] for hit in found] == [everything[0]["memory"]["id"]]


@pytest.mark.parametrize("mode", MODES)
async def test_the_same_code_is_one_hit_that_says_how_often_and_when_last(client: httpx.AsyncClient, mode: str) -> None:
    times = ["2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z", "2026-02-01T00:00:00Z"]
    for time in times:
        await client.post(
            "/v1/memories?wait=embedding",
            json={"file_path": "a.py", "new_code": "def parse_header(): ...", "timestamp": time},
        )
    [hit] = await hits(client, mode, query="parse header", limit=2)
    assert (hit["copies"], hit["last_timestamp"]) == (3, times[1])
    assert hit["memory"]["timestamp"] == times[1]


async def test_an_excerpt_shows_what_matched(client: httpx.AsyncClient) -> None:
    code = "".join(f"line_{number} = 0\n" for number in range(50)) + "cookie = read_cookie()\n" + "pass\n" * 50
    await client.post("/v1/memories", json={"file_path": "a.py", "new_code": code})
    [hit] = await hits(client, "fts", query="reading cookies")
    excerpt = hit["excerpt"]
    assert excerpt["first_line"] == 51
    assert [excerpt["text"][begin:end] for begin, end in excerpt["highlights"]] == ["cookie", "read_cookie"]


@pytest.mark.parametrize("mode", MODES)
async def test_an_explanation_adds_up_to_the_score(filled: httpx.AsyncClient, mode: str) -> None:
    for hit in await hits(filled, mode, query="parse cookie", explain=True):
        told = hit["explanation"]
        assert told["fts_part"] + told["semantic_part"] == pytest.approx(hit["score"])
        assert told["words"] == ["pars", "cooki"]
    assert (await hits(filled, mode, query="parse cookie"))[0]["explanation"] is None


async def test_an_identifier_gives_the_words_more_weight(filled: httpx.AsyncClient) -> None:
    [named, *_] = await hits(filled, "hybrid", query="parse_cookie", explain=True)
    [asked, *_] = await hits(filled, "hybrid", query="parse a cookie", explain=True)
    assert named["explanation"]["fts_weight"] == pytest.approx(0.8)
    assert asked["explanation"]["fts_weight"] == pytest.approx(0.2)


@pytest.mark.parametrize("mode", MODES)
async def test_what_a_query_demands_holds_in_every_mode(filled: httpx.AsyncClient, mode: str) -> None:
    def paths(found: list[dict[str, Any]]) -> set[str]:
        return {hit["memory"]["file_path"] for hit in found}

    assert paths(await hits(filled, mode, query="parse -cookie", path_prefix="http/")) == {"http/headers.py"}
    assert paths(await hits(filled, mode, query='"parse cookie" header')) == {"http/cookies.py"}
    assert paths(await hits(filled, mode, query="header cookie", match="all")) == {"http/cookies.py"}


@pytest.mark.parametrize("mode", MODES)
async def test_a_page_is_full_where_most_memories_are_excluded(client: httpx.AsyncClient, mode: str) -> None:
    both = [{"file_path": "a.py", "new_code": f"def parse_cookie_{number}(): parse(cookie)"} for number in range(300)]
    one = [{"file_path": "b.py", "new_code": f"parse({number}) # and more of it"} for number in range(5)]
    await client.post("/v1/memories/batch", json={"memories": both + one})
    await settled(client)
    for query in ("parse -cookie", 'parse "parse 3"'):
        found = await hits(client, mode, query=query, limit=5)
        assert {hit["memory"]["file_path"] for hit in found} == {"b.py"}
        assert len(found) == (5 if "-" in query else 1)


@pytest.mark.parametrize("mode", MODES)
async def test_a_page_is_full_behind_hundreds_of_copies(client: httpx.AsyncClient, mode: str) -> None:
    copies = [{"file_path": "a.py", "new_code": "parse(cookie)"} for _ in range(400)]
    others = [{"file_path": "a.py", "new_code": f"parse(cookie) {'and more ' * number}"} for number in range(1, 5)]
    await client.post("/v1/memories/batch", json={"memories": copies + others})
    await settled(client)
    found = await hits(client, mode, query="parse cookie", limit=5)
    assert sorted(hit["copies"] for hit in found) == [1, 1, 1, 1, 400]


@pytest.mark.parametrize("mode", MODES)
async def test_copies_are_counted_in_the_scope_and_not_among_the_hits_alone(
    client: httpx.AsyncClient, mode: str
) -> None:
    def copy(number: int, project: str) -> dict[str, Any]:
        time = f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z"
        return {"file_path": "a.py", "new_code": "def parse(): ...", "timestamp": time, "project": project}

    await client.post("/v1/memories?wait=embedding", json=copy(0, "here"))
    for project, count in (("here", 400), ("there", 200)):
        await client.post("/v1/memories/batch", json={"memories": [copy(at, project) for at in range(1, count + 1)]})
    await settled(client)
    [hit] = await hits(client, mode, query="parse", projects=["here"])
    assert (hit["copies"], hit["last_timestamp"]) == (401, "2026-01-01T00:06:40Z")
    [hit] = await hits(client, mode, query="parse")
    assert hit["copies"] == 601
    [hit] = await hits(client, mode, query="parse", until="2026-01-01T00:00:10Z", projects=["here"])
    assert hit["copies"] == 10


STRANGE = [
    "'", '"', '"unclosed', "a & | ! <-> b", "(((", "*", "NEAR(a b)", "col:x", "-", "\0", "\ud7ff", "😀", "é" * 1000,
    "SELECT * FROM memories; --", "%s %d {} \\", "a" * 100_000, " ", "\n\t", "def f(x): return x ** 2", "日本語 テスト",
]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
async def test_any_text_is_a_valid_query(filled: httpx.AsyncClient, mode: str) -> None:
    for query in STRANGE:
        answer = await filled.post(f"/v1/search/{mode}", json={"query": query})
        assert answer.status_code == 200, (query[:50], answer.text)


@pytest.mark.parametrize("asked", [{}, {"query": ""}, {"query": "x", "limit": 101}, {"query": "x", "threshold": 2}])
async def test_a_bad_request_is_refused(client: httpx.AsyncClient, asked: dict[str, Any]) -> None:
    assert (await client.post("/v1/search/fts", json=asked)).status_code == 422
