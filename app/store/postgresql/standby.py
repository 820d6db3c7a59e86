"""A standby: whether reads may go there, and how far it is behind the primary."""

import asyncio
from collections import deque
from typing import Any

import asyncpg
import structlog

from app.store.postgresql.connections import Connections
from app.store.postgresql.faults import LOST
from app.store.postgresql.server import one_line
from app.store.protocol import StandbyState

CHECK_SECONDS = 2.0
"""How long a server may take to say where it stands."""

SAMPLES = 3600
"""Positions that are remembered, of the last hour or more."""

NAMED = {"application_name": "afterimage check"}

PRIMARY = """
SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint AS position, system_identifier
FROM pg_control_system()
"""

STANDBY = """
SELECT
  pg_is_in_recovery() AS recovering,
  (pg_last_wal_replay_lsn() - '0/0')::bigint AS position,
  extract(epoch FROM now() - pg_last_xact_replay_timestamp())::float8 AS seconds_since_last,
  system_identifier
FROM pg_control_system()
"""

NEVER = float("inf")

NOT_ASKED = "not asked yet"

log = structlog.get_logger(__name__)


class Probe:
    """One connection beside the pools, so that asking how a server is never waits for those who use it."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._parameters = parameters
        self._connection: Any = None

    async def ask(self, query: str) -> Any:
        """The only row of a query.

        Raises:
            TimeoutError: no answer within `CHECK_SECONDS`.
            asyncpg.PostgresError, OSError: as the driver has them.
        """
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                if self._connection is None:
                    self._connection = await asyncpg.connect(**self._parameters, server_settings=NAMED)
                return await self._connection.fetchrow(query)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Cuts the connection; the next question makes another."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


class Positions:
    """Where the log of the primary stood and when, by the clock of this process alone."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES)
        self.system: int | None = None

    def note(self, at: float, position: int, system: int) -> None:
        """The primary has come at least so far by now."""
        self.system = system
        if self._samples and position < self._samples[-1][1]:
            self._samples.clear()  # another server has become the primary
        if not self._samples or position > self._samples[-1][1]:
            self._samples.append((at, position))

    def seconds_behind(self, now: float, position: int | None, seconds_since_last: float | None) -> float:
        """How long ago the primary passed a position; 0 if it has not, as far as is known.

        Before the first sample only the standby can tell, by the age of the last transaction that it has replayed.
        """
        if position is None:
            return NEVER
        if not self._samples or self._samples[-1][1] <= position:
            return 0.0
        for at, passed in self._samples:
            if passed > position:
                first = at == self._samples[0][0]
                told = NEVER if seconds_since_last is None else seconds_since_last
                return max(now - at, told) if first else now - at
        return 0.0


def why_unusable(row: Any, system: int | None) -> str | None:
    """What is wrong with a server that has answered `STANDBY`, lag apart; `system` is the primary's."""
    if row["system_identifier"] != system:
        return "is no copy of the primary: it was made from another server"
    if not row["recovering"]:
        return "is no standby: it takes writes of its own"
    if row["position"] is None:
        return "has replayed nothing yet"
    return None


class Standby:
    """A standby with its pool, which is open while the server answers."""

    def __init__(self, name: str, parameters: dict[str, Any], connections: Connections) -> None:
        """`name` is how the settings name it."""
        self._name = name
        self._probe = Probe(parameters)
        self._open = False
        self._lag_seconds: float | None = None
        self._problem: str | None = NOT_ASKED
        self.connections = connections
        self.reads = 0

    @property
    def usable(self) -> bool:
        """True if reads may go there."""
        return self._problem is None

    @property
    def state(self) -> StandbyState:
        """As it is told to administrators."""
        return StandbyState(self._name, self._lag_seconds, self._problem, self.reads)

    async def check(self, positions: Positions, max_lag_seconds: float, schema: str) -> None:
        """Asks where it stands, and decides whether it is used from now on; `schema` is that of the vector types."""
        try:
            problem = await self._look(positions, max_lag_seconds)
            if problem is None and not self._open:
                await self.connections.open_pool(schema)
                self._open = True
        except (*LOST, asyncpg.PostgresError, ValueError) as error:  # the last: it has no vector types yet
            self._lag_seconds = None
            problem = f"does not answer: {one_line(error) or type(error).__name__}"
            self.cut()
        if problem is None and not self.usable:
            log.info("a standby is used", standby=self._name, lag_seconds=self._lag_seconds)
            self._problem = None
        elif problem is not None:
            self.pass_over(problem)

    def pass_over(self, problem: str) -> None:
        """No more reads go there, until a check finds it well."""
        if self.usable or self._problem == NOT_ASKED:
            log.warning("a standby is passed over", standby=self._name, reason=problem)
        self._problem = problem

    def cut(self) -> None:
        """Ends what runs there, and the connections."""
        self._probe.end()
        self.connections.cut()
        self._open = False

    async def _look(self, positions: Positions, max_lag_seconds: float) -> str | None:
        row = await self._probe.ask(STANDBY)
        now = asyncio.get_running_loop().time()
        lag = positions.seconds_behind(now, row["position"], row["seconds_since_last"])
        self._lag_seconds = None if lag == NEVER else round(lag, 3)
        if (problem := why_unusable(row, positions.system)) is not None:
            return problem
        if lag == NEVER:
            return "is behind, and has replayed nothing since its start that would tell how far"
        if lag > max_lag_seconds:
            return f"is {lag:.1f} s behind, more than {max_lag_seconds:g} s (AFTERIMAGE_PG_MAX_LAG_SECONDS)"
        return None
