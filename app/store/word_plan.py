"""Which words of a query are looked up and what each counts for; for both stores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import log
from operator import mul

from app.models import QueryWords

MAX_RANKED = 24
"""The rarest words of a query that the rank is made of."""

MAX_UNKNOWN = 8
"""Words beyond these that no memory held when they were counted; one that was just stored may hold them."""


@dataclass(frozen=True, slots=True)
class WordCounts:
    """How many memories there are, how many words one holds on average, and how many memories hold a word."""

    memories: int
    mean_length: float
    frequencies: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class WordPlan:
    """The words to rank by with their inverse document frequencies, rarest first, and which of them find candidates.

    `rare` are the first of `words`, in no more memories than the limit. If they are in fewer than the budget, the
    memories with `common` (the next word) are wanted too, and among them first those that hold all of `together`.
    """

    words: Sequence[str]
    idfs: Sequence[float]
    rare: Sequence[str]
    common: str | None
    together: Sequence[str]
    mean_length: float

    @property
    def total_idf(self) -> float:
        """What a memory could have at best."""
        return sum(self.idfs)


def distinct_words(query: QueryWords) -> list[str]:
    """All words to be counted for a plan."""
    return list(dict.fromkeys([*query.words, *query.identifiers]))


def plan_words(query: QueryWords, counts: WordCounts, budget: int, limit: int) -> WordPlan:
    """The plan of a query that holds words, for `budget` candidates or more, and `limit` at most."""
    known = {word: counts.frequencies.get(word, 0) for word in distinct_words(query)}
    by_rarity = sorted(known, key=known.__getitem__)
    there = [word for word in by_rarity if known[word]][:MAX_RANKED]
    words = [word for word in by_rarity if not known[word]][:MAX_UNKNOWN] + there
    totals = list(accumulate(known[word] for word in words))
    count = sum(total <= limit for total in totals)
    memories = max(counts.memories, *known.values(), 1)
    enough = count > 0 and totals[count - 1] >= budget
    rest = [] if enough else words[count:]
    return WordPlan(
        words=words,
        idfs=[log(1 + (memories - known[word] + 0.5) / (known[word] + 0.5)) for word in words],
        rare=words[:count],
        common=rest[0] if rest else None,
        together=_together(rest, [known[word] / memories for word in rest], budget / memories),
        mean_length=counts.mean_length,
    )


def _together(words: Sequence[str], shares: Sequence[float], wanted: float) -> Sequence[str]:
    """The first words that stand together in no more than the wanted share of memories, were they independent."""
    together = accumulate(shares, mul)
    return words[: 1 + sum(share > wanted for share in together)] if words else []
