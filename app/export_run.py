"""One export: from a store to an AI-AfterImage file."""

import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

from app.ai_afterimage_file import AiAfterImageFile
from app.embedding import minilm
from app.errors import UnavailableError
from app.languages import language_of
from app.models import ExportCounts, Memory, Progress, Scope
from app.own_thread import OwnThread
from app.store.protocol import Position, Store

PAGE_ROWS = 500

MAX_SAME_TIME = 10_000
"""So many memories of one time are put in order; more are in order by parts."""

DEFAULT_PROJECT = "default"


class ExportRun:
    """Walks through the memories from new to old and writes each; its attributes say how far it is.

    Nothing is locked meanwhile: what is there from the beginning to the end is in the file exactly once, what is stored
    or deleted during the walk may be in it or not. Memory does not grow with the number of memories.
    """

    def __init__(self, store: Store, path: Path, projects: Sequence[str] | None, *, overwrite: bool = False) -> None:
        """Without `projects` all are written."""
        self._store = store
        self._path = path
        self._scope = Scope(projects=projects)
        self._overwrite = overwrite
        self._thread = OwnThread("export")
        self._began = time.monotonic()
        self._total: int | None = None
        self.counts = ExportCounts()
        self.not_carried_over: Counter[str] = Counter()

    async def run(self) -> None:
        """Writes the file; it comes into being whole or not at all.

        Raises:
            ConflictError: it is there already, or in use.
            InvalidInputError: its folder is not there or may not be written.
            UnavailableError: the disk is full, or the store does not answer.
        """
        try:
            await self._write()
        except (OSError, sqlite3.Error) as error:
            raise UnavailableError(
                f"{self._path} could not be written: {error}; make room on that disk, or name a file on another"
            ) from error
        finally:
            self._thread.stop()

    async def _write(self) -> None:
        opened = self._thread.opened(partial(AiAfterImageFile, self._path, overwrite=self._overwrite))
        async with opened as file:
            self._total = (await self._store.memories.stats(self._scope.projects, minilm.MODEL)).total_entries
            async for memories in self._in_order():
                vectors = await self._store.embeddings.vectors(minilm.MODEL, [memory.key for memory in memories])
                entries = [(memory, vectors.get(memory.key)) for memory in memories]
                self.counts = await self._thread.run(partial(file.add, entries))
                self._note(memories)
            await self._thread.run(file.finish)

    @property
    def progress(self) -> Progress:
        """How far it is."""
        done = self.counts.written + self.counts.failed
        total = max(self._total or 0, done)
        seconds = time.monotonic() - self._began
        rate = done / seconds if done and seconds else None
        return Progress(
            processed=done,
            total=total,
            percent=round(100 * done / total, 1) if total else 100.0 * (self._total is not None),
            rows_per_second=round(rate, 1) if rate else None,
            eta_seconds=round((total - done) / rate, 1) if rate else None,
        )

    async def _in_order(self) -> AsyncIterator[list[Memory]]:
        """All memories, from new to old, but those of one time by project and id.

        These may claim the same place in the file, and the microseconds that part them then follow their order.
        """
        held: list[Memory] = []
        after = None
        while page := await self._store.memories.page(self._scope, PAGE_ROWS, after):
            last = page[-1]
            after = Position(last.timestamp, last.project, last.id)
            held += page
            whole = [memory for memory in held if memory.timestamp != last.timestamp]
            if whole or len(held) >= MAX_SAME_TIME:
                whole = whole or held
                held = held[len(whole) :]
                yield _ordered(whole)
        if held:
            yield _ordered(held)

    def _note(self, memories: Sequence[Memory]) -> None:
        """Counts what the file has no place for, and an import of it could not restore."""
        for memory in memories:
            self.not_carried_over["project"] += memory.project != DEFAULT_PROJECT
            self.not_carried_over["agent_id"] += memory.agent_id is not None
            self.not_carried_over["language"] += memory.language != language_of(memory.file_path)


def _ordered(memories: list[Memory]) -> list[Memory]:
    by_key = sorted(memories, key=lambda memory: memory.key)
    return sorted(by_key, key=lambda memory: memory.timestamp, reverse=True)
