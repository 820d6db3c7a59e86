"""Writes down what the service does for a search: its statements, and what it gives to the model."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from app.embedding.worker import EmbeddingWorker, Priority
from app.main import open_services
from app.models import Scope, VectorIndexState
from app.search import SearchMode
from app.settings import Settings
from app.store.postgresql.connections import Connections
from app.store.protocol import Store
from tests.benchmarks.bare_searches import Plan, Step

RECORDED: ContextVar[tuple[int, list[Step]]] = ContextVar("recorded")
"""The task that began the search, and its steps; tasks that it starts inherit this, background work has none."""

LEFT_OUT = ("typeinfo_tree", "set_config('jit'", "SET plan_cache_mode", "DISCARD PLANS")
"""In what asyncpg asks the first time that a connection meets a type, and in what tells one whether to keep plans: the
bare side has connections of both kinds."""

LIMIT = 10


async def record(settings: Settings, queries: Mapping[SearchMode, Sequence[str]]) -> dict[SearchMode, dict[str, Plan]]:
    """The plan of each query of each mode, once words are counted and the index of the vectors is built."""
    plans: dict[SearchMode, dict[str, Plan]] = {}
    with patch.object(Connections, "acquire", _acquire), patch.object(EmbeddingWorker, "embed", _embed):
        async with AsyncExitStack() as stack:
            services = await open_services(settings, stack)
            await services.models.active.worker.wait_ready()
            await services.store.memories.refresh_frequencies()
            await _indexed(services.store, settings)
            for mode, asked in queries.items():
                plans[mode] = {}
                for query in asked:
                    steps: list[Step] = []
                    token = RECORDED.set((id(asyncio.current_task()), steps))
                    await services.searches.search(mode, query, Scope(), LIMIT, 0.0)
                    RECORDED.reset(token)
                    plans[mode][query] = Plan(steps)
    return plans


async def _indexed(store: Store, settings: Settings) -> None:
    """Returns when the index of the vectors is built, by this task or by the one in the background."""
    model = settings.embedding_model
    while True:
        await store.embeddings.ensure_index(model)
        stats = await store.memories.stats(None, model)
        few = stats.entries_with_embeddings <= settings.exact_search_limit
        if few or stats.embedding.index.state is VectorIndexState.READY:
            await store.embeddings.ensure_index(model)  # which also notes that it is there
            return
        await asyncio.sleep(0.2)


_lend, _make = Connections.acquire, EmbeddingWorker.embed


@asynccontextmanager
async def _acquire(self: Connections, *, keep_plans: bool | None = False) -> AsyncIterator[Any]:
    async with _lend(self, keep_plans=keep_plans) as connection:
        found = RECORDED.get(None)
        if found is None:
            yield connection
            return
        step = Step(_arm(found[0]))
        found[1].append(step)

        def note(logged: Any) -> None:
            if not any(mark in logged.query for mark in LEFT_OUT):
                step.statements.append((logged.query, tuple(logged.args)))

        with connection.query_logger(note):
            yield connection
            await asyncio.sleep(0)  # asyncpg tells of a query a step later
        step.keep_plans = connection.plans_kept
        if connection.is_in_transaction():
            step.statements.append(("ROLLBACK", ()))  # which the service sends and does not wait for


async def _embed(
    self: EmbeddingWorker, texts: Sequence[str], priority: Priority, *, at_once: bool = False
) -> NDArray[np.float32]:
    if found := RECORDED.get(None):
        found[1].extend(Step(_arm(found[0]), text) for text in texts)
    return await _make(self, texts, priority, at_once=at_once)


def _arm(first: int) -> int:
    """0 in the task that began the search."""
    task = id(asyncio.current_task())
    return 0 if task == first else task
