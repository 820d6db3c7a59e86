"""Where texts hold the words of a query."""

from functools import cached_property

from ahocorasick_rs import AhoCorasick

from app.models import QueryWords
from app.tokens import clues_of, counts_as, in_small_letters, without_signs

Place = tuple[int, int, int]
"""Begin and end of a run of word characters, and which words of the query it counts as, a bit for each."""


class WordPlaces:
    """Finds the words of one query. The first text takes longer: what every text needs is made then."""

    def __init__(self, query: QueryWords) -> None:
        self._query = query
        self._counted: dict[str, int] = {}

    def of(self, text: str) -> list[Place]:
        """Where the text holds words of the query, in order. Looks up only runs with a clue: most have none."""
        padded = f" {without_signs(text)} "
        small = in_small_letters(padded)
        found = []
        end = 0
        for _, at, _ in self._clues.find_matches_as_indexes(small):
            if at < end:
                continue
            begin = small.rfind(" ", 0, at)
            end = small.find(" ", at)
            if counted := self._bits_of(padded[begin + 1 : end]):
                found.append((begin, end - 1, counted))
        return found

    @cached_property
    def _bits(self) -> dict[str, int]:
        return {word: 1 << number for number, word in enumerate({*self._query.words, *self._query.identifiers})}

    @cached_property
    def _clues(self) -> AhoCorasick:
        return AhoCorasick(clues_of(self._query))

    def _bits_of(self, run: str) -> int:
        bits = self._counted.get(run)
        if bits is None:
            bits = sum([self._bits[word] for word in counts_as(run) & self._bits.keys()])
            self._counted[run] = bits
        return bits
