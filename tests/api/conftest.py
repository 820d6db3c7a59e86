"""An application with its services, on each store, and a client that speaks HTTP to it in this process."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings
from tests.conftest import emptied


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The import folder of the application."""
    made = tmp_path / "imports"
    made.mkdir()
    return made


@pytest.fixture(params=["postgresql", "sqlite"])
async def settings(
    request: pytest.FixtureRequest, tmp_path: Path, folder: Path, postgres_url: Callable[[int], str]
) -> Settings:
    """Settings for an empty store of each kind, with the embedder that needs no model."""
    where: dict[str, object] = {"sqlite_path": tmp_path / "store.db"}
    if request.param == "postgresql":
        where = {"database_url": await emptied(postgres_url(18))}
    return Settings.model_validate(
        {
            "backend": request.param,
            "embedding_model": "hashing",
            "import_folder": folder,
            "spool_folder": tmp_path / "spool",
            "max_upload_bytes": 1024 * 1024,
            **where,
        }
    )


@pytest.fixture
async def application(settings: Settings) -> AsyncIterator[FastAPI]:
    """The application while it runs."""
    made = create_app(settings)
    async with made.router.lifespan_context(made):
        yield made


@pytest.fixture
async def client(application: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Errors that the application does not expect come out as exceptions here."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://localhost") as made:
        yield made
