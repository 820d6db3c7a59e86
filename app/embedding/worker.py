"""Shares the model between all who want vectors; whoever is most urgent is served first."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from math import ceil

import numpy as np
from numpy.typing import NDArray

from app.embedding.embedder import Embedder
from app.embedding.lane import Lane, Queue
from app.errors import UnavailableError
from app.models import Vector


class Priority(IntEnum):
    """Who is served first: people who search, then new memories, then old ones."""

    QUERY = 0
    WRITE = 1
    BACKFILL = 2


class EmbeddingWorker:
    """Shares one embedder between all callers.

    Texts of one priority share calls, in the order they came; a call never mixes priorities. A query that is not
    embedded at once waits for earlier ones and, where the embedder makes one call at a time, for the call in hand;
    where it makes more, all but queries are embedded in the background. A model that did not load is tried again at the
    first use after `retry_seconds`.
    """

    def __init__(
        self, embedder: Embedder, *, limit_texts: int = 1024, limit_cached: int = 1024, retry_seconds: float = 30.0
    ) -> None:
        self._embedder = embedder
        self._limit_texts = limit_texts
        self._limit_cached = limit_cached
        self._retry_seconds = retry_seconds
        self._loading: asyncio.Task[None] | None = None
        self._ready = False
        self._stopped = False
        self._problem: str | None = None
        self._retry_at = 0.0
        self._load_ended = asyncio.Event()
        self._needed = asyncio.Event()
        self._waiting: dict[Priority, Queue] = {priority: {} for priority in Priority}
        self._lanes = self._open_lanes()
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
    def texts_per_call(self) -> int:
        """So many texts are embedded at a time."""
        return self._embedder.texts_per_call

    @property
    def gives_way(self) -> bool:
        """Whether whoever has texts that nobody waits for should wait for a moment without requests."""
        return self._embedder.gives_way

    @property
    def limit_texts(self) -> int:
        """So many texts of one priority may wait."""
        return self._limit_texts

    @property
    def waiting(self) -> int:
        """Texts that wait for the model."""
        return sum(len(queue) for queue in self._waiting.values())

    async def start(self, delay_seconds: float = 0.0) -> None:
        """Begins to load the model, after a delay or when texts come before its end, and returns at once."""
        if not self._ready and self._loading is None:
            self._begin_to_load(delay_seconds)

    async def stop(self) -> None:
        """Refuses all who wait; returns when the calls in hand have ended."""
        self._stopped = True
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        self._refuse_waiting("the service is stopping")
        self._load_ended.set()
        await asyncio.gather(*(lane.stop() for lane in self._lanes))

    async def wait_ready(self) -> None:
        """Returns when the model is loaded.

        Raises:
            UnavailableError: it did not load, or the worker has stopped.
        """
        while not self._ready:
            self._check_usable()
            self._load_ended.clear()
            self._serve()
            await self._load_ended.wait()

    async def embed(self, texts: Sequence[str], priority: Priority, *, at_once: bool = False) -> NDArray[np.float32]:
        """Vectors of unit length in the order of the texts, shape (texts, dimensions).

        A brief query may be embedded `at_once`, on the event loop, where nobody else waits for that: to wake a thread,
        and to be woken by it, takes some half a millisecond.

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
        if at_once and repeatable and self._ready and len(texts[0].encode()) < self._embedder.brief_bytes:
            vectors = self._embedder.embed(texts)
        else:
            vectors = await self._enqueue(texts, self._waiting[priority])
        if repeatable:
            vectors.flags.writeable = False
            self._cache[texts[0]] = vectors
            if len(self._cache) > self._limit_cached:
                self._cache.popitem(last=False)
        return vectors

    async def _enqueue(self, texts: Sequence[str], queue: Queue) -> NDArray[np.float32]:
        if len(queue) + len(texts) > self._limit_texts:
            raise UnavailableError(
                f"{len(queue)} texts wait to be embedded already and {len(texts)} more would exceed the limit of "
                f"{self._limit_texts}; send fewer, or the same later"
            )
        loop = asyncio.get_running_loop()
        mine: list[asyncio.Future[Vector]] = [loop.create_future() for _ in texts]
        queue.update(zip(mine, texts, strict=True))
        self._needed.set()
        try:
            self._serve()
            if len(mine) == 1:  # as of a query, which spares itself what gathers several
                return np.array(await mine[0], ndmin=2)  # a copy: it is one row of those of its call
            return np.stack(await asyncio.gather(*mine))
        finally:
            for future in mine:
                future.cancel()
                queue.pop(future, None)

    def _check_usable(self) -> None:
        if self._stopped:
            raise UnavailableError("the service is stopping")
        pause = self._retry_at - time.monotonic()
        if self._problem is not None and pause > 0:
            raise UnavailableError(self._problem, retry_after_seconds=ceil(pause))

    def _open_lanes(self) -> list[Lane]:
        calls = self._embedder.parallel_calls
        if calls == 0:
            return [Lane(self._embedder, self._waiting.values())]
        queries = self._waiting[Priority.QUERY]
        others = [queue for priority, queue in self._waiting.items() if priority is not Priority.QUERY]
        return [Lane(self._embedder, [queries]), Lane(self._embedder, others, calls, background=True)]

    def _serve(self) -> None:
        """Begins calls with what waits, or to load the model first."""
        if self._ready:
            for lane in self._lanes:
                lane.serve()
        elif self._loading is None:
            self._begin_to_load()

    def _begin_to_load(self, delay_seconds: float = 0.0) -> None:
        self._loading = asyncio.create_task(self._load(delay_seconds), name="embedding-model")

    async def _load(self, delay_seconds: float) -> None:
        if delay_seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_seconds):
                    await self._needed.wait()
        (error,) = await asyncio.gather(self._lanes[0].run(self._embedder.load), return_exceptions=True)
        self._loading = None
        if error is None:
            self._ready = True
            self._problem = None
            self._serve()
        else:
            self._problem = " ".join(str(error).split()) or repr(error)
            self._retry_at = time.monotonic() + self._retry_seconds
            self._refuse_waiting(self._problem, ceil(self._retry_seconds))
        self._load_ended.set()

    def _refuse_waiting(self, reason: str, retry_after_seconds: int = 1) -> None:
        for queue in self._waiting.values():
            for future in queue:
                if not future.done():
                    future.set_exception(UnavailableError(reason, retry_after_seconds))
            queue.clear()
