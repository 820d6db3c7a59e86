"""Where texts hold the words of a query."""

from collections.abc import Sequence
from functools import cache

from ahocorasick_rs import AhoCorasick, Implementation

from app.models import QueryWords
from app.tokens import clues_of, counts_as, in_small_letters, without_signs

Place = tuple[int, int, int]
"""Begin and end of a run of word characters, and which words of the query it counts as, a bit for each."""


def places_of(texts: Sequence[str], query: QueryWords) -> list[list[Place]]:
    """Of each text where it holds words of the query, in order."""
    bits = {word: 1 << number for number, word in enumerate({*query.words, *query.identifiers})}
    clues = AhoCorasick(clues_of(query), implementation=Implementation.NoncontiguousNFA)

    @cache
    def bits_of(run: str) -> int:
        return sum([bits[word] for word in counts_as(run) & bits.keys()])

    def places(text: str) -> list[Place]:
        """Looks up only runs with a clue: most have none."""
        padded = f" {without_signs(text)} "
        small = in_small_letters(padded)
        found = []
        end = 0
        for _, at, _ in clues.find_matches_as_indexes(small):
            if at < end:
                continue
            begin = small.rfind(" ", 0, at)
            end = small.find(" ", at)
            if counted := bits_of(padded[begin + 1 : end]):
                found.append((begin, end - 1, counted))
        return found

    return [places(text) for text in texts]
