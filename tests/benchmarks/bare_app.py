"""The floor of the start and of memory: FastAPI with two routes, the model, and PostgreSQL, without a service.

python -m tests.benchmarks.bare_app PORT MODELS [POSTGRES]
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from app.embedding.onnx import OnnxEmbedder
from app.store.embedded import EmbeddedPostgres


def bare_app(models: Path, postgres: Path | None) -> FastAPI:
    """Answers once PostgreSQL has been started, where there is a folder for it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server = EmbeddedPostgres(postgres) if postgres else None
        if server is not None:
            server.start()
        yield
        if server is not None:
            server.stop()

    app = FastAPI(lifespan=lifespan)
    embedder = OnnxEmbedder(models)

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/model")
    def model() -> int:
        embedder.load()
        return len(embedder.embed(["ready"]))

    return app


def main() -> None:
    """Serves until it is told to stop."""
    port, models, *postgres = sys.argv[1:]
    app = bare_app(Path(models), Path(postgres[0]) if postgres else None)
    uvicorn.run(app, port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
