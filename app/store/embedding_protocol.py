"""What a store does with vectors and the models that make them; each method is one statement or one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.models import Memory, MemoryKey, Piece, Vector, VectorIndexStats

QUEUED_AT_ONCE = 100_000


@dataclass(frozen=True, slots=True)
class ModelsInUse:
    """The model whose vectors are searched, and the one that vectors are made for; usually the same."""

    active: str
    target: str

    @property
    def changing(self) -> bool:
        """True until the vectors of the target are complete and it is searched."""
        return self.active != self.target

    @property
    def names(self) -> list[str]:
        """Each once, the active first."""
        return [self.active, self.target] if self.changing else [self.active]


@dataclass(frozen=True, slots=True)
class EmbeddingFailure:
    """Why vectors could not be made, and of how many memories; what is not given up is tried again.

    Without `whole` only the vectors of pieces are lacking. `example` is one of the memories, as project/id.
    """

    given_up: bool
    whole: bool
    reason: str
    memories: int
    example: str


@dataclass(frozen=True, slots=True)
class Backlog:
    """Memories whose vector of a model is still to be made, and those for which that was given up.

    `pieces_pending` are long and lack the vectors of their pieces alone.
    """

    pending: int
    failed: int
    pieces_pending: int


@dataclass(frozen=True, slots=True)
class PieceVector:
    """A piece of a memory's code, with its vector."""

    piece: Piece
    vector: Vector


@dataclass(frozen=True, slots=True)
class ClaimedMemory:
    """A memory to be embedded, and how often that was tried before."""

    memory: Memory
    attempts: int


class EmbeddingStore(Protocol):
    """Vectors, and the queue of those still to be made."""

    async def backlog(self, model: str, projects: Sequence[str] | None = None) -> Backlog:
        """What is still to be embedded, in some projects or all."""

    async def missing(self, model: str, projects: Sequence[str] | None = None) -> int:
        """How many memories lack a vector and were not given up, whether they are queued already or not."""

    async def queue_missing(self, model: str, now: datetime) -> int:
        """Queues memories that have no vector of this model, as after a change of the model; answers how many.

        They are QUEUED_AT_ONCE at most, so that no statement runs long: none is missing once this answers 0.
        """

    async def queue_failed(self, model: str, now: datetime) -> int:
        """Queues the memories that were given up anew; answers how many."""

    async def failures(self, model: str, limit: int) -> Sequence[EmbeddingFailure]:
        """Why vectors could not be made, the most frequent reasons of what was given up first."""

    async def claim(
        self, model: str, limit: int, now: datetime, until: datetime, *, whole: bool = True
    ) -> Sequence[ClaimedMemory]:
        """Takes due memories off the queue until `until`; no two callers get the same one.

        With `whole` those without any vector, else long ones that lack only those of their pieces.
        """

    async def hand_back(self, model: str, held: Mapping[MemoryKey, datetime], now: datetime) -> None:
        """Makes those due now that are still held until the time given; what was done or taken since is left alone."""

    async def save(self, model: str, vectors: Mapping[MemoryKey, Vector]) -> None:
        """Stores vectors of whole memories and takes these off the queue; those deleted meanwhile are passed over.

        Long ones (see MAX_WHOLE_CHARACTERS) are queued for their pieces.
        """

    async def save_pieces(self, model: str, key: MemoryKey, pieces: Sequence[PieceVector]) -> None:
        """Stores the vectors of a memory's pieces and takes it off the queue, unless it was deleted meanwhile."""

    async def postpone(self, model: str, keys: Sequence[MemoryKey], reason: str, until: datetime | None) -> None:
        """Notes a failed attempt; without `until` the memories are given up as `failed`."""

    async def vectors(self, model: str, keys: Sequence[MemoryKey]) -> dict[MemoryKey, NDArray[np.float16]]:
        """The stored vectors of whole memories."""

    async def ensure_index(self, model: str, *, build: bool = True) -> bool:
        """Builds what searches among very many vectors need, once it is needed and unless another process does.

        Returns when that is done, minutes later perhaps; nothing else waits for it. False if another process is at it,
        or if it is missing and not to be built.
        """

    async def index_stats(self, model: str) -> VectorIndexStats:
        """What searches among many vectors of a model use."""


class ModelStore(Protocol):
    """The record of the models in use, for all processes, and the removal of what belongs to others."""

    async def get(self) -> ModelsInUse:
        """The models in use."""

    async def aim(self, model: str, now: datetime, sweep_at: datetime) -> ModelsInUse:
        """Has vectors made for a model from now on; answers the models then in use.

        While there are vectors of the active model it stays active; without any the new one is active at once. What
        belongs to other models may be removed from `sweep_at` on.
        """

    async def is_complete(self, model: str, before: datetime) -> bool:
        """True if no memory waits for a vector of the target; given up does not count.

        Nor do memories stored since then, unless they were there when the target was chosen: with steady writes some
        wait at any time.
        """

    async def switch(self, model: str, before: datetime, sweep_at: datetime) -> bool:
        """Makes the target the active model; False, and nothing done, if it is another or not complete."""

    async def claim_sweep(self, now: datetime, until: datetime) -> bool:
        """Takes it on, until a time, to remove what belongs to models not in use; False if there is nothing to do."""

    async def renew_sweep(self, held: datetime, until: datetime | None) -> bool:
        """Holds the sweep longer than until `held`; None ends it. False if the models have changed meanwhile."""

    async def drop_unused_indexes(self) -> None:
        """Drops the indexes of vectors of models not in use."""

    async def sweep(self, after: MemoryKey | None, limit: int) -> MemoryKey | None:
        """Removes vectors and queued work of models not in use from the next `limit` memories behind a key.

        Answers the last of these memories, None behind the end.
        """
