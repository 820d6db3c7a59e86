"""Which rows a table should have, found also where it is damaged."""

import sqlite3
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.models import Reject
from app.sources.guarded import GuardedFile

MIN_ROWID = 1 - 2**63
MAX_ROWID = 2**63 - 2
"""SQLite has one more on either side; there an import begins, and there it notes what is lost."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The rowids that one walk found; `problem` says why it ended early."""

    rowids: NDArray[np.int64]
    problem: str | None


def known_rows(file: GuardedFile, listings: Sequence[str]) -> tuple[NDArray[np.int64], Reject | None]:
    """The rowids there should be, ascending, and one Reject for all rows beyond these, if there are any.

    A damaged table may end early without an error, so its walk is compared with its key's; where they disagree, every
    index is asked.

    Raises:
        sqlite3.Error: not a single row can be found.
    """
    walked = [_walk(file, listing) for listing in listings[:2]]
    if any(listing.problem for listing in walked) or not np.array_equal(walked[0].rowids, np.sort(walked[1].rowids)):
        walked += [_walk(file, listing) for listing in listings[2:]]
    rowids = np.unique(np.concatenate([listing.rowids for listing in walked]))
    usable = rowids[(rowids >= MIN_ROWID) & (rowids <= MAX_ROWID)]
    losses = []
    if not any(listing.problem is None and len(np.unique(listing.rowids)) == len(rowids) for listing in walked):
        problem = walked[0].problem or "its indexes disagree"
        if len(usable) == 0:
            raise sqlite3.DatabaseError(problem)
        losses.append(f"the table is damaged ({problem}): it may have lost more rows, which no index names")
    if len(usable) < len(rowids):
        outside = len(rowids) - len(usable)
        losses.append(f"{outside} rows stand under a rowid that is not in {MIN_ROWID} to {MAX_ROWID}")
    after = int(usable[-1]) + 1 if len(usable) else 1
    return usable, Reject(after, None, "; ".join(losses)) if losses else None


def _walk(file: GuardedFile, statement: str) -> Listing:
    rowids = array("q")
    problem = None
    try:
        for (rowid,) in file.select(statement):
            rowids.append(rowid)
            if len(rowids) > file.max_entries:
                problem = "its pages form a circle"
                break
    except sqlite3.Error as error:
        problem = str(error)
    return Listing(np.array(rowids, dtype=np.int64), problem)
