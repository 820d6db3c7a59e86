"""What a store does for writes that may be repeated."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias
from uuid import UUID

from app.models import Memory, MemoryKey, NewMemory


@dataclass(frozen=True, slots=True)
class RepeatableRequest:
    """A write with an idempotency key. Equal requests have equal fingerprints, each owner has keys of its own."""

    owner: str
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it goes out, and the memory that it is about, if it is one; `replayed` if it was given before."""

    status: int
    body: bytes
    memory_id: UUID | None = None
    replayed: bool = False


Outcome: TypeAlias = Callable[[AbstractSet[MemoryKey], Mapping[MemoryKey, Memory]], tuple[Answer, bool]]
"""Makes the answer, and says whether to keep it, of the keys that were stored and the memories that were there."""


class IdempotencyStore(Protocol):
    """Answers to writes, kept with what these stored."""

    async def find(self, owner: str, key: str) -> tuple[Answer, bytes] | None:
        """The answer that was kept for a key, and the fingerprint of its request."""

    async def add(
        self,
        request: RepeatableRequest,
        new: Sequence[NewMemory],
        embed_after: datetime,
        now: datetime,
        outcome: Outcome,
    ) -> Answer:
        """Stores memories as `MemoryStore.add` does, and the answer to the request, in one transaction.

        What `outcome` raises undoes all.

        Raises:
            OutstandingError: another request with this key was first; nothing is stored.
        """

    async def sweep(self, before: datetime, limit: int) -> int:
        """Deletes at most `limit` answers that were kept before a time, the oldest; answers how many these were."""
