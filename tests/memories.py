"""Makes memories for tests."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import numpy as np

from app.models import EmbeddingStatus, Memory, NewMemory, Vector
from app.tokens import document_words

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def memory(**fields: Any) -> Memory:
    """A memory with the given fields, and likely ones else."""
    plain = Memory(
        id=uuid4(),
        project="default",
        file_path="src/http/headers.py",
        new_code="def parse_header(line): return line.partition(':')",
        old_code=None,
        context=None,
        session_id=None,
        agent_id=None,
        language="python",
        timestamp=NOON,
        created_at=NOON,
        embedding_status=EmbeddingStatus.PENDING,
        import_id=None,
    )
    return replace(plain, **fields)


def new(vector: Vector | None = None, **fields: Any) -> NewMemory:
    """A memory to be stored, ready where it has a vector."""
    status = EmbeddingStatus.PENDING if vector is None else EmbeddingStatus.READY
    made = memory(embedding_status=status, **fields)
    return NewMemory(made, document_words(made.file_path, made.new_code, made.context), vector)


def vector(*values: float, dimensions: int = 384) -> Vector:
    """A unit vector whose first numbers are proportional to these."""
    wide = np.zeros(dimensions, dtype=np.float32)
    wide[: len(values)] = values
    unit: Vector = wide / np.linalg.norm(wide)
    return unit


def minutes(count: float) -> timedelta:
    """A span of time."""
    return timedelta(minutes=count)
