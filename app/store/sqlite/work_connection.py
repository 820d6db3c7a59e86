"""A connection to a SQLite file, which does a piece of work as a whole."""

import math
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import aiosqlite

from app.store.sqlite.values import code_hash

STEPS_BETWEEN_LOOKS = 10_000
"""A running statement looks at the clock each so many steps of SQLite's machine, some tenths of a millisecond."""

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
"""Any number of statements, run in the thread of a connection."""


class WorkConnection(aiosqlite.Connection):
    """A connection that does work of any number of statements with one visit to its thread.

    To send it there and to be told of the answer takes as long as several statements.
    """

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        """A write waits so long for that of another process."""
        connector = partial(sqlite3.connect, path, isolation_level=None, timeout=timeout_seconds)
        super().__init__(connector, iter_chunk_size=64)
        self._deadline = math.inf

    async def prepare(self) -> None:
        """Sets what is the same for all connections."""
        self.row_factory = sqlite3.Row
        await self.set_progress_handler(lambda: time.monotonic() > self._deadline, STEPS_BETWEEN_LOOKS)
        for pragma in ("foreign_keys = ON", "synchronous = FULL", "cache_size = -65536", "temp_store = MEMORY"):
            await self.execute(f"PRAGMA {pragma}")
        await self.create_function("code_hash", 1, code_hash, deterministic=True)

    async def run(self, work: Work[T]) -> T:
        """What the work returns or raises; whoever is cancelled meanwhile leaves it to end by itself."""
        result: T = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        return result

    def in_time(self, work: Work[T], seconds: float, connection: sqlite3.Connection) -> T:
        """Does the work, in the connection's thread; a statement that runs when the time is over is ended."""
        self._deadline = time.monotonic() + seconds
        try:
            return work(connection)
        except StopIteration as error:  # which a future cannot hold
            raise RuntimeError("the work ended an iteration that it had not begun") from error
        finally:
            self._deadline = math.inf
