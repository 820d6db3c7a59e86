"""Memories in SQLite."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from app.models import (
    MAX_WHOLE_CHARACTERS,
    Best,
    Distinct,
    EmbeddingStats,
    EmbeddingStatus,
    Match,
    Memory,
    MemoryKey,
    NewMemory,
    Piece,
    QueryWords,
    Scope,
    Stats,
    Vector,
    VectorIndexKind,
    VectorIndexState,
    VectorIndexStats,
    Words,
)
from app.store.distinct import best_of
from app.store.embedding_protocol import ModelsInUse
from app.store.group_commit import GroupCommit
from app.store.protocol import MAX_COPIES, NO_WORDS, Position
from app.store.sqlite.connections import SqliteConnections
from app.store.sqlite.values import (
    keys_json,
    projects_json,
    scope_values,
    time_from,
    time_text,
    vector_bytes,
    vector_from,
)
from app.store.sqlite.vectors import VectorIndex
from app.store.sqlite.words import excluded, required, search_words
from app.store.sqlite.work_connection import Work

EXACT = VectorIndexStats(VectorIndexKind.EXACT, VectorIndexState.NONE)
"""Every search compares all vectors, in memory."""


class SqliteMemories:
    """MemoryStore on SQLite."""

    def __init__(self, connections: SqliteConnections, queries: Any) -> None:
        self._connections = connections
        self._queries = queries
        self._indexes: dict[str, VectorIndex] = {}
        self._singles = GroupCommit(self._add_together, at_most=1)

    def indexed(self, words: Words) -> str | None:
        """See MemoryStore; here there is nothing to make ready."""

    async def add(self, new: Sequence[NewMemory], embed_after: datetime) -> set[MemoryKey]:
        """See MemoryStore."""
        if len(new) == 1:
            return await self._singles.add(new[0], embed_after)
        return await self._add_together(new, len(new) * [embed_after])

    async def _add_together(self, new: Sequence[NewMemory], embed_after: Sequence[datetime]) -> set[MemoryKey]:
        return await self._connections.write(lambda connection: self.add_on(connection, new, embed_after))

    def add_on(
        self, connection: sqlite3.Connection, new: Sequence[NewMemory], embed_after: Sequence[datetime]
    ) -> set[MemoryKey]:
        """As `add`, with a time for each row, within a transaction of the caller's."""
        queries = self._queries
        wanted = {row.memory.key: (row, after) for row, after in zip(new, embed_after, strict=True)}
        present = {key_from(row) for row in queries.present_keys(connection, keys=keys_json(wanted))}
        timed = [one for key, one in wanted.items() if key not in present]
        if not timed:
            return set()
        rows = [row for row, _ in timed]
        queries.add_memories(connection, [_memory_values(row.memory) for row in rows])
        queries.add_words(connection, [_word_values(row) for row in rows])
        used = ModelsInUse(**queries.get_models(connection))
        embedded = [
            {"vector": vector_bytes(row.vector), **_place(row, row.model or used.target)}
            for row in rows
            if row.vector is not None and (row.model or used.target) in used.names
        ]
        if embedded:
            queries.save_vectors(connection, embedded)
            queries.queue_pieces(connection, [{"max_whole": MAX_WHOLE_CHARACTERS, **row} for row in embedded])
        pending = [
            {"due_at": time_text(after), **_place(row, model)}
            for row, after in timed
            for model in used.names
            if row.vector is None or model != (row.model or used.target)
        ]
        if pending:
            queries.queue_embeddings(connection, pending)
        return {row.memory.key for row in rows}

    async def get(self, keys: Sequence[MemoryKey]) -> dict[MemoryKey, Memory]:
        """See MemoryStore."""
        return await self._connections.read(lambda connection: self.get_on(connection, keys))

    def get_on(self, connection: sqlite3.Connection, keys: Iterable[MemoryKey]) -> dict[MemoryKey, Memory]:
        """As `get`, within a transaction of the caller's."""
        rows = self._queries.get_memories(connection, keys=keys_json(keys))
        return {memory.key: memory for memory in map(memory_from, rows)}

    async def find(self, memory_id: UUID, projects: Sequence[str] | None) -> list[Memory]:
        """See MemoryStore."""

        def work(connection: sqlite3.Connection) -> list[Memory]:
            rows = self._queries.find_memories(connection, id=str(memory_id), projects=projects_json(projects))
            return [memory_from(row) for row in rows]

        return await self._connections.read(work)

    async def page(self, scope: Scope, limit: int, after: Position | None, *, may_lag: bool = False) -> list[Memory]:
        """See MemoryStore; nothing lags here."""
        del may_lag

        def work(connection: sqlite3.Connection) -> list[Memory]:
            rows = self._queries.list_memories(
                connection,
                **scope_values(scope),
                after_timestamp=time_text(after.timestamp) if after else None,
                after_project=after.project if after else None,
                after_id=str(after.id) if after else None,
                limit=limit,
            )
            return [memory_from(row) for row in rows]

        return await self._connections.read(work)

    async def delete(self, key: MemoryKey) -> bool:
        """See MemoryStore."""
        place = {"project": key.project, "id": str(key.id)}
        return await self.delete_all(lambda connection: self._queries.delete_memory(connection, **place)) > 0

    async def delete_all(self, delete: Work[Iterable[Any]]) -> int:
        """Deletes what a statement does, which answers `seq`, `project` and `id` of each; answers how many."""
        forgotten: list[MemoryKey] = []

        def work(connection: sqlite3.Connection) -> int:
            rows = list(delete(connection))
            self._queries.delete_words(connection, [{"seq": row["seq"]} for row in rows])
            # Before the commit: behind it the same id may come again, with another vector.
            forgotten.extend(map(key_from, rows))
            for index in list(self._indexes.values()):  # a search may add one meanwhile
                index.remove(forgotten)
            return len(rows)

        try:
            return await self._connections.write(work)
        except BaseException:
            if forgotten:  # and perhaps still there: all vectors are read again
                self._indexes = {}
            raise

    def keep_vectors_of(self, models: Sequence[str]) -> None:
        """Takes the vectors of all other models out of memory."""
        self._indexes = {model: index for model, index in self._indexes.items() if model in models}

    async def load_vectors(self, model: str) -> None:
        """Brings the vectors of a model into memory before the first search does."""
        index = self._indexes.setdefault(model, VectorIndex())
        await self._connections.read(lambda connection: self._catch_up(connection, index, model))

    async def search_words(self, scope: Scope, query: QueryWords, limit: int) -> list[Match]:
        """See MemoryStore."""
        return await self._connections.read(
            lambda connection: search_words(connection, self._queries, scope, query, limit)
        )

    async def refresh_frequencies(self) -> int:
        """See MemoryStore: FTS5 counts with each write."""
        return 0

    async def merge_words(self) -> int:
        """See MemoryStore: FTS5 merges with each write."""
        return 0

    async def distinct(
        self, scope: Scope, scores: Mapping[MemoryKey, float], limit: int, known: Sequence[int] = ()
    ) -> list[Distinct]:
        """See MemoryStore."""
        scored = json.dumps([[key.project, str(key.id), score] for key, score in scores.items()])

        def work(connection: sqlite3.Connection) -> list[Distinct]:
            rows = self._queries.distinct_memories(
                connection,
                **scope_values(scope),
                scored=scored,
                known=json.dumps(list(known)),
                limit=limit,
                limit_copies=MAX_COPIES,
            )
            return [
                Distinct(
                    memory_from(row), row["code_hash"], row["copies"], datetime.fromisoformat(row["last_timestamp"])
                )
                for row in rows
            ]

        return await self._connections.read(work)

    async def search_vectors(
        self, scope: Scope, vector: Vector, model: str, limit: int, words: QueryWords = NO_WORDS
    ) -> list[Match]:
        """See MemoryStore."""
        index = self._indexes.setdefault(model, VectorIndex())

        def work(connection: sqlite3.Connection) -> list[Match]:
            self._catch_up(connection, index, model)
            among = None
            if not scope.is_of_whole_projects or words.required or words.excluded:
                rows = self._queries.search_vectors_filtered(
                    connection, **scope_values(scope), required=required(words), excluded=excluded(words)
                )
                among = [key_from(row) for row in rows]
            matches = index.search(vector, limit, scope.projects, among)
            if self._leave_out_deleted(connection, index, [match.key for match in matches]):
                with index.catching_up:  # none is put in between the question and the answer
                    self._leave_out_deleted(connection, index, index.keys())  # perhaps a whole import
                matches = index.search(vector, limit, scope.projects, among)
            return matches

        return await self._connections.read(work)

    def _leave_out_deleted(
        self, connection: sqlite3.Connection, index: VectorIndex, keys: Collection[MemoryKey]
    ) -> bool:
        """Takes those of the keys out of the index that another process has deleted; True if there are some."""
        present = {key_from(row) for row in self._queries.present_keys(connection, keys=keys_json(keys))}
        gone = set(keys) - present
        index.remove(gone)
        return bool(gone)

    async def best_by_vectors(
        self, scope: Scope, vector: Vector, model: str, limit: int, candidates: int, words: QueryWords = NO_WORDS
    ) -> Best:
        """See MemoryStore."""
        return await best_of(self, scope, await self.search_vectors(scope, vector, model, candidates, words), limit)

    async def stats(self, projects: Sequence[str] | None, model: str) -> Stats:
        """See MemoryStore."""
        row = await self._connections.read(
            lambda connection: self._queries.stats(connection, projects=projects_json(projects), model=model)
        )
        return Stats(
            backend_type="sqlite",
            total_entries=row["total"],
            entries_with_embeddings=row["embedded"],
            unique_files=row["files"],
            unique_sessions=row["sessions"],
            oldest_entry=time_from(row["oldest"]),
            newest_entry=time_from(row["newest"]),
            db_size_bytes=row["size_bytes"],
            embedding=EmbeddingStats(
                model=model,
                dimensions=row["dimensions"],
                pending=row["total"] - row["embedded"] - row["given_up"],  # also what is not queued yet
                failed=row["given_up"],
                pieces_pending=row["pieces_pending"],
                index=EXACT,
            ),
        )

    def _catch_up(self, connection: sqlite3.Connection, index: VectorIndex, model: str) -> None:
        """Brings vectors into memory that were stored since the last search, by this process or another."""
        with index.catching_up:
            for row in self._queries.search_vectors(connection, model=model, after=index.newest):
                piece = None if row["first_line"] is None else Piece(row["first_line"], row["last_line"])
                index.put(row["seq"], key_from(row), piece, vector_from(row["embedding"]))


def key_from(row: Any) -> MemoryKey:
    """The key of a row."""
    return MemoryKey(row["project"], UUID(row["id"]))


def memory_from(row: Any) -> Memory:
    """The one place where a row becomes a memory."""
    status = EmbeddingStatus.READY
    if row["queued"]:
        status = EmbeddingStatus.FAILED if row["due_at"] is None else EmbeddingStatus.PENDING
    return Memory(
        id=UUID(row["id"]),
        project=row["project"],
        file_path=row["file_path"],
        new_code=row["new_code"],
        old_code=row["old_code"],
        context=row["context"],
        session_id=row["session_id"],
        agent_id=row["agent_id"],
        language=row["language"],
        timestamp=datetime.fromisoformat(row["timestamp"]),
        created_at=datetime.fromisoformat(row["created_at"]),
        embedding_status=status,
        import_id=UUID(row["import_id"]) if row["import_id"] else None,
    )


def _memory_values(memory: Memory) -> dict[str, Any]:
    return {
        "project": memory.project,
        "id": str(memory.id),
        "file_path": memory.file_path,
        "new_code": memory.new_code,
        "old_code": memory.old_code,
        "context": memory.context,
        "session_id": memory.session_id,
        "agent_id": memory.agent_id,
        "language": memory.language,
        "timestamp": time_text(memory.timestamp),
        "created_at": time_text(memory.created_at),
        "import_id": str(memory.import_id) if memory.import_id else None,
    }


def _place(row: NewMemory, model: str) -> dict[str, Any]:
    return {"project": row.memory.project, "id": str(row.memory.id), "model": model}


def _word_values(row: NewMemory) -> dict[str, Any]:
    return {
        "project": row.memory.project,
        "id": str(row.memory.id),
        "code": " ".join(row.words.code),
        "identifiers": " ".join(row.words.identifiers),
        "names": " ".join(row.words.names),
        "path": " ".join(row.words.path),
        "context": " ".join(row.words.context),
    }
