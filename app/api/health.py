"""Routes that tell whether the service is well, and what it holds."""

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from app.api.deps import Given, Reader, log_projects
from app.api.fields import Project
from app.api.problems import responses
from app.api.schemas import MAX_PROJECTS
from app.api.stopping import ToldToStop
from app.embedding.worker import EmbeddingWorker
from app.errors import UnavailableError
from app.models import Stats

router = APIRouter(tags=["service"])

OK = "ok"

PATIENCE_SECONDS = 3.0
"""How long the store may take for a sign of life."""


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Each part that requests depend on."""

    ready: bool
    checks: dict[str, str] = Field(
        description="By name: `ok`, `loading`, `stopping`, or what is wrong. Only semantic and hybrid searches need "
        "the model, and all does without a standby. `embedding_change` is there while the model is being changed, "
        "and stops nothing.",
        examples=[{"postgresql": "ok", "embedding": "ok", "standby 10.0.0.2": "ok, 0.1 s behind"}],
    )


@router.get("/livez")
async def livez() -> Alive:
    """Answers while the process is alive; asks nobody else."""
    return Alive()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "A part is down."}})
async def readyz(given: Given, stopping: ToldToStop, response: Response) -> Readiness:
    """Whether the service can do its work; 503 names the part that fails, or says that the service is stopping."""
    checks = {given.store.backend: OK, "embedding": OK}
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await given.store.ping()
    except TimeoutError:
        checks[given.store.backend] = f"no answer within {PATIENCE_SECONDS:g} s"
    except UnavailableError as error:
        checks[given.store.backend] = str(error)
    active, target = given.models.active.worker, given.models.target.worker
    checks["embedding"] = _state(active)
    if target is not active:
        state = _state(target)
        checks["embedding_change"] = f"{OK}: the vectors of {target.model} are being made" if state == OK else state
    for standby in given.store.standbys():
        checks[f"standby {standby.name}"] = standby.problem or f"{OK}, {standby.lag_seconds:.1f} s behind"
    if stopping.is_set():
        checks["service"] = "stopping"
    ready = checks[given.store.backend] == OK and active.problem is None and not stopping.is_set()
    if not ready:
        response.status_code = 503
    return Readiness(ready=ready, checks=checks)


def _state(worker: EmbeddingWorker) -> str:
    return worker.problem or (OK if worker.ready else "loading")


@router.get("/v1/stats", responses=responses(422))
async def stats(
    given: Given,
    caller: Reader,
    projects: Annotated[list[Project] | None, Query(max_length=MAX_PROJECTS)] = None,
) -> Stats:
    """Exact counts, over some projects or all, and the state of the vectors."""
    log_projects(*(projects or ()))
    return await given.memories.stats(caller.within(projects))
