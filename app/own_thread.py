"""A thread for what only one thread at a time may use, such as a file open in SQLite."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Closes(Protocol):
    """What is closed when it is no longer used."""

    def close(self) -> None:
        """Closes it."""


C = TypeVar("C", bound=Closes)


class OwnThread:
    """Does one piece of work after the other."""

    def __init__(self, name: str) -> None:
        """`name` is shown for the thread."""
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, work: Callable[[], T]) -> T:
        """What the work returns or raises.

        Whoever is cancelled meanwhile goes on only when the work has ended, so that nothing is closed under its hands.
        """
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled:
            future.exception()  # nobody is there to be told
            raise cancelled
        return future.result()

    @asynccontextmanager
    async def opened(self, open_it: Callable[[], C]) -> AsyncIterator[C]:
        """What is opened in the thread and, whatever happens, closed in it."""
        opened: list[C] = []
        try:
            await self.run(lambda: opened.append(open_it()))
            yield opened[0]
        finally:
            for resource in opened:
                await self.run(resource.close)

    def stop(self) -> None:
        """Ends the thread, which has nothing left to do."""
        self._executor.shutdown()
