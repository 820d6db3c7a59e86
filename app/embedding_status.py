"""What `afterimage embed` prints: the models in use, how far their vectors are, and why some could not be made."""

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from app.embedding.embedder import model_identity
from app.embedding_progress import EmbeddingProgress
from app.models import EmbeddingStats, Stats
from app.store.embedding_protocol import EmbeddingFailure, ModelsInUse
from app.store.protocol import Store

WATCHED_SECONDS = 3.0
"""How long the store is watched for the rate: a command knows only what processes leave there."""

SHOWN_REASONS = 10


@dataclass(frozen=True, slots=True)
class EmbeddingStatus:
    """The models in use, each with what the store holds of it, and the rate at which the missing vectors are made."""

    used: ModelsInUse
    configured: str
    stats: dict[str, Stats]
    failures: dict[str, list[EmbeddingFailure]]
    embedding: EmbeddingStats

    @property
    def is_complete(self) -> bool:
        """True if no vector is missing but for those that were given up."""
        return not any(stats.embedding.pending or stats.embedding.pieces_pending for stats in self.stats.values())


async def stats_of(store: Store) -> Stats:
    """What the store holds, with the change of the model under way, if any."""
    used = await store.models.get()
    found = await store.memories.stats(None, used.active)
    embedding = await EmbeddingProgress(store.embeddings, store.models).complete(found.embedding, used, None)
    return replace(found, embedding=embedding)


async def status_of(store: Store, configured: str, *, watched_seconds: float = WATCHED_SECONDS) -> EmbeddingStatus:
    """Watches the store for a moment if vectors are missing."""
    progress = EmbeddingProgress(store.embeddings, store.models)
    used = await store.models.get()
    backlog = await store.embeddings.backlog(used.target)
    if backlog.pieces_pending or await store.embeddings.missing(used.target):
        await progress.look()
        await asyncio.sleep(watched_seconds)
        await progress.look()
        used = await store.models.get()
    stats = {model: await store.memories.stats(None, model) for model in used.names}
    return EmbeddingStatus(
        used,
        model_identity(configured),
        stats,
        {model: [*await store.embeddings.failures(model, SHOWN_REASONS)] for model in used.names},
        await progress.complete(stats[used.active].embedding, used, None),
    )


async def restart(store: Store) -> tuple[int, int]:
    """Queues what was given up and what is missing, of each model in use; answers how many vectors these are."""
    now = datetime.now(UTC)
    failed = missing = 0
    for model in (await store.models.get()).names:
        failed += await store.embeddings.queue_failed(model, now)
        while queued := await store.embeddings.queue_missing(model, now):
            missing += queued
    return failed, missing


def describe(status: EmbeddingStatus) -> str:
    """Lines for a person."""
    used = status.used
    lines = [f"Model searched:    {used.active}"]
    if used.changing:
        lines.append(f"Being made:        {used.target}, searched once it is complete")
    if status.configured == used.target:
        lines.append(f"In the settings:   {status.configured}")
    else:
        lines.append(f"In the settings:   {status.configured}, to be made from the next start of a service on")
    for model, stats in status.stats.items():
        embedding = stats.embedding
        lines += [
            "",
            model,
            f"  With a vector:   {stats.entries_with_embeddings} of {stats.total_entries} memories",
            f"  Pending:         {embedding.pending}, and the pieces of {embedding.pieces_pending} long ones",
            f"  Failed:          {embedding.failed}",
        ]
        for failure in status.failures[model]:
            what = f"{failure.memories} {'given up' if failure.given_up else 'to be tried again'}"
            parts = "" if failure.whole else " in their pieces"
            lines.append(f"    {what}{parts}, such as {failure.example}: {failure.reason}")
    return "\n".join([*lines, "", _pace(status)])


def _pace(status: EmbeddingStatus) -> str:
    embedding = status.embedding
    if embedding.rate is not None:
        left = "time left unknown" if embedding.seconds_left is None else f"{_span(embedding.seconds_left)} left"
        return f"{embedding.rate:g} memories a second, {left}"
    if status.is_complete:
        return "Nothing is left to be made."
    return (
        f"What is pending did not become less in {WATCHED_SECONDS:g} s: no service runs on this store, its model does "
        "not load (its log and /readyz say why), it waits before it tries again, or as much came as was made."
    )


def _span(seconds: float) -> str:
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole / 3600:.1f} h"
