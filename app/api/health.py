"""Routes that tell whether the service is well, and what it holds."""

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from app.access import KeyScope
from app.api.authentication import authorization_of, is_local
from app.api.deps import Given, Reader, Services, log_projects
from app.api.fields import Project
from app.api.problems import responses
from app.api.schemas import MAX_PROJECTS
from app.api.stopping import ToldToStop
from app.embedding.worker import EmbeddingWorker
from app.errors import UnavailableError
from app.models import Stats

router = APIRouter(tags=["service"])

OK, LOADING, STOPPING = PLAIN = ("ok", "loading", "stopping")

STANDBY = "standby "

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
        "and stops nothing. Without a key for all projects, where keys are asked for, no more than `down` is said of "
        "what is wrong, and of `standbys` no more than how many are well.",
        examples=[{"postgresql": "ok", "embedding": "ok", "standby 10.0.0.2": "ok, 0.1 s behind"}],
    )


@router.get("/livez")
async def livez() -> Alive:
    """Answers while the process is alive; asks nobody else."""
    return Alive()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "A part is down."}})
async def readyz(request: Request, given: Given, stopping: ToldToStop, response: Response) -> Readiness:
    """Whether the service can do its work; 503 names the part that fails, or says that the service is stopping."""
    store, is_trusted = await asyncio.gather(_store(given), _is_trusted(request, given))
    active, target = given.models.active.worker, given.models.target.worker
    checks = {given.store.backend: store, "embedding": _state(active)}
    if target is not active:
        state = _state(target)
        checks["embedding_change"] = f"{OK}: the vectors of {target.model} are being made" if state == OK else state
    for standby in given.store.standbys():
        checks[f"{STANDBY}{standby.name}"] = standby.problem or f"{OK}, {standby.lag_seconds:.1f} s behind"
    if stopping.is_set():
        checks["service"] = STOPPING
    ready = store == OK and active.problem is None and not stopping.is_set()
    if not ready:
        request.app.state.warnings.warn("not ready", checks=checks)
        response.status_code = 503
    return Readiness(ready=ready, checks=checks if is_trusted else _brief(checks))


async def _store(given: Services) -> str:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await given.store.ping()
    except TimeoutError:
        return f"no answer within {PATIENCE_SECONDS:g} s"
    except UnavailableError as error:
        return str(error)
    return OK


async def _is_trusted(request: Request, given: Services) -> bool:
    """True if the caller may know hosts and causes: as for the metrics, with a key for all projects."""
    authorization, local = authorization_of(request.scope), is_local(request.scope)
    caller = await given.keys.caller_soon(authorization, local=local, seconds=PATIENCE_SECONDS)
    return caller is not None and caller.projects is None and caller.has(KeyScope.READ)


def _brief(checks: Mapping[str, str]) -> dict[str, str]:
    """The same without hosts and causes."""
    words = {name: re.split(r"\W", state)[0] for name, state in checks.items()}
    brief = {name: word if word in PLAIN else "down" for name, word in words.items()}
    standbys = [brief.pop(name) for name in checks if name.startswith(STANDBY)]
    if standbys:
        brief["standbys"] = f"{standbys.count(OK)} of {len(standbys)} {OK}"
    return brief


def _state(worker: EmbeddingWorker) -> str:
    return worker.problem or (OK if worker.ready else LOADING)


@router.get("/v1/stats", responses=responses(422))
async def stats(
    given: Given,
    caller: Reader,
    projects: Annotated[list[Project] | None, Query(max_length=MAX_PROJECTS)] = None,
) -> Stats:
    """Exact counts, over some projects or all, and the state of the vectors."""
    log_projects(*(projects or ()))
    return await given.memories.stats(caller.within(projects))
