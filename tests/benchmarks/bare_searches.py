"""The floor of the searches: the statements that the service sends, again, by bare asyncpg, and the bare model call."""

import asyncio
import pickle
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import uvloop
from pgvector.asyncpg import register_vector

from app.embedding.onnx import OnnxEmbedder
from app.store.postgresql.pool_connection import PLAN_EACH_TIME, PLAN_ONCE
from tests.benchmarks.bare_writers import SERVER_SETTINGS, keep_session
from tests.benchmarks.tally import Tally


@dataclass(slots=True)
class Step:
    """A model call (of `text`), or statements on one connection, in the order they came; `arm` is where they ran.

    `keep_plans`: of connections whose statements PostgreSQL need not plan each time.
    """

    arm: int
    text: str | None = None
    keep_plans: bool = False
    statements: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one search does: its arms at the same time, and then the steps of arm 0."""

    steps: list[Step]


@dataclass(frozen=True, slots=True)
class SearchSide:
    """Plans, one after the other, each as the last has ended, and none twice."""

    url: str
    models: Path
    plans: list[Plan]
    seconds: float


async def run(side: SearchSide) -> Tally:
    """Replays plans until the time is over, or they are."""
    embedder = OnnxEmbedder(side.models)
    embedder.load()
    pools = {
        kept: await asyncpg.create_pool(
            side.url,
            min_size=2,
            max_size=4,
            init=register_vector,
            reset=keep_session,
            server_settings=SERVER_SETTINGS | {"plan_cache_mode": PLAN_ONCE if kept else PLAN_EACH_TIME},
        )
        for kept in (False, True)
    }

    async def replay(steps: list[Step], *, alone: bool) -> None:
        for step in steps:
            if step.text is not None:
                if alone:
                    embedder.embed([step.text])
                else:
                    await asyncio.to_thread(embedder.embed, [step.text])
                continue
            async with pools[step.keep_plans].acquire() as connection:
                for query, values in step.statements:
                    await (connection.fetch(query, *values) if values else connection.execute(query))

    tally = Tally(side.seconds)
    for plan in side.plans:
        if tally.over:
            break
        started = time.perf_counter()
        arms = {step.arm for step in plan.steps if step.arm}
        await asyncio.gather(*(replay([step for step in plan.steps if step.arm == arm], alone=False) for arm in arms))
        await replay([step for step in plan.steps if step.arm == 0], alone=not arms)
        tally.note(started)
    for pool in pools.values():
        await pool.close()
    return tally


if __name__ == "__main__":
    uvloop.run(run(pickle.load(sys.stdin.buffer))).tell()
