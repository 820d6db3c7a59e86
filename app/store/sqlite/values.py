"""How Python values stand in SQLite: times as text that sorts, UUIDs as text, vectors as 16-bit floats."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.models import MemoryKey, Scope, Vector


def time_text(time: datetime | None) -> str | None:
    """UTC with microseconds, always of the same length."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0") if time else None


def time_from(text: str | None) -> datetime | None:
    """The time that `time_text` wrote."""
    return datetime.fromisoformat(text) if text else None


def projects_json(projects: Sequence[str] | None) -> str | None:
    """Projects as queries take them; None means all."""
    return None if projects is None else json.dumps(list(projects))


def keys_json(keys: Iterable[MemoryKey]) -> str:
    """Keys as queries take them: [[project, id], ...]."""
    return json.dumps([[key.project, str(key.id)] for key in keys])


def scope_values(scope: Scope) -> dict[str, Any]:
    """The filters as queries take them."""
    return {
        "projects": projects_json(scope.projects),
        "session_id": scope.session_id,
        "agent_id": scope.agent_id,
        "file_path": scope.file_path,
        "path_prefix": scope.path_prefix,
        "language": scope.language,
        "since": time_text(scope.since),
        "until": time_text(scope.until),
    }


def code_hash(code: str) -> int:
    """64 bits with a sign, the same in every process: what tells apart the code of two memories."""
    return int.from_bytes(blake2b(code.encode(), digest_size=8).digest(), signed=True)


def vector_bytes(vector: Vector) -> bytes:
    """Little-endian 16-bit floats."""
    return vector.astype("<f2").tobytes()


def vector_from(stored: bytes) -> NDArray[np.float16]:
    """The vector that `vector_bytes` wrote."""
    return np.frombuffer(stored, dtype="<f2")
