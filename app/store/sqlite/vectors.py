"""Vectors in memory, a matrix for each project: an exact search is one product."""

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.models import Match, MemoryKey, Vector

INITIAL_ROWS = 256


class Matrix:
    """The unit vectors of one project.

    Rows are appended and marked dead, never moved: when room runs out everything goes to new arrays. So a search that
    runs in a thread keeps seeing the arrays that it began with.
    """

    def __init__(self, dimensions: int) -> None:
        self.rows = np.zeros((INITIAL_ROWS, dimensions), dtype=np.float32)
        self.alive = np.zeros(INITIAL_ROWS, dtype=np.bool_)
        self.keys: list[MemoryKey] = []
        self.places: dict[MemoryKey, int] = {}

    def put(self, key: MemoryKey, vector: NDArray[np.floating]) -> None:
        """Adds a vector in place of an older one of the same memory."""
        self.remove(key)
        if len(self.keys) == len(self.rows):
            self._renew()
        place = len(self.keys)
        wide = vector.astype(np.float32)
        self.rows[place] = wide / np.linalg.norm(wide)
        self.alive[place] = True
        self.keys.append(key)
        self.places[key] = place

    def remove(self, key: MemoryKey) -> None:
        """Takes a memory out of all searches."""
        place = self.places.pop(key, None)
        if place is not None:
            self.alive[place] = False

    def _renew(self) -> None:
        """Makes room for as many rows as are alive, and leaves out the dead."""
        places = np.flatnonzero(self.alive)
        rows = np.zeros((max(2 * len(places), INITIAL_ROWS), self.rows.shape[1]), dtype=np.float32)
        rows[: len(places)] = self.rows[places]
        alive = np.zeros(len(rows), dtype=np.bool_)
        alive[: len(places)] = True
        self.keys = [self.keys[place] for place in places]
        self.places = {key: place for place, key in enumerate(self.keys)}
        self.rows, self.alive = rows, alive


class VectorIndex:
    """All vectors of one model; `newest` is the last row of the table that is in."""

    def __init__(self) -> None:
        self.newest = 0
        self._matrices: dict[str, Matrix] = {}

    def put(self, seq: int, key: MemoryKey, vector: NDArray[np.floating]) -> None:
        """Adds the vector of row `seq`."""
        matrix = self._matrices.get(key.project)
        if matrix is None:
            matrix = self._matrices[key.project] = Matrix(len(vector))
        matrix.put(key, vector)
        self.newest = max(self.newest, seq)

    def remove(self, key: MemoryKey) -> None:
        """Takes a memory out of all searches."""
        if key.project in self._matrices:
            self._matrices[key.project].remove(key)

    async def search(
        self, vector: Vector, limit: int, projects: Sequence[str] | None, among: Sequence[MemoryKey] | None
    ) -> list[Match]:
        """The nearest memories of the projects (None: all) by cosine, best first; `among` limits them to some."""
        names = list(self._matrices) if projects is None else [name for name in projects if name in self._matrices]
        matches: list[Match] = []
        for name in names:
            matrix = self._matrices[name]
            keys, rows, alive = matrix.keys, matrix.rows[: len(matrix.keys)], matrix.alive[: len(matrix.keys)]
            if among is None:
                nearest = await asyncio.to_thread(_nearest, rows, alive, vector, limit)
            else:
                chosen = (matrix.places.get(key) for key in among if key.project == name)
                places = np.array([place for place in chosen if place is not None], dtype=np.intp)
                part = await asyncio.to_thread(_nearest, rows[places], alive[places], vector, limit)
                nearest = [(int(places[place]), score) for place, score in part]
            matches += [Match(keys[place], score) for place, score in nearest]
        matches.sort(key=lambda match: match.score, reverse=True)
        return matches[:limit]


def _nearest(
    rows: NDArray[np.float32], alive: NDArray[np.bool_], vector: Vector, limit: int
) -> list[tuple[int, float]]:
    """Places of the living rows with the greatest cosine, and the cosine, best first."""
    scores = rows @ vector
    scores[~alive] = -np.inf
    if len(scores) > limit:
        places = np.argpartition(scores, len(scores) - limit)[-limit:]
    else:
        places = np.arange(len(scores))
    places = places[np.argsort(-scores[places], kind="stable")]
    return [(int(place), float(scores[place])) for place in places if scores[place] > -np.inf]
