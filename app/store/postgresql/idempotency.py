"""Answers to writes that may be repeated, in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from app.errors import OutstandingError
from app.models import NewMemory
from app.store.idempotency import Answer, Outcome, RepeatableRequest
from app.store.postgresql.connections import Connections
from app.store.postgresql.memories import PostgresMemories


class PostgresIdempotency:
    """IdempotencyStore on PostgreSQL."""

    def __init__(self, connections: Connections, queries: Any, memories: PostgresMemories) -> None:
        self._connections = connections
        self._queries = queries
        self._memories = memories

    async def find(self, owner: str, key: str) -> tuple[Answer, bytes] | None:
        """See IdempotencyStore."""
        async with self._connections.acquire() as connection:
            row = await self._queries.find_answer(connection, owner=owner, key=key)
        if row is None:
            return None
        return Answer(row["status"], row["body"], row["memory_id"], replayed=True), row["fingerprint"]

    async def add(
        self,
        request: RepeatableRequest,
        new: Sequence[NewMemory],
        embed_after: datetime,
        now: datetime,
        outcome: Outcome,
    ) -> Answer:
        """See IdempotencyStore. The answer goes in last: until then nobody waits for this transaction."""
        async with self._connections.transaction(keep_plans=True) as connection:
            stored = await self._memories.add_on(connection, new, len(new) * [embed_after])
            others = [row.memory.key for row in new if row.memory.key not in stored]
            there = await self._memories.get_on(connection, others) if others else {}
            answer, keep = outcome(stored, there)
            if keep and not await self._queries.keep_answer(
                connection,
                owner=request.owner,
                key=request.key,
                fingerprint=request.fingerprint,
                status=answer.status,
                memory_id=answer.memory_id,
                body=answer.body,
                now=now,
            ):
                raise OutstandingError(request.key)
        return answer

    async def sweep(self, before: datetime, limit: int) -> int:
        """See IdempotencyStore."""
        async with self._connections.acquire() as connection:
            return len([row async for row in self._queries.sweep_answers(connection, before=before, limit=limit)])
