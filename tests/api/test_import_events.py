"""Those who follow an import: how many at once, and until when."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI

from app import import_watch
from app.access import KeyScope
from app.api.deps import Services
from app.import_watch import LOOK_SECONDS
from app.imports import Imports
from app.main import create_app
from app.models import Import
from app.settings import Settings
from app.traffic import Kind
from tests.api.test_stopping import started


@asynccontextmanager
async def followed(
    application: FastAPI, client: httpx.AsyncClient, place: str
) -> AsyncIterator[asyncio.Task[httpx.Response]]:
    """One who follows an import, with the headers of the client."""
    before = application.state.traffic.in_flight[Kind.EVENT_STREAMS]
    stream = asyncio.create_task(client.get(f"{place}/events"))
    async with asyncio.timeout(20):
        while application.state.traffic.in_flight[Kind.EVENT_STREAMS] == before:
            await asyncio.sleep(0.01)
        yield stream
        stream.cancel()
        await asyncio.wait([stream])


@pytest.fixture
async def queued(application: FastAPI, client: httpx.AsyncClient, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an import that does not begin."""
    monkeypatch.setattr(import_watch, "KEY_SECONDS", LOOK_SECONDS)
    await application.state.services.imports.stop()
    return await started(client, folder, 1)


async def test_more_streams_than_the_limit_are_sent_away(settings: Settings, folder: Path) -> None:
    application = create_app(settings.model_copy(update={"max_event_streams": 1}))
    async with (
        application.router.lifespan_context(application),
        httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://localhost") as client,
    ):
        await application.state.services.imports.stop()
        place = await started(client, folder, 1)
        async with followed(application, client, place):
            refused = await client.get(f"{place}/events")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert "1 event streams are in flight, which is the limit" in refused.json()["detail"]
            assert (await client.get(place)).status_code == 200
        application.state.stopping.set()
        assert (await client.get(f"{place}/events")).status_code == 200


@pytest.mark.parametrize("way", ["revoked", "expired"])
async def test_a_stream_ends_soon_after_its_key(
    application: FastAPI, client: httpx.AsyncClient, queued: str, way: str
) -> None:
    services: Services = application.state.services
    expires_at = datetime.now(UTC) + timedelta(seconds=4) if way == "expired" else None
    key, text = await services.keys.create("test", [KeyScope.ADMIN], None, expires_at)
    client.headers["Authorization"] = f"Bearer {text}"
    async with followed(application, client, queued) as stream:
        if way == "revoked":
            await services.keys.revoke(key.id)
        answer = await stream
    assert (answer.status_code, answer.text.count("event: import")) == (200, 1)
    assert (await client.get(queued)).status_code == 401


async def test_a_stream_without_a_key_ends_soon_after_the_first_key_is_made(
    application: FastAPI, client: httpx.AsyncClient, queued: str
) -> None:
    async with followed(application, client, queued) as stream:
        await application.state.services.keys.create("test", [KeyScope.READ], None, None)
        assert (await stream).text.count("event: import") == 1


async def test_those_who_follow_one_import_share_the_looks(
    application: FastAPI, client: httpx.AsyncClient, queued: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    get = Imports.get

    async def counted(self: Imports, import_id: UUID, projects: Sequence[str] | None) -> Import:
        nonlocal looks
        looks += 1
        return await get(self, import_id, projects)

    async with AsyncExitStack() as streams:
        for _ in range(8):
            await streams.enter_async_context(followed(application, client, queued))
        monkeypatch.setattr(Imports, "get", counted)
        began = time.monotonic()
        while looks < 4:
            await asyncio.sleep(0.01)
    assert time.monotonic() - began > 3 * LOOK_SECONDS
