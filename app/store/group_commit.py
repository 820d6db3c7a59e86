"""Single writes that come at the same time share statements: one round trip, one commit, one flush of the log."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from app.errors import UnavailableError
from app.models import MemoryKey, NewMemory

PATIENCE_SECONDS = 0.1
"""What a group may take before the next begins beside it."""

MAX_ROWS = 64
MAX_CHARACTERS = 1024 * 1024
"""Of code in a group of several, so that a small memory never waits for many large ones."""

Add: TypeAlias = Callable[[Sequence[NewMemory], Sequence[datetime]], Awaitable[set[MemoryKey]]]
"""With the time from which on each is to be embedded."""


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A memory that is to be stored, and who waits for it."""

    row: NewMemory
    embed_after: datetime
    stored: asyncio.Future[set[MemoryKey]]

    @property
    def characters(self) -> int:
        """Of its code."""
        return len(self.row.memory.new_code) + len(self.row.memory.old_code or "")


class GroupCommit:
    """Stores memories that arrive one by one in groups; nobody waits for a group to fill.

    While a group is being stored, what comes gathers for the next: the larger a group, the less each memory costs.
    While that is stored, the one before is answered; for neither side to rest the two must be of a size, so a group
    takes half of what waits, those of the one before counted in. One that takes longer than usual, as on a connection
    that has fallen silent, keeps no other waiting.

    Each answer comes when its memory is on the disk. A memory that cannot be stored takes no other with it.
    """

    def __init__(self, add: Add, at_most: int, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """`add` stores rows of different keys in one transaction; `at_most` are under way."""
        self._add = add
        self._at_most = at_most
        self._patience_seconds = patience_seconds
        self._waiting: list[Waiting] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = 0
        self._in_time = False
        self._last_rows = 0

    async def add(self, row: NewMemory, embed_after: datetime) -> set[MemoryKey]:
        """As MemoryStore.add, for one memory."""
        one = Waiting(row, embed_after, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._begin()
        return await one.stored

    def _begin(self) -> None:
        """Stores what waits, unless a group is being stored that is still in time."""
        if self._waiting and not self._in_time and self._running < self._at_most:
            self._in_time = True
            self._running += 1
            task = asyncio.create_task(self._store_waiting(), name="group-commit")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _store_waiting(self) -> None:
        late = False

        def give_way() -> None:
            nonlocal late
            late = True
            self._in_time = False
            self._begin()

        try:
            while not late and (group := self._next_group()):
                timer = asyncio.get_running_loop().call_later(self._patience_seconds, give_way)
                try:
                    await self._store(group)
                finally:
                    timer.cancel()
        finally:
            self._running -= 1
            if not late:
                self._in_time = False
            self._begin()

    def _next_group(self) -> list[Waiting]:
        """The longest waiting, of different keys; those whose caller has given up are left out."""
        group: dict[MemoryKey, Waiting] = {}
        left: list[Waiting] = []
        room = MAX_CHARACTERS
        most = min(-(-(len(self._waiting) + self._last_rows) // 2), MAX_ROWS)
        for one in self._waiting:
            if one.stored.done():
                continue
            fits = not group or (len(group) < most and one.characters <= room)
            if fits and one.row.memory.key not in group:
                group[one.row.memory.key] = one
                room -= one.characters
            else:
                left.append(one)
        self._waiting, self._last_rows = left, len(group)
        return list(group.values())

    async def _store(self, group: Sequence[Waiting]) -> None:
        try:
            stored = await self._add([one.row for one in group], [one.embed_after for one in group])
        except UnavailableError as error:
            _answer(group, error)
        except Exception as error:  # noqa: BLE001 - handed to the caller
            if len(group) == 1:
                _answer(group, error)
            else:
                for one in group:
                    await self._store([one])
        else:
            for one in group:
                if not one.stored.done():
                    one.stored.set_result(stored & {one.row.memory.key})


def _answer(group: Sequence[Waiting], error: Exception) -> None:
    for one in group:
        if not one.stored.done():
            one.stored.set_exception(error)
