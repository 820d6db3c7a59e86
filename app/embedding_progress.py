"""How fast vectors are made, by all processes together, and how long it will take."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import structlog

from app.models import EmbeddingStats, ModelChangeStats
from app.store.embedding_protocol import Backlog, EmbeddingStore, ModelsInUse, ModelStore

WINDOW_SECONDS = 60.0

PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 10.0
PAUSE_FACTOR = 20
"""Between these, a pause is so many times as long as counting took: millions take a while."""

log = structlog.get_logger(__name__)


class Fall:
    """By how much a number falls in a second, over the last minute at most."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, at: float, left: int) -> None:
        """Adds what was seen at a time, in seconds of any clock; begins anew if nothing is left or there is more."""
        if left == 0 or (self._seen and left > self._seen[-1][1]):
            self._seen.clear()
        self._seen.append((at, left))
        while at - self._seen[0][0] > WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def rate(self) -> float | None:
        """None where nothing is left, or it did not become less."""
        (began, before), (ended, left) = (self._seen[0], self._seen[-1]) if self._seen else ((0, 0), (0, 0))
        return (before - left) / (ended - began) if left and before > left else None


class BacklogRate:
    """How fast the backlog falls: memories without a vector, and long ones without those of their pieces.

    A long memory takes many times as long as a short one, so each kind is counted for itself. What is counted is the
    whole installation's, so it does not matter which processes make the vectors.
    """

    def __init__(self) -> None:
        self._model: str | None = None
        self._whole = Fall()
        self._pieces = Fall()

    def note(self, at: float, model: str, backlog: Backlog) -> None:
        """Adds what was seen at a time, in seconds of any clock; begins anew if the model is another."""
        if model != self._model:
            self._model, self._whole, self._pieces = model, Fall(), Fall()
        self._whole.note(at, backlog.pending)
        self._pieces.note(at, backlog.pieces_pending)

    @property
    def rate(self) -> float | None:
        """Memories a second, of those without a vector if these became fewer, else of the long ones; else None."""
        return self._whole.rate or self._pieces.rate

    def seconds_left(self, pending: int, pieces_pending: int) -> float | None:
        """How long it takes until every memory has a vector, or where all have, every piece; None where unknown."""
        left, rate = (pending, self._whole.rate) if pending else (pieces_pending, self._pieces.rate)
        return left / rate if rate else None


class EmbeddingProgress:
    """Looks at the backlog again and again."""

    def __init__(self, embeddings: EmbeddingStore, models: ModelStore) -> None:
        self._embeddings = embeddings
        self._models = models
        self._rate = BacklogRate()
        self._missing = 0
        self._missing_until = 0.0
        self.backlog = Backlog(0, 0, 0)
        """Of the model that vectors are made for, as the last look has found it, with what is not queued yet."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.create_task(self._run(), name="embedding-progress")

    async def stop(self) -> None:
        """Ends the loop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def look(self) -> float:
        """Notes how much is left now; answers in how many seconds to look again."""
        began = time.monotonic()
        used = await self._models.get()
        backlog = await self._embeddings.backlog(used.target)
        at = time.monotonic()
        self._rate.note(at, used.target, backlog)
        missing = await self._not_queued(used) if used.changing else 0
        self.backlog = replace(backlog, pending=max(backlog.pending, missing))
        return min(max(PAUSE_SECONDS, PAUSE_FACTOR * (at - began)), LONGEST_PAUSE_SECONDS)

    async def _not_queued(self, used: ModelsInUse) -> int:
        """How many lack a vector, queued or not: it counts all memories, and so not at each look."""
        began = time.monotonic()
        if began >= self._missing_until:
            self._missing = await self._embeddings.missing(used.target)
            ended = time.monotonic()
            self._missing_until = ended + PAUSE_FACTOR * (ended - began)
        return self._missing

    async def complete(
        self, found: EmbeddingStats, used: ModelsInUse, projects: Sequence[str] | None
    ) -> EmbeddingStats:
        """What the store says of the active model, with the rate and the change under way.

        The rate is that of all projects together: who asks for some does not learn how much there is in others.
        """
        pending, pieces_pending = found.pending, found.pieces_pending
        if used.changing:
            backlog = await self._embeddings.backlog(used.target, projects)
            pieces_pending = backlog.pieces_pending
            pending = await self._embeddings.missing(used.target, projects)
            index = await self._embeddings.index_stats(used.target)
            change = ModelChangeStats(used.target, pending, backlog.failed, pieces_pending, index)
            found = replace(found, change=change)
        if projects is None and (pending or pieces_pending) and (rate := self._rate.rate):
            seconds = self._rate.seconds_left(pending, pieces_pending)
            found = replace(found, rate=round(rate, 1), seconds_left=None if seconds is None else round(seconds, 1))
        return found

    async def _run(self) -> None:
        while True:
            pause = PAUSE_SECONDS
            try:
                pause = await self.look()
            except Exception as error:  # noqa: BLE001 - the store is away; the rate is unknown for so long
                log.debug("the backlog of vectors could not be counted", reason=str(error))
            await asyncio.sleep(pause)
