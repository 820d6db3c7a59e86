"""The connections of the pool."""

import time
from contextlib import suppress
from typing import Any

import asyncpg

from app.store.postgresql.faults import LOST, RESET_SECONDS

PLAN_EACH_TIME = "force_custom_plan"
"""The value of plan_cache_mode that a connection begins with."""

PLAN_SECONDS = 10.0
"""How long plans are kept. One that was made of an empty table reads all of it when it is full, until PostgreSQL has
counted it anew, which may take a minute."""


class PoolConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection whose end never hangs, and that plans a statement each time it runs unless told to keep plans.

    With optional filters the plan for those that are given may be 20 times as fast as one for any. Where there are
    none, as in what stores memories, planning takes a third of the time.
    """

    __slots__ = ("_planned_at", "_plans_kept")

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._plans_kept = False
        self._planned_at = 0.0

    async def keep_plans(self, kept: bool) -> None:
        """Whether to do so from now on; the server is told where that changes, or where those that are kept are old."""
        now = time.monotonic()
        if kept != self._plans_kept:
            mode = "auto; DISCARD PLANS" if kept else PLAN_EACH_TIME
            await self.execute(f"SET plan_cache_mode = {mode}")
        elif kept and now - self._planned_at > PLAN_SECONDS:
            await self.execute("DISCARD PLANS")
        else:
            return
        self._plans_kept, self._planned_at = kept, now

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Says goodbye, or cuts the connection where nobody listens any more."""
        with suppress(*LOST):
            await super().close(timeout=RESET_SECONDS if timeout is None else timeout)
