"""Threads that call the model, for some of those who want vectors."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from app.models import Vector

T = TypeVar("T")

Queue = dict[asyncio.Future[Vector], str]
"""Texts that wait, in the order they came, each with the future of its vector."""

BACKGROUND_NICENESS = 10
"""Of threads that work for nobody who waits: requests and the database go before them."""


class Lane:
    """Serves its queues, the first of them first, with so many calls at once, each in a thread of its own."""

    def __init__(self, queues: Iterable[Queue], calls: int, *, background: bool = False) -> None:
        """Threads in the `background` take the processor when nobody else wants it (Linux)."""
        self._queues = list(queues)
        self._calls = calls
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(
            calls, thread_name_prefix="embedding", initializer=_step_back if background else None
        )

    def take(self, limit: int) -> Queue:
        """Texts for a call, from the first queue that holds any; none while as many calls run as may."""
        queue = next(filter(None, self._queues), None)
        if queue is None or len(self._tasks) >= self._calls:
            return {}
        taken = dict(islice(queue.items(), limit))
        for future in taken:
            del queue[future]
        return taken

    def begin(self, call: Coroutine[Any, Any, None], then: Callable[[], None]) -> None:
        """Begins a call, which uses `run`; `then` is told when it has ended."""
        task = asyncio.create_task(call, name="embedding-call")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: then())

    def run(self, function: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        """Runs a function in one of the threads."""
        return asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def stop(self) -> None:
        """Returns when the calls in hand have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)


def deliver(taken: Mapping[asyncio.Future[Vector], str], answer: Any) -> None:
    """Hands the rows of an answer, or the error, to those who still wait."""
    for row, future in enumerate(taken):
        if future.done():
            continue  # whoever waited has given up
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer[row])


def _step_back() -> None:
    if sys.platform == "linux":  # elsewhere a priority is the whole process's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + BACKGROUND_NICENESS)
