"""The embedding models in use: opened and closed as the store's record of them says, and changed without a pause."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog

from app.backfill import GRACE as WRITE_GRACE
from app.backfill import Backfill
from app.embedding.embedder import Embedder
from app.embedding.worker import EmbeddingWorker, Priority
from app.errors import AfterImageError, UnavailableError
from app.models import EmbeddingStats, Memory, Vector
from app.store.embedding_protocol import EmbeddingStore, ModelsInUse, ModelStore
from app.traffic import Traffic

KEPT_TIME = timedelta(minutes=2)
"""How long a former model and its vectors stay after a change: longer than any search that began before it."""

POLL_SECONDS = 1.0

LOAD_DELAY_SECONDS = 0.1
"""Before the models are loaded at a start, unless texts come before: meanwhile the service starts and answers the first
requests, which takes two to three times as long beside it.
"""

STALE_SECONDS = 30.0
"""A process that could not ask for so long which models are in use asks before it searches; well below KEPT_TIME."""

SWEEP_LEASE = timedelta(minutes=5)
SWEEP_MEMORIES = 1000
"""Whose former vectors are removed in one transaction."""
SWEEP_PAUSE_SECONDS = 0.05

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunningModel:
    """A model in this process, and what makes the vectors that memories lack of it."""

    worker: EmbeddingWorker
    backfill: Backfill


class EmbeddingModels:
    """Runs the active model, for queries, and during a change the target too, whose vectors are being made.

    The change is the store's: any number of processes look each second which models are in use, and the one that finds
    the target complete makes it the active one in a single statement. A query is embedded by the model whose vectors
    it is compared with, and these stay for a while behind the switch.
    """

    def __init__(
        self,
        embeddings: EmbeddingStore,
        models: ModelStore,
        open_embedder: Callable[[str], Embedder],
        traffic: Traffic | None = None,
        *,
        kept_time: timedelta = KEPT_TIME,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._embeddings = embeddings
        self._models = models
        self._open_embedder = open_embedder
        self._traffic = traffic or Traffic()
        self._kept_time = kept_time
        self._poll_seconds = poll_seconds
        self._used: ModelsInUse | None = None
        self._running: dict[str, RunningModel] = {}
        self._former: dict[str, tuple[EmbeddingWorker, float]] = {}
        self._looking = asyncio.Lock()
        self._looked_at = 0.0
        self._makes_vectors = False
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Opens the models in use for queries alone: nothing is made, changed or removed."""
        await self._look()
        await self._prepare(self.used.active)

    async def start(self, target: str | None = None) -> None:
        """Opens the models in use; with a `target` its vectors are made from now on, by all processes."""
        if target is not None:
            now = datetime.now(UTC)
            await self._models.aim(target, now, now + self._kept_time)
        self._makes_vectors = True
        await self._look(LOAD_DELAY_SECONDS)
        self._tasks = [
            self._begin("following the models in use", self._follow, self._poll_seconds),
            self._begin("changing the model", self._complete, self._poll_seconds),
            self._begin("removing the vectors of former models", self._sweep, 5 * self._poll_seconds),
        ]

    async def stop(self) -> None:
        """Closes everything; what is not embedded stays in the queue."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(running.backfill.stop() for running in self._running.values()))
        for worker in [running.worker for running in self._running.values()] + [
            one for one, _ in self._former.values()
        ]:
            await worker.stop()

    @property
    def used(self) -> ModelsInUse:
        """The models in use, as far as this process knows."""
        if self._used is None:
            raise RuntimeError("the embedding models are not started")
        return self._used

    @property
    def active(self) -> RunningModel:
        """The model whose vectors are searched."""
        return self._running[self.used.active]

    @property
    def target(self) -> RunningModel:
        """The model that vectors are made for; the vectors that clients send are its."""
        return self._running[self.used.target]

    @property
    def workers(self) -> list[EmbeddingWorker]:
        """All that run here."""
        return [running.worker for running in self._running.values()]

    def with_problems(self, stats: EmbeddingStats) -> EmbeddingStats:
        """The same, saying of each model why it cannot be used here."""
        change = stats.change and replace(stats.change, problem=self.target.worker.problem)
        return replace(stats, problem=self.active.worker.problem, change=change)

    async def query_vector(
        self, text: str, projects: Sequence[str] | None = None, *, at_once: bool = False
    ) -> tuple[Vector, str]:
        """The vector of a query, and the model whose vectors it is to be compared with.

        A brief one is embedded `at_once` if no other search or write is in flight: see `EmbeddingWorker.embed`.

        Raises:
            UnavailableError: that model cannot be used now; during a change says how far the next one is, of the
                projects (None: all).
        """
        if time.monotonic() - self._looked_at > STALE_SECONDS:
            await asyncio.shield(self._look())  # what it has begun to open or close outlives the request
        used, worker = self.used, self.active.worker
        try:
            [vector] = await worker.embed([text], Priority.QUERY, at_once=at_once and self._traffic.alone)
        except UnavailableError as error:
            if not used.changing:
                raise
            backlog = await self._embeddings.backlog(used.target, projects)
            left = await self._embeddings.missing(used.target, projects) + backlog.pieces_pending
            raise UnavailableError(
                f"the model {used.active}, whose vectors are searched, cannot be used: {error}; those of "
                f"{used.target} are being made and then searched, {left} memories are left",
                error.retry_after_seconds,
            ) from error
        return vector, worker.model

    def due_at(self, now: datetime, count: int) -> datetime:
        """From when on others may embed a memory that is stored now and offered next."""
        return self.active.backfill.due_at(now, count)

    def offer(self, memories: Sequence[Memory]) -> None:
        """Embeds new memories soon, for each model in use, as far as there is room; the queue holds all of them."""
        self.active.backfill.offer(memories)
        if self.used.changing and self.target.worker.ready:
            self.target.backfill.offer(memories)

    async def embed(self, memories: Sequence[Memory], *, with_target: bool = True) -> None:
        """Returns when memories can be found by meaning, and will be behind a change that is under way.

        Without `with_target` they have that model's vectors already.

        Raises:
            UnavailableError: there is no model, or no store; the memories stay queued.
        """
        made = set() if with_target else {self.used.target}
        while self.used.active not in made:
            active, target = self.used.active, self.target
            await self.active.backfill.embed(memories, Priority.WRITE)
            made.add(active)
            if target.worker.model not in made and target.worker.ready:
                try:
                    await target.backfill.embed(memories, Priority.WRITE)
                    made.add(target.worker.model)
                except AfterImageError as error:
                    log.warning("memories get the next model's vectors later", reason=str(error))

    def _begin(self, what: str, work: Callable[[], Awaitable[None]], pause_seconds: float) -> asyncio.Task[None]:
        return asyncio.create_task(self._repeat(what, work, pause_seconds), name=what)

    async def _repeat(self, what: str, work: Callable[[], Awaitable[None]], pause_seconds: float) -> None:
        while True:
            await asyncio.sleep(pause_seconds)
            try:
                await work()
            except UnavailableError as error:
                log.warning(f"{what} waits", reason=str(error))
            except Exception:
                log.exception(f"{what} failed and is tried again")

    async def _follow(self) -> None:
        await self._look()
        for model, (worker, until) in list(self._former.items()):
            if time.monotonic() > until:
                del self._former[model]
                await worker.stop()

    async def _look(self, delay_seconds: float = 0.0) -> None:
        """Asks which models are in use, and opens and closes accordingly; what it opens is loaded after the delay."""
        async with self._looking:
            used = await self._models.get()
            self._looked_at = time.monotonic()
            if used == self._used:
                return
            if self._used is not None and used.active != self._used.active:
                await self._prepare(used.active)
            running = {
                model: self._running.get(model) or await self._open(model, delay_seconds) for model in used.names
            }
            former = {model: one for model, one in self._running.items() if model not in running}
            self._running, self._used = running, used
            if used.changing:
                log.info("the embedding model is being changed", searched=used.active, made=used.target)
            else:
                log.info("the embedding model in use", model=used.active)
        for model, one in former.items():
            await one.backfill.stop()
            self._former[model] = (one.worker, time.monotonic() + self._kept_time.total_seconds())

    async def _prepare(self, model: str) -> None:
        """Makes the index, which whoever switched has seen to, known to this process before the first search."""
        try:
            await self._embeddings.ensure_index(model, build=self._makes_vectors)
        except AfterImageError as error:
            log.warning("searches are exact until the index can be looked up", reason=str(error))

    async def _open(self, model: str, delay_seconds: float) -> RunningModel:
        if model in self._former:
            worker, _ = self._former.pop(model)
        else:
            worker = EmbeddingWorker(self._open_embedder(model))
            await worker.start(delay_seconds)
        backfill = Backfill(self._embeddings, worker, self._traffic)
        if self._makes_vectors:
            backfill.start()
        return RunningModel(worker, backfill)

    async def _complete(self) -> None:
        """Switches to the target once its vectors and their index are complete."""
        if not self.used.changing or not self.target.worker.ready:
            return
        model = self.used.target
        if not await self._models.is_complete(model, datetime.now(UTC) - WRITE_GRACE):
            return
        if not await self._embeddings.ensure_index(model):
            return
        now = datetime.now(UTC)
        if await self._embeddings.queue_missing(model, now):
            return
        if await self._models.switch(model, now - WRITE_GRACE, now + self._kept_time):
            log.info("the vectors of the new model are complete and searched from now on", model=model)
        await self._look()

    async def _sweep(self) -> None:
        """Removes what belongs to models not in use, if it is time and no other process does."""
        now = datetime.now(UTC)
        held = now + SWEEP_LEASE
        if not await self._models.claim_sweep(now, held):
            return
        await self._models.drop_unused_indexes()
        last = await self._models.sweep(None, SWEEP_MEMORIES)
        while last is not None:
            until = datetime.now(UTC) + SWEEP_LEASE
            if not await self._models.renew_sweep(held, until):
                return
            held = until
            await asyncio.sleep(SWEEP_PAUSE_SECONDS)
            last = await self._models.sweep(last, SWEEP_MEMORIES)
        # A write that was under way when the models changed may have queued its memories for the former ones.
        for model in (await self._models.get()).names:
            while await self._embeddings.queue_missing(model, datetime.now(UTC)):
                pass
        await self._models.renew_sweep(held, None)
