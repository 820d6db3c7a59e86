"""Vectors in SQLite, and the queue of those still to be made."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.models import MAX_WHOLE_CHARACTERS, MemoryKey, Vector, VectorIndexStats
from app.store.embedding_protocol import QUEUED_AT_ONCE, Backlog, ClaimedMemory, EmbeddingFailure, PieceVector
from app.store.sqlite.connections import SqliteConnections
from app.store.sqlite.memories import EXACT, SqliteMemories, key_from, memory_from
from app.store.sqlite.values import keys_json, projects_json, time_text, vector_bytes, vector_from


class SqliteEmbeddings:
    """EmbeddingStore on SQLite."""

    def __init__(self, connections: SqliteConnections, queries: Any, memories: SqliteMemories) -> None:
        self._connections = connections
        self._queries = queries
        self._memories = memories

    async def queue_missing(self, model: str, now: datetime) -> int:
        """See EmbeddingStore."""

        def work(connection: sqlite3.Connection) -> int:
            rows = self._queries.queue_missing(connection, model=model, now=time_text(now), limit=QUEUED_AT_ONCE)
            return len(rows)

        return await self._connections.write(work)

    async def queue_failed(self, model: str, now: datetime) -> int:
        """See EmbeddingStore."""

        def work(connection: sqlite3.Connection) -> int:
            rows = self._queries.queue_failed(connection, model=model, now=time_text(now))
            return len(rows)

        return await self._connections.write(work)

    async def failures(self, model: str, limit: int) -> list[EmbeddingFailure]:
        """See EmbeddingStore."""

        def work(connection: sqlite3.Connection) -> list[EmbeddingFailure]:
            rows = self._queries.embedding_failures(connection, model=model, limit=limit)
            return [
                EmbeddingFailure(
                    given_up=bool(row["given_up"]),
                    whole=bool(row["whole"]),
                    reason=row["reason"],
                    memories=row["memories"],
                    example=row["example"],
                )
                for row in rows
            ]

        return await self._connections.read(work)

    async def backlog(self, model: str, projects: Sequence[str] | None = None) -> Backlog:
        """See EmbeddingStore."""
        row = await self._connections.read(
            lambda connection: self._queries.embedding_backlog(
                connection, model=model, projects=projects_json(projects)
            )
        )
        return Backlog(**row)

    async def missing(self, model: str, projects: Sequence[str] | None = None) -> int:
        """See EmbeddingStore."""
        row = await self._connections.read(
            lambda connection: self._queries.missing_vectors(connection, model=model, projects=projects_json(projects))
        )
        return int(row["missing"])

    async def claim(
        self, model: str, limit: int, now: datetime, until: datetime, *, whole: bool = True
    ) -> list[ClaimedMemory]:
        """See EmbeddingStore."""

        def work(connection: sqlite3.Connection) -> list[ClaimedMemory]:
            rows = self._queries.claim_embeddings(connection, model=model, limit=limit, now=time_text(now), whole=whole)
            claimed = [ClaimedMemory(memory_from(row), row["attempts"]) for row in rows]
            keys = [claim.memory.key for claim in claimed]
            self._queries.hold_embeddings(connection, _places(keys, model, until=time_text(until)))
            return claimed

        return await self._connections.write(work)

    async def hand_back(self, model: str, held: Mapping[MemoryKey, datetime], now: datetime) -> None:
        """See EmbeddingStore."""
        rows = [
            {**place, "held": time_text(until)}
            for place, until in zip(_places(held, model, now=time_text(now)), held.values(), strict=True)
        ]
        await self._connections.write(lambda connection: self._queries.hand_back_embeddings(connection, rows))

    async def save(self, model: str, vectors: Mapping[MemoryKey, Vector]) -> None:
        """See EmbeddingStore."""

        def work(connection: sqlite3.Connection) -> None:
            rows = [
                {**place, "vector": vector_bytes(vector)}
                for place, vector in zip(_places(vectors, model), vectors.values(), strict=True)
            ]
            self._queries.save_vectors(connection, rows)
            self._queries.dequeue_embeddings(connection, _places(vectors, model))
            self._queries.queue_pieces(connection, _places(vectors, model, max_whole=MAX_WHOLE_CHARACTERS))

        await self._connections.write(work)

    async def save_pieces(self, model: str, key: MemoryKey, pieces: Sequence[PieceVector]) -> None:
        """See EmbeddingStore."""
        [place] = _places([key], model)
        rows = [
            {**place, "piece": number, **asdict(one.piece), "vector": vector_bytes(one.vector)}
            for number, one in enumerate(pieces, 1)
        ]

        def work(connection: sqlite3.Connection) -> None:
            self._queries.save_pieces(connection, rows)
            self._queries.dequeue_embeddings(connection, [place])

        await self._connections.write(work)

    async def postpone(self, model: str, keys: Sequence[MemoryKey], reason: str, until: datetime | None) -> None:
        """See EmbeddingStore."""
        rows = _places(keys, model, reason=reason, until=time_text(until))
        await self._connections.write(lambda connection: self._queries.postpone_embeddings(connection, rows))

    async def vectors(self, model: str, keys: Sequence[MemoryKey]) -> dict[MemoryKey, NDArray[np.float16]]:
        """See EmbeddingStore."""

        def work(connection: sqlite3.Connection) -> dict[MemoryKey, NDArray[np.float16]]:
            rows = self._queries.get_vectors(connection, model=model, keys=keys_json(keys))
            return {key_from(row): vector_from(row["embedding"]) for row in rows}

        return await self._connections.read(work)

    async def ensure_index(self, model: str, *, build: bool = True) -> bool:
        """See EmbeddingStore; every search compares all vectors, so they are brought into memory."""
        if build:
            await self._memories.load_vectors(model)
        return True

    async def index_stats(self, model: str) -> VectorIndexStats:
        """See EmbeddingStore."""
        return EXACT


def _places(keys: Iterable[MemoryKey], model: str, **more: Any) -> list[dict[str, Any]]:
    return [{"project": key.project, "id": str(key.id), "model": model, **more} for key in keys]
