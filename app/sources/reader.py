"""Reads every row of a source once, whatever state the file is in."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from app.errors import SourceError
from app.models import Reject, SourceRow
from app.sources.cells import row_from, shown_id
from app.sources.guarded import MAX_ROW_BYTES, GuardedFile
from app.sources.header import check_header
from app.sources.listing import MIN_ROWID, known_rows
from app.sources.recognise import recognise

WINDOW_ROWS = 1000

BATCH_CHARACTERS = 8 * 1024 * 1024
"""A batch whose texts are together this large gets no more rows."""

BEFORE_ALL = MIN_ROWID - 1
"""No row that can be read has a rowid as low as this."""


def format_of(path: Path) -> str:
    """What wrote a file that nobody writes now, without looking at its rows.

    Raises:
        SourceError: the file is no source; says what was found and what was expected.
    """
    with _refusing():
        check_header(path)
        with closing(GuardedFile(path)) as file:
            return recognise(file).name


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(f"the file cannot be read: {error.strerror}") from error
    except sqlite3.Error as error:
        raise SourceError(f"the file cannot be read: {error}; `sqlite3 FILE .recover` may save it") from error


class Reader:
    """The rows of a file that nobody writes, such as a snapshot; for one thread at a time.

    Which rows there are is found out first, in a damaged file with the help of its indexes, and then each of them comes
    out as a SourceRow or a Reject.

    Raises:
        SourceError: the file is no source; says what was found and what was expected.
    """

    def __init__(self, path: Path, vector_dimensions: int = 384, model: str | None = "all-MiniLM-L6-v2") -> None:
        """Vectors of any other model than `model` are passed over (None: all): a mix could not be searched."""
        self._dimensions = vector_dimensions
        self._model = model
        with _refusing():
            check_header(path)
            self._file = GuardedFile(path)
            try:
                self._format = recognise(self._file)
                self._rowids, self._loss = known_rows(self._file, self._format.listings)
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    @property
    def format(self) -> str:
        """What wrote the file, such as `AI-AfterImage 0.8`."""
        return self._format.name

    @property
    def more_fields(self) -> tuple[str, ...]:
        """Fields of a memory that this kind of file has, besides those that every kind has."""
        return self._format.more_fields

    @property
    def count(self) -> int:
        """How many SourceRows and Rejects there are in all."""
        return len(self._rowids) + (self._loss is not None)

    @cached_property
    def unmapped(self) -> dict[str, int]:
        """Columns that say what a memory has no place for, and in how many rows; the first use reads the whole file.

        Where rows are damaged, those around them are not counted either.
        """
        totals: Counter[str] = Counter()
        for start in range(0, len(self._rowids) if self._format.unmapped else 0, WINDOW_ROWS):
            window = self._rowids[start : start + WINDOW_ROWS]
            with suppress(sqlite3.Error):
                for counts in self._select(self._format.unmapped, int(window[0]), int(window[-1])):
                    totals.update(dict(zip(self._format.unmapped_columns, counts, strict=True)))
        return {column: rows for column, rows in totals.items() if rows}

    def rows(self, after_rowid: int, limit: int) -> list[SourceRow | Reject]:
        """The next rows, ascending by rowid; none after the last. The first are those after `BEFORE_ALL`.

        There are fewer than `limit` where the texts are large, so that a batch needs bounded memory.
        """
        start = int(np.searchsorted(self._rowids, after_rowid, side="right"))
        wanted = self._rowids[start : start + limit].tolist()
        if not wanted:
            return [self._loss] if self._loss and self._loss.rowid > after_rowid else []
        found: dict[int, SourceRow | Reject] = {}
        with suppress(sqlite3.Error):  # rows that are not found together are read singly
            for row in _up_to_size(islice(self._read(wanted[0], wanted[-1]), len(wanted))):
                found[row.rowid] = row
        if list(found) == wanted:  # a damaged file may yield others, or the same again
            return list(found.values())
        return list(_up_to_size(found.get(rowid) or self._read_one(rowid) for rowid in wanted))

    def _read_one(self, rowid: int) -> SourceRow | Reject:
        try:
            for row in self._read(rowid, rowid):
                return row
        except sqlite3.Error as error:
            too_big = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_TOOBIG
            problem = f"a value has more than {MAX_ROW_BYTES:,} bytes" if too_big else str(error)
            return self._read_damaged(rowid, problem)
        return Reject(rowid, None, "the row is lost: an index names it, but the table does not hold it")

    def _read_damaged(self, rowid: int, problem: str) -> SourceRow | Reject:
        """Damage to the vector alone costs no memory: it can be made anew."""
        with suppress(sqlite3.Error):
            for row in self._read(rowid, rowid, with_vector=False):
                return replace(row, vector_problem=f"embedding: {problem}") if isinstance(row, SourceRow) else row
        source_id = None
        with suppress(sqlite3.Error):
            for (cell,) in self._select(self._format.source_id, rowid, rowid):
                source_id = shown_id(cell)
        return Reject(rowid, source_id, f"the row cannot be read: {problem}")

    def _read(self, first: int, last: int, *, with_vector: bool = True) -> Iterator[SourceRow | Reject]:
        for cells in self._select(self._format.rows, first, last, with_vector=with_vector):
            yield row_from(cells, self._format.vector_type, self._dimensions)

    def _select(self, statement: str, first: int, last: int, *, with_vector: bool = True) -> Iterator[tuple[Any, ...]]:
        values = {"first": first, "last": last, "with_vector": with_vector, "model": self._model}
        return self._file.select(statement, values)


def _up_to_size(rows: Iterable[SourceRow | Reject]) -> Iterator[SourceRow | Reject]:
    """The first rows, up to the one with which their texts are large enough for a batch."""
    size = 0
    for row in rows:
        yield row
        if isinstance(row, SourceRow):
            size += len(row.new_code) + len(row.old_code or "") + len(row.context or "")
        if size >= BATCH_CHARACTERS:
            return
