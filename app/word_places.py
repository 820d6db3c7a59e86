"""Where texts hold the words of a query."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set

from app.tokens import counts_as, without_signs

MAX_KNOWN_RUNS = 16_384
"""Runs of word characters that are remembered with what they count as; some 20 MB, with their parts."""

Place = tuple[int, int, int]
"""Begin and end of a run of word characters, and the wanted words that it counts as: bit n for the nth."""


def places_of(texts: Sequence[str], wanted: Iterable[str]) -> list[list[Place]]:
    """Of each text where it holds wanted words, in order."""
    bare = [without_signs(text) for text in texts]
    runs = [set(text.split()) for text in bare]
    counted = _vocabulary.words_of(set().union(*runs), wanted)
    return [_places(text, met & counted.keys(), counted) for text, met in zip(bare, runs, strict=True)]


def _places(bare: str, runs: Set[str], words: Mapping[str, int]) -> list[Place]:
    padded = f" {bare} "
    found = []
    for run in runs:
        sought, length, bits = f" {run} ", len(run), words[run]
        begin = padded.find(sought)
        while begin >= 0:
            found.append((begin, begin + length, bits))
            begin = padded.find(sought, begin + length)
    return sorted(found)


class _Vocabulary:
    """Which runs of word characters count as a word, of all that were met: a text has few that are new."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._by_word: defaultdict[str, set[str]] = defaultdict(set)

    def words_of(self, runs: set[str], wanted: Iterable[str]) -> dict[str, int]:
        """Those of the runs that count as wanted words, with the bits of these."""
        if len(self._known) > MAX_KNOWN_RUNS:
            self._known.clear()
            self._by_word.clear()
        for run in runs - self._known:
            self._known.add(run)
            for word in counts_as(run):
                self._by_word[word].add(run)
        found: dict[str, int] = {}
        for number, word in enumerate(wanted):
            for run in runs.intersection(self._by_word.get(word, ())):
                found[run] = found.get(run, 0) | 1 << number
        return found


_vocabulary = _Vocabulary()
