"""What became of the rows of an import batch: stored now, there already, or in the way of each other."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.models import Finding, FindingKind, Memory, MemoryKey, NewMemory, Reject
from app.store.protocol import ImportBatch

CONTENT = ("file_path", "new_code", "old_code", "context", "session_id", "timestamp")
"""The fields that make two memories with one id the same; some sources have more of them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a batch adds to the counts; `failed` rows are among the findings."""

    migrated: int
    skipped: int
    failed: int
    reembedded: int
    redacted: int
    altered: int
    unusable_vectors: int
    findings: list[Finding]


def differences(memory: Memory, other: Memory, more_fields: Sequence[str] = ()) -> list[str]:
    """The names of the content fields in which two memories differ."""
    return [name for name in (*CONTENT, *more_fields) if getattr(memory, name) != getattr(other, name)]


def unique(rows: Sequence[tuple[int, NewMemory]]) -> dict[MemoryKey, NewMemory]:
    """The first row of each key."""
    first: dict[MemoryKey, NewMemory] = {}
    for _, new in rows:
        first.setdefault(new.memory.key, new)
    return first


def classify(batch: ImportBatch, stored: AbstractSet[MemoryKey], present: Mapping[MemoryKey, Memory]) -> Outcome:
    """Accounts for each row: the first of a key in `stored` is migrated, any other is compared with what is `present`.

    `present` must hold all keys that are not in `stored`; a key that is twice in the batch is compared with its first.
    """
    migrated = skipped = reembedded = redacted = altered = unusable_vectors = 0
    rejects = list(batch.rejects)
    first: dict[MemoryKey, Memory] = {}
    for rowid, row in batch.rows:
        key = row.memory.key
        if key in stored and key not in first:
            first[key] = row.memory
            migrated += 1
            reembedded += row.vector is None
            redacted += row.redacted
            altered += row.altered
            unusable_vectors += row.unusable_vector
        elif differing := differences(row.memory, first.get(key) or present[key], batch.more_fields):
            reason = f"the id is taken by a memory of project {key.project} with another {', '.join(differing)}"
            rejects.append(Reject(rowid=rowid, source_id=str(key.id), reason=reason))
        else:
            skipped += 1
    findings = [Finding(FindingKind.REJECT, reject.rowid, reject.source_id, reject.reason) for reject in rejects]
    return Outcome(migrated, skipped, len(rejects), reembedded, redacted, altered, unusable_vectors, findings)


def stored_otherwise(
    row: NewMemory, there: Memory, vector: NDArray[np.float16] | None, more_fields: Sequence[str], *, kept: bool
) -> Sequence[str]:
    """What differs between a row and what is stored for it; a vector that was kept, at the precision of the store."""
    problems = differences(row.memory, there, more_fields)
    if (
        kept
        and row.vector is not None
        and (vector is None or not np.array_equal(vector, row.vector.astype(np.float16)))
    ):
        problems.append("vector")
    return problems
