"""Background work that looks again and again whether there is something to do."""

import asyncio
from abc import ABC, abstractmethod


class Upkeep(ABC):
    """One loop; any number of processes may run it on the same store."""

    name: str
    """Of the task."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """Ends the loop; a look in hand is broken off, and what it had begun in the store is undone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @abstractmethod
    async def look(self) -> float:
        """Does what there is to do, and answers in how many seconds to look again; must not fail."""

    async def _run(self) -> None:
        while True:
            pause_seconds = await self.look()
            await asyncio.sleep(pause_seconds)
