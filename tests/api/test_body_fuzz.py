"""Whatever is sent as a body: an answer below 500, and nothing half stored."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.api.deps import Services
from app.main import create_app
from app.settings import Settings
from tests.conftest import emptied
from tests.effort import effort

BODIES = effort(20, full=10_000)

MEMORY: dict[str, Any] = {
    "file_path": "src/a.py",
    "new_code": "def parse(line): ...",
    "context": "c",
    "session_id": "s",
}
SEARCH: dict[str, Any] = {"query": "parse line", "limit": 5, "projects": ["default"], "explain": True}

BODY_OF: dict[str, dict[str, Any]] = {
    "/v1/memories": MEMORY,
    "/v1/memories?wait=embedding": MEMORY,
    "/v1/memories/batch": {"memories": [MEMORY, MEMORY, {**MEMORY, "project": "other"}]},
    "/v1/search/fts": SEARCH,
    "/v1/search/semantic": SEARCH,
    "/v1/search/hybrid": SEARCH,
    "/v1/admin/imports": {"path": "nowhere.db", "project": "default", "dry_run": True},
}

NAMES = sorted(
    {*MEMORY, *SEARCH, *("project", "id", "embedding", "timestamp", "old_code", "since", "match", "threshold")}
)

TEXTS = st.one_of(
    st.text(max_size=50),
    st.text(st.characters(categories=["Cs", "Cc", "Cn"]), min_size=1, max_size=5),
    st.sampled_from(
        ["", "\0", "\ud800", "\udfff x", "\ufeff", "a\0b", "😀" * 300, "x" * 5000, "-", '"', "%", "\\", "'"]
    ),
    st.sampled_from(["2026-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1e999", "nan"]),
    st.uuids().map(str),
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, -1, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, -0.0, 5e-324, float("nan"), float("inf")]),
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | TEXTS, inner, max_size=4),
    max_leaves=8,
)
VECTORS = st.builds(lambda value, length: [value] * length, NUMBERS, st.sampled_from([0, 1, 383, 384, 385]))
CHANGES = st.dictionaries(st.sampled_from(NAMES), VALUES | VECTORS, min_size=1, max_size=3)


@dataclass(frozen=True)
class Sent:
    """A request's body as it goes over the wire."""

    content: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    chunked: bool = False


@st.composite
def bodies(draw: st.DrawFn, plain: dict[str, Any]) -> Sent:
    """A right body with something wrong in its values, its text, its bytes or its headers."""
    changed = plain
    if draw(st.booleans()):
        changes = draw(CHANGES)
        changed = {**plain, **changes}
        if "memories" in plain:
            changed = draw(
                st.sampled_from([{**plain, **changes}, {"memories": [*plain["memories"], {**MEMORY, **changes}]}])
            )
    text = json.dumps(draw(st.sampled_from([changed, changed, changed, [changed], draw(VALUES)])))
    form = draw(st.sampled_from(["", "", "cut", "twice", "deep", "digits", "long", "space", "garbage"]))
    if form == "cut":
        text = text[: draw(st.integers(0, len(text)))]
    elif form == "twice":
        text = f"{text[:-1]}, {text[1:]}"
    elif form == "deep":
        depth = draw(st.sampled_from([50, 500, 5000, 100_000]))
        text = draw(st.sampled_from(["[", '{"a":', f'{{"{draw(st.sampled_from(NAMES))}":['])) * depth
        text = draw(st.sampled_from([text, f"{'[' * depth}{']' * depth}"]))
    elif form == "digits":
        text = text.replace("5", "9" * draw(st.sampled_from([20, 400, 5000])))
    elif form == "long":
        text = text.replace("parse", "parse " * 60_000)
    elif form == "space":
        text = f"\n\t  {text} \r\n"
    elif form == "garbage":
        text += draw(st.text(max_size=5))
    encoding = draw(
        st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32-be", "latin-1"])
    )
    content = text.encode(encoding, "surrogatepass" if encoding != "latin-1" else "replace")
    if draw(st.integers(0, 9)) == 0:
        content = draw(st.binary(max_size=200))
    headers = {
        "content-type": draw(st.sampled_from(["application/json"] * 5 + ["text/plain", "application/xml", "é;", ""]))
    }
    if draw(st.integers(0, 9)) == 0:
        content, headers["content-encoding"] = gzip.compress(content), "gzip"
    return Sent(content, headers, chunked=draw(st.booleans()))


async def in_parts(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), 1000):
        yield content[at : at + 1000]


def stored_by(answer: httpx.Response) -> int:
    """How many memories an answer says that it has stored now."""
    if answer.status_code == 200 and "results" in answer.json():
        return [one["status"] for one in answer.json()["results"]].count("created")
    return int(answer.status_code == 201)


async def send(client: httpx.AsyncClient, services: Services, path: str, sent: Sent) -> None:
    """Sends a body and looks at the answer and at what was stored."""
    before = (await services.memories.stats(None)).total_entries
    headers = [(name.encode(), value.encode("latin-1")) for name, value in sent.headers.items()]
    content = in_parts(sent.content) if sent.chunked else sent.content
    answer = await client.post(path, content=content, headers=headers)
    assert answer.status_code in (200, 201, 413, 415, 422), answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await services.memories.stats(None)).total_entries == before + stored_by(answer)


@pytest.mark.parametrize("path", BODY_OF)
@pytest.mark.parametrize("backend", ["postgresql", "sqlite"])
def test_no_body_makes_a_server_error_or_is_stored_in_part(
    backend: str, path: str, tmp_path: Path, postgres_url: Callable[[int], str]
) -> None:
    with asyncio.Runner() as runner:
        where: dict[str, object] = {
            "sqlite_path": tmp_path / "store.db",
            "spool_folder": tmp_path / "spool",
            "import_folder": tmp_path,
        }
        if backend == "postgresql":
            where["database_url"] = runner.run(emptied(postgres_url(18)))
        app = create_app(Settings.model_validate({"backend": backend, "embedding_model": "hashing", **where}))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())

        @settings(
            max_examples=BODIES, deadline=None, database=None, derandomize=True, suppress_health_check=[*HealthCheck]
        )
        @given(bodies(BODY_OF[path]))
        def try_one(sent: Sent) -> None:
            runner.run(send(client, app.state.services, path, sent))

        try:
            try_one()
        finally:
            runner.run(lifespan.__aexit__(None, None, None))
