"""Threads that call the model, for some of those who want vectors."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from app.embedding.embedder import Embedder
from app.errors import UnavailableError
from app.models import Vector

T = TypeVar("T")

Queue = dict[asyncio.Future[Vector], str]
"""Texts that wait, in the order they came, each with the future of its vector."""

Call = Future[NDArray[np.float32]]

BACKGROUND_NICENESS = 10
"""Of threads that work for nobody who waits: requests and the database go before them."""


class Lane:
    """Serves its queues, the first of them first, with so many calls at once, each in a thread of its own."""

    def __init__(
        self, embedder: Embedder, queues: Iterable[Queue], calls: int = 1, *, background: bool = False
    ) -> None:
        """Threads in the `background` take the processor when nobody else wants it (Linux)."""
        self._embedder = embedder
        self._queues = list(queues)
        self._calls = calls
        self._in_hand = 0
        self._threads = ThreadPoolExecutor(
            calls, thread_name_prefix="embedding", initializer=_step_back if background else None
        )

    def serve(self) -> None:
        """Begins calls with texts that wait, each with those of one queue, until as many run as may."""
        while self._in_hand < self._calls and (queue := next(filter(None, self._queues), None)):
            taken = dict(islice(queue.items(), self._embedder.texts_per_call))
            call = self._threads.submit(self._embedder.embed, list(taken.values()))
            self._in_hand += 1
            for future in taken:
                del queue[future]
            call.add_done_callback(partial(self._tell, taken, asyncio.get_running_loop()))

    def run(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Runs a function in one of the threads."""
        return asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def stop(self) -> None:
        """Returns when the calls in hand have ended and those who waited for them know."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    def _tell(self, taken: Queue, loop: asyncio.AbstractEventLoop, call: Call) -> None:
        """In a thread."""
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(self._end, taken, call)

    def _end(self, taken: Queue, call: Call) -> None:
        """Hands the vectors, or the error, to those who still wait, and begins the next call."""
        self._in_hand -= 1
        error = UnavailableError("the service is stopping") if call.cancelled() else call.exception()
        for row, future in enumerate(taken):
            if future.done():
                continue  # whoever waited has given up
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(call.result()[row])
        if not call.cancelled():
            self.serve()


def _step_back() -> None:
    if sys.platform == "linux":  # elsewhere a priority is the whole process's
        with suppress(OSError):  # where that is forbidden they work all the same
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + BACKGROUND_NICENESS)
