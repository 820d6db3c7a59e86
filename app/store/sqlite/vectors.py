"""Vectors in memory, a matrix for each project: an exact search is one product."""

import threading
from collections.abc import Collection, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.models import MAX_PIECES, Match, MemoryKey, Piece, Vector

INITIAL_ROWS = 256

ROWS_OF_A_MATCH = 4
"""Vectors looked at for each memory wanted, at first: several of them may be pieces of one memory."""


Labels: TypeAlias = Sequence[tuple[MemoryKey, Piece | None]]
"""What vectors stand for."""


class Matrix:
    """The unit vectors of one project: those of whole memories, and of pieces of long ones.

    Rows are appended and marked dead, never moved: when room runs out everything goes to new arrays. So a search that
    runs in a thread keeps seeing the arrays that it began with.
    """

    def __init__(self, dimensions: int) -> None:
        self.rows = np.zeros((INITIAL_ROWS, dimensions), dtype=np.float32)
        self.alive = np.zeros(INITIAL_ROWS, dtype=np.bool_)
        self.labels: list[tuple[MemoryKey, Piece | None]] = []
        self.places: dict[MemoryKey, list[int]] = {}

    def put(self, key: MemoryKey, piece: Piece | None, vector: NDArray[np.floating]) -> None:
        """Adds a vector; that of a whole memory in place of all older ones of that memory."""
        if piece is None:
            self.remove(key)
        if len(self.labels) == len(self.rows):
            self._renew()
        place = len(self.labels)
        wide = vector.astype(np.float32)
        self.rows[place] = wide / np.linalg.norm(wide)
        self.alive[place] = True
        self.labels.append((key, piece))
        self.places.setdefault(key, []).append(place)

    def remove(self, key: MemoryKey) -> None:
        """Takes a memory out of all searches."""
        self.alive[self.places.pop(key, [])] = False

    def shrink(self) -> None:
        """Gives back the room of the dead, if there are more of them than of the living."""
        if len(self.labels) > max(2 * int(np.count_nonzero(self.alive)), INITIAL_ROWS):
            self._renew()

    def _renew(self) -> None:
        """Makes room for as many rows as are alive, and leaves out the dead."""
        places = np.flatnonzero(self.alive)
        rows = np.zeros((max(2 * len(places), INITIAL_ROWS), self.rows.shape[1]), dtype=np.float32)
        rows[: len(places)] = self.rows[places]
        alive = np.zeros(len(rows), dtype=np.bool_)
        alive[: len(places)] = True
        self.labels = [self.labels[place] for place in places]
        self.places = {}
        for place, (key, _) in enumerate(self.labels):
            self.places.setdefault(key, []).append(place)
        self.rows, self.alive = rows, alive


class VectorIndex:
    """All vectors of one model, for any number of threads; `newest` is the last row of the table that is in.

    Rows are brought in by one thread at a time, which holds `catching_up`.
    """

    def __init__(self) -> None:
        self.newest = 0
        self.catching_up = threading.Lock()
        self._matrices: dict[str, Matrix] = {}
        self._lock = threading.Lock()

    def put(self, seq: int, key: MemoryKey, piece: Piece | None, vector: NDArray[np.floating]) -> None:
        """Adds the vector of row `seq`."""
        with self._lock:
            matrix = self._matrices.get(key.project)
            if matrix is None:
                matrix = self._matrices[key.project] = Matrix(len(vector))
            matrix.put(key, piece, vector)
            self.newest = max(self.newest, seq)

    def remove(self, keys: Collection[MemoryKey]) -> None:
        """Takes memories out of all searches."""
        with self._lock:
            touched = {key.project: self._matrices[key.project] for key in keys if key.project in self._matrices}
            for key in keys:
                if key.project in touched:
                    touched[key.project].remove(key)
            for matrix in touched.values():
                matrix.shrink()

    def keys(self) -> list[MemoryKey]:
        """Of all memories that have vectors here."""
        with self._lock:
            return [key for matrix in self._matrices.values() for key in matrix.places]

    def search(
        self, vector: Vector, limit: int, projects: Sequence[str] | None, among: Sequence[MemoryKey] | None
    ) -> list[Match]:
        """The nearest memories of the projects (None: all) by cosine, best first; `among` limits them to some."""
        with self._lock:
            parts = self._parts(projects, among)
        matches = [match for part in parts for match in _best_of_each(*part, vector, limit)]
        matches.sort(key=lambda match: match.score, reverse=True)
        return matches[:limit]

    def _parts(
        self, projects: Sequence[str] | None, among: Sequence[MemoryKey] | None
    ) -> list[tuple[Labels, NDArray[np.float32], NDArray[np.bool_]]]:
        """Of each project what its vectors stand for, the vectors, and which of them count."""
        parts: list[tuple[Labels, NDArray[np.float32], NDArray[np.bool_]]] = []
        for name in dict.fromkeys(self._matrices if projects is None else projects):  # each once
            matrix = self._matrices.get(name)
            if matrix is None:
                continue
            labels, rows, alive = matrix.labels, matrix.rows[: len(matrix.labels)], matrix.alive[: len(matrix.labels)]
            if among is not None:
                chosen = [place for key in among if key.project == name for place in matrix.places.get(key, ())]
                labels, rows, alive = [labels[place] for place in chosen], rows[chosen], alive[chosen]
            parts.append((labels, rows, alive))
        return parts


def _best_of_each(
    labels: Labels,
    rows: NDArray[np.float32],
    alive: NDArray[np.bool_],
    vector: Vector,
    limit: int,
) -> list[Match]:
    """The nearest memories, each with its nearest vector, best first."""
    scores = rows @ vector
    scores[~alive] = -np.inf
    best: dict[MemoryKey, Match] = {}
    for depth in (limit * ROWS_OF_A_MATCH, limit * (MAX_PIECES + 1)):
        best.clear()
        for place in _greatest(scores, depth):
            key, piece = labels[place]
            best.setdefault(key, Match(key, float(scores[place]), piece))
        if len(best) >= limit or depth >= len(scores):
            break
    return list(best.values())[:limit]


def _greatest(scores: NDArray[np.float32], limit: int) -> list[int]:
    """Places of the greatest finite scores, in order."""
    if len(scores) > limit:
        places = np.argpartition(scores, len(scores) - limit)[-limit:]
    else:
        places = np.arange(len(scores))
    places = places[np.argsort(-scores[places], kind="stable")]
    return [int(place) for place in places if scores[place] > -np.inf]
