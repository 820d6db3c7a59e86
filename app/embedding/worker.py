"""One thread owns the model and serves whoever is most urgent."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from itertools import islice
from math import ceil
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from app.embedding.embedder import Embedder
from app.errors import UnavailableError
from app.models import Vector

T = TypeVar("T")


class Priority(IntEnum):
    """Who is served first: people who search, then new memories, then old ones."""

    QUERY = 0
    WRITE = 1
    BACKFILL = 2


class EmbeddingWorker:
    """Shares one embedder between all callers.

    Texts of one priority share calls, in the order they came; a call never mixes priorities. A query waits for the call
    in hand and for earlier queries, for nothing else. A model that did not load is tried again at the first use after
    `retry_seconds`.
    """

    def __init__(
        self, embedder: Embedder, *, limit_texts: int = 1024, limit_cached: int = 1024, retry_seconds: float = 30.0
    ) -> None:
        self._embedder = embedder
        self._limit_texts = limit_texts
        self._limit_cached = limit_cached
        self._retry_seconds = retry_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedding")
        self._serving: asyncio.Task[None] | None = None
        self._ready = False
        self._stopped = False
        self._problem: str | None = None
        self._retry_at = 0.0
        self._load_ended = asyncio.Event()
        self._wanted = asyncio.Event()
        self._waiting: dict[Priority, dict[asyncio.Future[Vector], str]] = {priority: {} for priority in Priority}
        self._cache: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    @property
    def model(self) -> str:
        """The identity to store with each vector."""
        return self._embedder.model

    @property
    def dimensions(self) -> int | None:
        """Length of a vector; None until loaded, where it is not known beforehand."""
        return self._embedder.dimensions

    @property
    def ready(self) -> bool:
        """True once the model is loaded."""
        return self._ready

    @property
    def problem(self) -> str | None:
        """Why the model did not load the last time."""
        return self._problem

    @property
    def waiting(self) -> int:
        """Texts that wait for the model."""
        return sum(len(queue) for queue in self._waiting.values())

    async def start(self) -> None:
        """Begins to load the model and returns at once."""
        self._serving = asyncio.create_task(self._serve(), name="embedding")
        self._wanted.set()

    async def stop(self) -> None:
        """Refuses all who wait; returns when the model's call in hand, if any, has ended."""
        self._stopped = True
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait([self._serving])
        self._refuse_waiting("the service is stopping")
        self._load_ended.set()
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    async def wait_ready(self) -> None:
        """Returns when the model is loaded.

        Raises:
            UnavailableError: it did not load, or the worker has stopped.
        """
        while not self._ready:
            self._check_usable()
            self._load_ended.clear()
            self._wanted.set()
            await self._load_ended.wait()

    async def embed(self, texts: Sequence[str], priority: Priority) -> NDArray[np.float32]:
        """Vectors of unit length in the order of the texts, shape (texts, dimensions).

        Raises:
            UnavailableError: the model did not load, too many texts wait already, or the worker has stopped.
        """
        self._check_usable()
        if not texts:
            return np.empty((0, self.dimensions or 0), np.float32)
        repeatable = priority is Priority.QUERY and len(texts) == 1
        if repeatable and texts[0] in self._cache:
            self._cache.move_to_end(texts[0])
            return self._cache[texts[0]]
        vectors = await self._enqueue(texts, self._waiting[priority])
        if repeatable:
            vectors.flags.writeable = False
            self._cache[texts[0]] = vectors
            if len(self._cache) > self._limit_cached:
                self._cache.popitem(last=False)
        return vectors

    async def _enqueue(self, texts: Sequence[str], queue: dict[asyncio.Future[Vector], str]) -> NDArray[np.float32]:
        if len(queue) + len(texts) > self._limit_texts:
            raise UnavailableError(
                f"{len(queue)} texts wait to be embedded already and {len(texts)} more would exceed the limit of "
                f"{self._limit_texts}; send fewer, or the same later"
            )
        loop = asyncio.get_running_loop()
        mine: list[asyncio.Future[Vector]] = [loop.create_future() for _ in texts]
        queue.update(zip(mine, texts, strict=True))
        self._wanted.set()
        try:
            vectors = await asyncio.gather(*mine)
        finally:
            for future in mine:
                future.cancel()
                queue.pop(future, None)
        return np.stack(vectors)

    def _check_usable(self) -> None:
        if self._stopped:
            raise UnavailableError("the service is stopping")
        pause = self._retry_at - time.monotonic()
        if self._problem is not None and pause > 0:
            raise UnavailableError(self._problem, retry_after_seconds=ceil(pause))

    async def _serve(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if not self._ready:
                await self._load()
            while self._ready and (queue := next(filter(None, self._waiting.values()), None)):
                await self._call(queue)

    async def _load(self) -> None:
        (error,) = await asyncio.gather(self._in_thread(self._embedder.load), return_exceptions=True)
        if error is None:
            self._ready = True
            self._problem = None
        else:
            self._problem = " ".join(str(error).split()) or repr(error)
            self._retry_at = time.monotonic() + self._retry_seconds
            self._refuse_waiting(self._problem, ceil(self._retry_seconds))
        self._load_ended.set()

    async def _call(self, queue: dict[asyncio.Future[Vector], str]) -> None:
        taken = dict(islice(queue.items(), self._embedder.texts_per_call))
        (answer,) = await asyncio.gather(
            self._in_thread(self._embedder.embed, list(taken.values())), return_exceptions=True
        )
        for row, future in enumerate(taken):
            queue.pop(future, None)
            if future.done():
                continue  # whoever waited has given up
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer[row])

    def _in_thread(self, function: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _refuse_waiting(self, reason: str, retry_after_seconds: int = 1) -> None:
        for queue in self._waiting.values():
            for future in queue:
                if not future.done():
                    future.set_exception(UnavailableError(reason, retry_after_seconds))
            queue.clear()
