"""Sends reads that may be a little stale to standbys, and to the primary what no standby can answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import asyncpg
import structlog

from app.errors import SlowStatementError, UnavailableError
from app.store.postgresql.connections import Connections
from app.store.postgresql.faults import LOST
from app.store.postgresql.server import one_line
from app.store.postgresql.standby import PRIMARY, Positions, Probe, Standby
from app.store.protocol import StandbyState

PAUSE_SECONDS = 1.0
"""Between two checks of a server."""

MAX_LAG_SECONDS = 10.0

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Reads:
    """Standbys in turn. They are checked in the background; a read costs no more than the choice."""

    def __init__(
        self,
        primary: Connections,
        standbys: Sequence[Standby] = (),
        max_lag_seconds: float = MAX_LAG_SECONDS,
        *,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        """Standbys that are more than `max_lag_seconds` behind are passed over."""
        self._primary = primary
        self._standbys = standbys
        self._max_lag_seconds = max_lag_seconds
        self._pause_seconds = pause_seconds
        self._positions = Positions()
        self._turn = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Begins to look after the standbys; one that is down delays nothing."""
        if self._standbys:
            self._tasks = [asyncio.create_task(self._follow_primary(), name="primary-position")]
            self._tasks += [asyncio.create_task(self._watch(standby), name="standby") for standby in self._standbys]

    async def close(self) -> None:
        """Waits for reads under way and disconnects."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for standby in self._standbys:
            await standby.connections.close()
            standby.cut()

    async def run(self, work: Callable[[Any], Awaitable[T]], *, keep_plans: bool | None = False) -> T:
        """Runs statements that only read, on a standby if one is usable; on the primary too if that one fails.

        See `Connections.acquire` for the plans.

        Raises:
            UnavailableError: neither answers.
        """
        standby = self._next()
        if standby is not None:
            try:
                async with standby.connections.acquire(keep_plans=keep_plans) as connection:
                    found = await work(connection)
            except SlowStatementError:
                raise
            except UnavailableError as error:
                standby.pass_over(str(error))
            except asyncpg.PostgresError as error:  # such as a conflict with what it replays
                log.info("a read is repeated on the primary", standby=standby.state.name, reason=one_line(error))
            else:
                standby.reads += 1
                return found
        async with self._primary.acquire(keep_plans=keep_plans) as connection:
            return await work(connection)

    @property
    def may_lag(self) -> bool:
        """Whether what was read may be of a standby."""
        return bool(self._standbys)

    def states(self) -> list[StandbyState]:
        """Each standby, as it was found last."""
        return [standby.state for standby in self._standbys]

    def _next(self) -> Standby | None:
        usable = [standby for standby in self._standbys if standby.usable]
        if not usable:
            return None
        self._turn += 1
        return usable[self._turn % len(usable)]

    async def _follow_primary(self) -> None:
        """Notes where the log of the primary stands; while the primary is down it does not move."""
        probe = Probe(self._primary.parameters)
        try:
            while True:
                try:
                    row = await probe.ask(PRIMARY)
                    now = asyncio.get_running_loop().time()
                    self._positions.note(now, row["position"], row["system_identifier"])
                except (*LOST, asyncpg.PostgresError) as error:
                    log.debug("the primary does not tell its position", reason=one_line(error))
                await asyncio.sleep(self._pause_seconds)
        finally:
            probe.end()

    async def _watch(self, standby: Standby) -> None:
        while True:
            if self._positions.system is not None:
                await standby.check(self._positions, self._max_lag_seconds, self._primary.schema)
            await asyncio.sleep(self._pause_seconds)
