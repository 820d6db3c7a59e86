"""A bad network between the service and PostgreSQL: nothing wrong, nothing lost, nothing that hangs or stays behind."""

import asyncio
import logging
import random
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx

from app.main import create_app
from app.settings import Settings
from tests.effort import effort
from tests.faulty_proxy import FaultyProxy
from tests.servers import socket_folder

FAULT_SECONDS = effort(3, full=120)

WORKERS = 16

ACQUIRE_SECONDS = 2
STATEMENT_SECONDS = 1
REQUEST_SECONDS = 8
LONGEST_SECONDS = REQUEST_SECONDS + 6
"""The limit of a request, and before it the look whether a key is needed: a connection, a statement, a reset."""

RECOVERY_SECONDS = 20

LETTERS = str.maketrans("0123456789", "ghijklmnop")
"""One word, also to a search that takes names apart."""

log = logging.getLogger(__name__)


class Load:
    """Workers that store a memory, read it and search for it; only right answers and 503 will do."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.working = True
        self.stored: dict[str, str] = {}
        self.answered = 0
        self.refused = 0
        self.longest = 0.0
        self.last_refusal = 0.0

    async def work(self) -> None:
        while self.working:
            await self.round()

    async def round(self) -> None:
        word = uuid4().hex.translate(LETTERS)
        memory = {"id": str(uuid4()), "file_path": f"{word}.py", "new_code": f"{word} = 1"}
        while await self.ask("POST", "/v1/memories", memory, 200, 201) is None:
            await asyncio.sleep(0.05)
        self.stored[memory["id"]] = word
        there = await self.ask("GET", f"/v1/memories/{memory['id']}", None, 200)
        assert there is None or there["new_code"] == memory["new_code"]
        found = await self.ask("POST", "/v1/search/fts", {"query": word}, 200)
        assert found is None or [hit["memory"]["id"] for hit in found["hits"]] == [memory["id"]]

    async def ask(self, method: str, path: str, body: Any, *right: int) -> Any:
        """The answer; None if it is 503."""
        began = time.monotonic()
        answer = await self.client.request(method, path, json=body)
        self.longest = max(self.longest, time.monotonic() - began)
        if answer.status_code in right:
            self.answered += 1
            return answer.json()
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"] == "1"
        self.refused += 1
        self.last_refusal = time.monotonic()
        return None


async def test_connections_that_are_cut_stalled_and_slowed_lose_nothing_and_leave_nothing(
    database: str, tmp_path: Path
) -> None:
    chance = random.Random(11)
    name = database.partition("?")[0].rpartition("/")[2]
    async with FaultyProxy(f"{socket_folder(database)}/.s.PGSQL.5432", chance) as proxy:
        settings = {
            # asyncpg leaves an exception to the event loop when it is cut while it asks for TLS.
            "database_url": f"postgresql://afterimage@127.0.0.1:{proxy.port}/{name}?sslmode=disable",
            "embedding_model": "hashing",
            "spool_folder": tmp_path,
            "acquire_timeout_seconds": ACQUIRE_SECONDS,
            "statement_timeout_seconds": STATEMENT_SECONDS,
            "request_timeout_seconds": REQUEST_SECONDS,
        }
        app = create_app(Settings.model_validate(settings))
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=None) as client,
        ):
            load = Load(client)
            async with asyncio.TaskGroup() as tasks:
                for _ in range(WORKERS):
                    tasks.create_task(load.work())
                end = time.monotonic() + FAULT_SECONDS
                while time.monotonic() < end:
                    await asyncio.sleep(chance.uniform(0, 0.4))
                    await proxy.disturb()
                proxy.heal()
                healed = time.monotonic()
                while time.monotonic() - max(healed, load.last_refusal) < 2.5:
                    await asyncio.sleep(0.05)
                load.working = False
            recovery = max(0.0, load.last_refusal - healed)
            log.info(
                f"{proxy.faults} faults in {FAULT_SECONDS} s, {load.answered} answered, {load.refused} times 503, "
                f"longest {load.longest:.1f} s, recovered after {recovery:.1f} s",
            )
            assert recovery < RECOVERY_SECONDS
            assert load.refused > 0
            assert load.longest < LONGEST_SECONDS
            assert await everything(client) == load.stored

            proxy.bury()
            pool = app.state.services.store
            watcher = await asyncpg.connect(database)
            async with asyncio.timeout(RECOVERY_SECONDS):
                while (there := await backends(watcher)) != pool.load().connections or there != pool.load().idle:
                    await asyncio.sleep(0.05)
            await watcher.close()


async def everything(client: httpx.AsyncClient) -> dict[str, str]:
    """All memories, by their ids; a memory that comes twice fails."""
    found: dict[str, str] = {}
    cursor = None
    while True:
        page = await client.get("/v1/memories", params={"limit": 100} | ({"cursor": cursor} if cursor else {}))
        for memory in page.json()["items"]:
            assert memory["id"] not in found
            found[memory["id"]] = memory["file_path"].removesuffix(".py")
        cursor = page.json()["next_cursor"]
        if cursor is None:
            return found


async def backends(watcher: asyncpg.Connection) -> int:
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1"
    return int(await watcher.fetchval(count, "afterimage"))
