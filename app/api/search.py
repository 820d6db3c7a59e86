"""Routes of searches."""

import time

from fastapi import APIRouter

from app.access import Caller
from app.api.deps import Given, Reader, Services
from app.api.problems import responses
from app.api.schemas import SearchIn, SearchOut
from app.memories import SearchMode

router = APIRouter(prefix="/v1/search", tags=["search"], responses=responses(413, 422))


@router.post("/fts")
async def search_fts(body: SearchIn, given: Given, caller: Reader) -> SearchOut:
    """Finds memories by words: any of them, with identifiers whole and in parts. Any text is a valid query."""
    return await _search(SearchMode.FTS, body, given, caller)


@router.post("/semantic")
async def search_semantic(body: SearchIn, given: Given, caller: Reader) -> SearchOut:
    """Finds memories by meaning, by the cosine of their vectors with that of the query."""
    return await _search(SearchMode.SEMANTIC, body, given, caller)


@router.post("/hybrid")
async def search_hybrid(body: SearchIn, given: Given, caller: Reader) -> SearchOut:
    """Finds memories by words and by meaning, and weighs both."""
    return await _search(SearchMode.HYBRID, body, given, caller)


async def _search(mode: SearchMode, body: SearchIn, given: Services, caller: Caller) -> SearchOut:
    started = time.perf_counter()
    settings = given.settings
    hits = await given.memories.search(
        mode,
        body.query,
        caller.limit(body.scope()),
        settings.max_results if body.limit is None else body.limit,
        settings.relevance_threshold if body.threshold is None else body.threshold,
        match_all=body.match == "all",
        explain=body.explain,
    )
    return SearchOut(mode=mode, took_ms=round((time.perf_counter() - started) * 1000, 2), hits=hits)
