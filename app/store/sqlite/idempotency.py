"""Answers to writes that may be repeated, in SQLite."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from app.errors import OutstandingError
from app.models import NewMemory
from app.store.idempotency import Answer, Outcome, RepeatableRequest
from app.store.sqlite.connections import SqliteConnections
from app.store.sqlite.memories import SqliteMemories
from app.store.sqlite.values import time_text


class SqliteIdempotency:
    """IdempotencyStore on SQLite."""

    def __init__(self, connections: SqliteConnections, queries: Any, memories: SqliteMemories) -> None:
        self._connections = connections
        self._queries = queries
        self._memories = memories

    async def find(self, owner: str, key: str) -> tuple[Answer, bytes] | None:
        """See IdempotencyStore."""
        row = await self._connections.read(
            lambda connection: self._queries.find_answer(connection, owner=owner, key=key)
        )
        if row is None:
            return None
        memory_id = UUID(row["memory_id"]) if row["memory_id"] else None
        return Answer(row["status"], row["body"], memory_id, replayed=True), row["fingerprint"]

    async def add(
        self,
        request: RepeatableRequest,
        new: Sequence[NewMemory],
        embed_after: datetime,
        now: datetime,
        outcome: Outcome,
    ) -> Answer:
        """See IdempotencyStore."""

        def work(connection: sqlite3.Connection) -> Answer:
            stored = self._memories.add_on(connection, new, len(new) * [embed_after])
            others = [row.memory.key for row in new if row.memory.key not in stored]
            there = self._memories.get_on(connection, others) if others else {}
            answer, keep = outcome(stored, there)
            if keep and not self._queries.keep_answer(
                connection,
                owner=request.owner,
                key=request.key,
                fingerprint=request.fingerprint,
                status=answer.status,
                memory_id=str(answer.memory_id) if answer.memory_id else None,
                body=answer.body,
                now=time_text(now),
            ):
                raise OutstandingError(request.key)
            return answer

        return await self._connections.write(work)

    async def sweep(self, before: datetime, limit: int) -> int:
        """See IdempotencyStore."""

        def work(connection: sqlite3.Connection) -> int:
            rows = self._queries.sweep_answers(connection, before=time_text(before), limit=limit)
            return len(rows)

        return await self._connections.write(work)
