"""The best of each code among places of a search, looked up in parts."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from app.models import Best, Distinct, Found, Match, MemoryKey, Scope
from app.store.protocol import MemoryStore


class Place(Protocol):
    """A memory with a score."""

    @property
    def key(self) -> MemoryKey:
        """Which memory."""

    @property
    def score(self) -> float:
        """Higher is better."""


P = TypeVar("P", bound=Place)


async def distinct_places(
    store: MemoryStore, scope: Scope, places: Sequence[P], limit: int
) -> list[tuple[P, Distinct]]:
    """The best of each code, newer first among equals, of places that come best first; asks until there are enough."""
    by_code: dict[int, tuple[P, Distinct]] = {}
    size = 2 * limit
    for at in range(0, len(places), size):
        part = {place.key: place for place in places[at : at + size]}
        scores = {key: place.score for key, place in part.items()}
        better = [code for code, (place, _) in by_code.items() if place.score > places[at].score]
        for one in await store.distinct(scope, scores, limit, better):
            found = (part[one.memory.key], one)
            by_code[one.code_hash] = max(by_code.get(one.code_hash, found), found, key=by_score_and_time)
        if len(by_code) >= limit:
            break
    return sorted(by_code.values(), key=by_score_and_time, reverse=True)[:limit]


async def best_of(store: MemoryStore, scope: Scope, matches: Sequence[Match], limit: int) -> Best:
    """The best of what an arm has found, asked for after it."""
    ranks = {match.key: rank for rank, match in enumerate(matches, 1)}
    places = await distinct_places(store, scope, matches, limit)
    return Best([Found(match, ranks[match.key], distinct) for match, distinct in places], len(matches))


def by_score_and_time(found: tuple[Place, Distinct]) -> tuple[float, datetime]:
    """What places are ordered by."""
    place, one = found
    return place.score, one.memory.timestamp
