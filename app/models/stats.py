"""What is counted."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field


class VectorIndexKind(StrEnum):
    """How searches among many vectors find the nearest."""

    EXACT = "exact"
    HNSW = "hnsw"


class VectorIndexState(StrEnum):
    """Where the index of the vectors stands."""

    NONE = "none"
    BUILDING = "building"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class VectorIndexStats:
    """What searches among many vectors use; those among few compare every vector whatever it says."""

    kind: Annotated[VectorIndexKind, Field(description="`exact` until an HNSW index is ready.")]
    state: Annotated[VectorIndexState, Field(description="Of the HNSW index; `none` while every search is exact.")]
    percent: Annotated[float | None, Field(description="How much of it is built, while it is being built.")] = None


@dataclass(frozen=True, slots=True)
class ModelChangeStats:
    """How far the vectors of the next model are: it is searched once nothing is pending and its index is ready."""

    model: Annotated[str, Field(description="The model whose vectors are being made.")]
    pending: Annotated[int, Field(description="Memories whose vector of it is still to be made.")]
    failed: Annotated[int, Field(description="Memories whose vector of it could not be made; they hold nothing up.")]
    pieces_pending: Annotated[int, Field(description="Memories of long code whose pieces are to follow.")]
    index: VectorIndexStats
    problem: Annotated[str | None, Field(description="Why it cannot be used.")] = None


@dataclass(frozen=True, slots=True)
class EmbeddingStats:
    """The state of the vectors."""

    model: Annotated[str, Field(description="The model whose vectors are searched.")]
    dimensions: Annotated[int | None, Field(description="Length of a vector; null until the model was first used.")]
    pending: Annotated[int, Field(description="Memories whose vector is still to be made.")]
    failed: Annotated[int, Field(description="Memories whose vector could not be made.")]
    pieces_pending: Annotated[
        int,
        Field(description="Memories of long code that are found as a whole, and whose pieces are to follow."),
    ]
    index: VectorIndexStats
    problem: Annotated[str | None, Field(description="Why the model cannot be used.")] = None
    rate: Annotated[
        float | None,
        Field(
            description="Vectors of memories a second: by how much `pending` (of the next model during a change), or "
            "else `pieces_pending`, has fallen in the last minute, whichever processes made them. Null where nothing "
            "is pending, where neither falls, and where only some projects are asked for."
        ),
    ] = None
    seconds_left: Annotated[
        float | None,
        Field(
            description="Until `pending` (of the next model during a change) is 0, and all can be found by meaning; "
            "where it is, until `pieces_pending` is. Null where that does not fall."
        ),
    ] = None
    change: Annotated[
        ModelChangeStats | None, Field(description="While the vectors of another model are being made.")
    ] = None


@dataclass(frozen=True, slots=True)
class Stats:
    """What the store holds."""

    backend_type: Annotated[str, Field(description="`postgresql` or `sqlite`.")]
    total_entries: int
    entries_with_embeddings: int
    unique_files: int
    unique_sessions: int
    oldest_entry: Annotated[datetime | None, Field(description="`timestamp` of the oldest memory.")]
    newest_entry: Annotated[datetime | None, Field(description="`timestamp` of the newest memory.")]
    db_size_bytes: Annotated[int, Field(description="Size of the whole database.")]
    embedding: EmbeddingStats
