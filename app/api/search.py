"""Routes of searches."""

import time

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter

from app.access import Caller
from app.api.deps import Given, Reader, Services, log_projects
from app.api.direct import DirectRoute
from app.api.json_body import described, read_as
from app.api.problems import responses
from app.api.schemas import SearchIn, SearchOut
from app.search import SearchMode

router = APIRouter(prefix="/v1/search", tags=["search"], responses=responses(413, 415, 422), route_class=DirectRoute)

BODY = described(SearchIn)

ANSWER = TypeAdapter(SearchOut)
"""Makes bytes of it, which its own method would make a text of first."""


@router.post("/fts", response_model=SearchOut, openapi_extra=BODY)
async def search_fts(given: Given, caller: Reader, request: Request) -> Response:
    """Finds memories by words: any of them, with identifiers whole and in parts. Any text is a valid query."""
    return await _search(SearchMode.FTS, request, given, caller)


@router.post("/semantic", response_model=SearchOut, openapi_extra=BODY)
async def search_semantic(given: Given, caller: Reader, request: Request) -> Response:
    """Finds memories by meaning, by the cosine of their vectors with that of the query."""
    return await _search(SearchMode.SEMANTIC, request, given, caller)


@router.post("/hybrid", response_model=SearchOut, openapi_extra=BODY)
async def search_hybrid(given: Given, caller: Reader, request: Request) -> Response:
    """Finds memories by words and by meaning, and weighs both."""
    return await _search(SearchMode.HYBRID, request, given, caller)


async def _search(mode: SearchMode, request: Request, given: Services, caller: Caller) -> Response:
    body = await read_as(SearchIn, request)
    log_projects(*(body.projects or ()))
    started = time.perf_counter()
    settings = given.settings
    hits = await given.searches.search(
        mode,
        body.query,
        caller.limit(body.scope()),
        settings.max_results if body.limit is None else body.limit,
        settings.relevance_threshold if body.threshold is None else body.threshold,
        match_all=body.match == "all",
        explain=body.explain,
    )
    found = SearchOut(mode=mode, took_ms=round((time.perf_counter() - started) * 1000, 2), hits=hits)
    return Response(ANSWER.dump_json(found), media_type="application/json")
