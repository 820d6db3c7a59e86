"""Searches on a standby, writes on the primary; and a standby that fails, lags, or is none."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from app.doctor import examine
from app.main import create_app
from app.models import MemoryKey, Scope
from app.settings import Settings
from tests.api.test_metrics import samples
from tests.conftest import execute
from tests.effort import effort
from tests.servers import kill, socket_folder
from tests.standbys import Pair, running_pair

KILLS = effort(2, full=20)

SEARCHERS = 8

log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with running_pair(tmp_path_factory.mktemp("pair")) as pair:
        yield pair


@asynccontextmanager
async def serving(folder: Path, url: str, hosts: list[str], **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A service with standbys, and a client of it."""
    where = {"database_url": url, "pg_read_hosts": hosts, "embedding_model": "hashing", "spool_folder": folder}
    app: FastAPI = create_app(Settings.model_validate(where | more))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client,
    ):
        yield client


@pytest.fixture
async def client(pair: Pair, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Of a service whose standby is in use."""
    async with serving(tmp_path, pair.primary, [pair.read_host], pg_max_lag_seconds=1.5) as client:
        await eventually(lambda: is_used(client, pair))
        yield client


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.02)


async def standing(client: httpx.AsyncClient, pair: Pair) -> str:
    answer = await client.get("/readyz")
    return str(answer.json()["checks"][f"standby {pair.read_host}"])


async def is_used(client: httpx.AsyncClient, pair: Pair) -> bool:
    return (await standing(client, pair)).startswith("ok, 0.")


async def stored(client: httpx.AsyncClient) -> str:
    """A word that one memory holds, which has just been stored."""
    word = f"w{uuid4().hex}"
    answer = await client.post("/v1/memories", json={"file_path": f"{word}.py", "new_code": f"{word} = 1"})
    assert answer.status_code == 201, answer.text
    return word


async def found(client: httpx.AsyncClient, word: str) -> bool:
    answer = await client.post("/v1/search/fts", json={"query": word})
    assert answer.status_code == 200, answer.text
    return bool(answer.json()["hits"])


async def listed(client: httpx.AsyncClient, word: str) -> bool:
    answer = await client.get("/v1/memories", params={"file_path": f"{word}.py"})
    assert answer.status_code == 200, answer.text
    return bool(answer.json()["items"])


async def test_searches_and_lists_read_the_standby_and_all_else_the_primary(pair: Pair, tmp_path: Path) -> None:
    async with serving(tmp_path, pair.primary, [pair.read_host]) as client:  # which may be far behind
        await eventually(lambda: is_used(client, pair))
        await execute(pair.standby, "SELECT pg_wal_replay_pause()")
        memory = {"id": str(uuid4()), "file_path": "a.py", "new_code": "only_on_the_primary = 1"}
        assert (await client.post("/v1/memories", json=memory)).status_code == 201
        assert not await found(client, "only_on_the_primary")
        answer = await client.get("/v1/memories", params={"file_path": "a.py"})
        assert answer.json()["items"] == []
        assert (await client.get(f"/v1/memories/{memory['id']}")).json()["new_code"] == memory["new_code"]
        assert (await client.post("/v1/memories", json=memory)).status_code == 200
        assert (await client.post("/v1/memories", json=memory | {"new_code": "x"})).status_code == 409
        assert (await client.get("/v1/stats")).json()["total_entries"] == 1
        store = client._transport.app.state.services.store  # type: ignore[attr-defined]
        [one] = await store.memories.distinct(Scope(), {MemoryKey("default", UUID(memory["id"])): 1.0}, 1)
        assert one.memory.new_code == memory["new_code"]  # though another standby had found it
        await execute(pair.standby, "SELECT pg_wal_replay_resume()")
        await eventually(lambda: found(client, "only_on_the_primary"))
        assert (await client.delete(f"/v1/memories/{memory['id']}")).status_code == 204


async def test_a_standby_that_is_too_far_behind_is_passed_over_until_it_has_caught_up(
    client: httpx.AsyncClient, pair: Pair
) -> None:
    await execute(pair.standby, "SELECT pg_wal_replay_pause()")
    word = await stored(client)
    await eventually(lambda: found(client, word))  # on the primary, as soon as the limit is reached
    assert await listed(client, word)
    assert "behind, more than 1.5 s (AFTERIMAGE_PG_MAX_LAG_SECONDS)" in await standing(client, pair)
    figures = await samples(client)
    assert figures["afterimage_standby_used", pair.read_host] == 0
    assert figures["afterimage_standby_lag_seconds", pair.read_host] > 1.5
    await execute(pair.standby, "SELECT pg_wal_replay_resume()")
    await eventually(lambda: is_used(client, pair))
    before = (await samples(client))["afterimage_standby_reads_total", pair.read_host]
    assert await found(client, word)
    assert (await samples(client))["afterimage_standby_reads_total", pair.read_host] > before


async def test_a_standby_that_is_killed_again_and_again_fails_no_request(client: httpx.AsyncClient, pair: Pair) -> None:
    word = await stored(client)
    await eventually(lambda: found(client, word))
    working = True
    counts = dict.fromkeys(("searches", "writes"), 0)

    async def search() -> None:
        while working:
            assert await found(client, word)
            assert await listed(client, word)
            counts["searches"] += 1

    async def write() -> None:
        while working:
            await stored(client)
            counts["writes"] += 1

    async with asyncio.TaskGroup() as tasks:
        for work in [search] * SEARCHERS + [write] * 2:
            tasks.create_task(work())
        for _ in range(KILLS):
            kill(pair.standby_server)
            before = dict(counts)
            await eventually(lambda: is_not_used(client, pair))
            await eventually(lambda: asyncio.to_thread(pair.standby_server.revive))
            await eventually(lambda: is_used(client, pair))
            assert all(counts[kind] > before[kind] for kind in counts)
        working = False
    log.info(f"{KILLS} kills, {counts['searches']} searches, {counts['writes']} writes, none failed")


async def is_not_used(client: httpx.AsyncClient, pair: Pair) -> bool:
    return not (await standing(client, pair)).startswith("ok")


async def test_a_read_that_a_standby_gives_up_for_its_replay_is_answered_by_the_primary(
    client: httpx.AsyncClient, pair: Pair
) -> None:
    word = await stored(client)
    await eventually(lambda: found(client, word))
    watcher = await asyncpg.connect(pair.standby)
    cancelled = "SELECT sum(confl_lock + confl_snapshot + confl_bufferpin) FROM pg_stat_database_conflicts"
    await watcher.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
    await watcher.execute("SELECT pg_reload_conf()")
    before = await watcher.fetchval(cancelled)
    async with asyncio.TaskGroup() as tasks:

        async def conflict() -> None:
            while await watcher.fetchval(cancelled) == before:
                await execute(pair.primary, "BEGIN; LOCK memories, embeddings IN ACCESS EXCLUSIVE MODE; COMMIT")

        conflicts = tasks.create_task(conflict())

        async def search() -> None:
            while not conflicts.done():
                assert await found(client, word)

        for _ in range(SEARCHERS):
            tasks.create_task(search())
    await watcher.execute("ALTER SYSTEM RESET max_standby_streaming_delay")
    await watcher.execute("SELECT pg_reload_conf()")
    await watcher.close()


async def test_the_doctor_looks_at_the_standbys(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERIMAGE_DATABASE_URL", pair.primary)
    monkeypatch.setenv("AFTERIMAGE_EMBEDDING_MODEL", "hashing")
    for hosts, verdict, text in (
        (pair.read_host, "ok", r" \d+ bytes behind"),
        (
            f"{pair.read_host},/nowhere",
            "wrong",
            "the standby /nowhere: no connection .*: mend: start it, or check AFTER",
        ),
        (socket_folder(pair.primary), "wrong", "is no standby: it takes writes of its own: mend: take it out of AFTER"),
    ):
        monkeypatch.setenv("AFTERIMAGE_PG_READ_HOSTS", hosts)
        [check] = [check async for check in examine() if check.name == "standbys"]
        assert (check.verdict, bool(re.search(text, check.text))) == (verdict, True), check.text


async def test_what_is_no_standby_of_the_primary_is_never_read(
    pair: Pair, tmp_path: Path, postgres_url: Callable[[int], str]
) -> None:
    hosts = {
        "/nowhere": "does not answer",
        socket_folder(pair.primary): "is no standby: it takes writes of its own",
        socket_folder(postgres_url(18)): "is no copy of the primary",
    }
    async with serving(tmp_path, pair.primary, list(hosts)) as client:
        word = await stored(client)

        async def all_are_known() -> bool:
            checks = (await client.get("/readyz")).json()["checks"]
            return all(hosts[host] in checks[f"standby {host}"] for host in hosts)

        await eventually(all_are_known)
        assert await found(client, word)
        assert (await client.get("/readyz")).status_code == 200


async def test_a_service_that_names_both_servers_follows_a_failover(pair: Pair, tmp_path: Path) -> None:
    """The last here, for afterwards the standby is the primary."""
    hosts = f"host={socket_folder(pair.primary)},{pair.read_host}&port=5432,5432"
    both = f"postgresql://afterimage@/afterimage?{hosts}&target_session_attrs=primary"
    async with serving(tmp_path, both, [pair.read_host]) as client:
        word = await stored(client)
        await eventually(lambda: is_used(client, pair))
        await eventually(lambda: found(client, word))
        kill(pair.primary_server)
        await eventually(lambda: refused(client))  # what is left of a killed server may still take a write
        await execute(pair.standby, "SELECT pg_promote()")
        body = {"file_path": "a.py", "new_code": "stored_after_the_failover = 1"}
        await eventually(lambda: answered(client, body))
        assert await found(client, "stored_after_the_failover")
        assert await found(client, word)
        await eventually(lambda: stands(client, pair, "is no standby: it takes writes of its own"))


async def stands(client: httpx.AsyncClient, pair: Pair, how: str) -> bool:
    return how in await standing(client, pair)


async def refused(client: httpx.AsyncClient) -> bool:
    answer = await client.post("/v1/memories", json={"file_path": "a.py", "new_code": "x"})
    return (answer.status_code, answer.headers.get("retry-after")) == (503, "1")


async def answered(client: httpx.AsyncClient, body: dict[str, str]) -> bool:
    answer = await client.post("/v1/memories", json=body)
    assert answer.status_code in (201, 503), answer.text
    return answer.status_code == 201
