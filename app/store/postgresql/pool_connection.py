"""The connections of the pool."""

import time
from contextlib import suppress
from typing import Any

import asyncpg

from app.store.postgresql.faults import LOST, RESET_SECONDS

PLAN_EACH_TIME = "force_custom_plan"
"""The plan_cache_mode that a connection begins with."""

PLAN_ONCE = "force_generic_plan"
"""The plan_cache_mode in which plans are kept. PostgreSQL's own choice goes by costs, where planning hardly counts."""

PLAN_SECONDS = 10.0
"""How long plans are kept. One that was made of an empty table reads all of it when it is full, until PostgreSQL has
counted it anew, which may take a minute."""


class PoolConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection whose end never hangs, and that plans a statement each time it runs unless told to keep plans.

    With optional filters the plan for those that are given may be 20 times as fast as one for any. Where there are
    none, as in what stores memories and what looks hits up, planning takes a third or more of the time. A transaction
    may ask to be planned for itself.
    """

    __slots__ = ("_planned_at", "_plans_kept")

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._plans_kept = False
        self._planned_at = 0.0

    @property
    def plans_kept(self) -> bool:
        """Whether it is told to keep plans."""
        return self._plans_kept

    async def keep_plans(self, kept: bool) -> None:
        """Whether to do so from now on; the server is told where that changes, or where those that are kept are old."""
        now = time.monotonic()
        old = kept and now - self._planned_at > PLAN_SECONDS
        commands = []
        if kept != self._plans_kept:
            commands.append(f"SET plan_cache_mode = {PLAN_ONCE if kept else PLAN_EACH_TIME}")
        if old:
            commands.append("DISCARD PLANS")
        if commands:
            await self.execute("; ".join(commands))
            self._plans_kept = kept
        if old:
            self._planned_at = now

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Says goodbye, or cuts the connection where nobody listens any more."""
        with suppress(*LOST):
            await super().close(timeout=RESET_SECONDS if timeout is None else timeout)
