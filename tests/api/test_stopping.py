"""What is long at work when the service is told to stop, on each store."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from fastapi import FastAPI

from app.api.deps import Services
from app.main import create_app
from app.settings import Settings
from tests.source_files import entry, write_ai_afterimage

IMPORTS = "/v1/admin/imports"


async def started(client: httpx.AsyncClient, folder: Path, rows: int) -> str:
    """The address of a new import."""
    write_ai_afterimage(folder / "memory.db", (entry(number) for number in range(1, rows + 1)))
    answer = await client.post(IMPORTS, json={"path": "memory.db"})
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


async def test_the_events_of_an_import_end_with_the_service(
    application: FastAPI, client: httpx.AsyncClient, folder: Path
) -> None:
    await application.state.services.imports.stop()
    events = asyncio.create_task(client.get(f"{await started(client, folder, 1)}/events"))
    await asyncio.sleep(0)
    application.state.stopping.set()
    answer = await asyncio.wait_for(events, 10)
    assert answer.status_code == 200
    assert answer.text.count("event: import") == 1
    assert answer.headers["connection"] == "close"


async def test_the_import_in_hand_is_left_to_another_process_at_once(settings: Settings, folder: Path) -> None:
    application = create_app(settings.model_copy(update={"import_lease_seconds": 3600.0}))
    async with (
        application.router.lifespan_context(application),
        httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://localhost") as client,
        asyncio.timeout(60),
    ):
        services: Services = application.state.services
        place = await started(client, folder, 3000)
        while (await client.get(place)).json()["state"] != "running":
            await asyncio.sleep(0)
        application.state.stopping.set()
        claimed = None
        while claimed is None:
            now = datetime.now(UTC)
            spool = services.imports._spool.id
            claimed = await services.store.imports.claim(spool, now, now + timedelta(minutes=1), only=None)
            assert (await client.get(place)).json()["state"] == "running"
            await asyncio.sleep(0.02)
    assert str(claimed.job.id) == place.rpartition("/")[2]
