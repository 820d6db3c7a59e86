"""Single writes that come at the same time share statements: one round trip, one commit, one flush of the log."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from app.errors import UnavailableError
from app.models import MemoryKey, NewMemory

MAX_ROWS = 64
MAX_CHARACTERS = 1024 * 1024
"""Of code in a group of several, so that a small memory never waits for many large ones."""

Add: TypeAlias = Callable[[Sequence[NewMemory], datetime], Awaitable[set[MemoryKey]]]


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

    Each answer comes when its memory is on the disk. A memory that cannot be stored takes no other with it.
    """

    def __init__(self, add: Add, at_once: int) -> None:
        """`add` stores rows of different keys in one transaction, as MemoryStore.add does.

        While `at_once` groups are being stored, what comes gathers for the next.
        """
        self._add = add
        self._at_once = at_once
        self._waiting: list[Waiting] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def add(self, row: NewMemory, embed_after: datetime) -> set[MemoryKey]:
        """As MemoryStore.add, for one memory."""
        one = Waiting(row, embed_after, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        # A task that has found nothing more to do may still be among them.
        if sum(not task.done() for task in self._tasks) < self._at_once:
            task = asyncio.create_task(self._store_waiting(), name="group-commit")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await one.stored

    async def _store_waiting(self) -> None:
        while group := self._next_group():
            await self._store(group)

    def _next_group(self) -> list[Waiting]:
        """The longest waiting, of different keys; those whose caller has given up are left out."""
        group: dict[MemoryKey, Waiting] = {}
        left: list[Waiting] = []
        room = MAX_CHARACTERS
        for one in self._waiting:
            if one.stored.done():
                continue
            fits = not group or (len(group) < MAX_ROWS and one.characters <= room)
            if fits and one.row.memory.key not in group:
                group[one.row.memory.key] = one
                room -= one.characters
            else:
                left.append(one)
        self._waiting = left
        return list(group.values())

    async def _store(self, group: Sequence[Waiting]) -> None:
        try:
            stored = await self._add([one.row for one in group], min(one.embed_after for one in group))
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
