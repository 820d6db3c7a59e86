"""Where texts hold the words of a query."""

from collections.abc import Mapping, Sequence, Set

from app.tokens import counts_as, without_signs

Place = tuple[int, int, int]
"""Begin and end of a run of word characters, and which wanted words it counts as, a bit for each."""


def places_of(texts: Sequence[str], wanted: Set[str]) -> list[list[Place]]:
    """Of each text where it holds wanted words, in order."""
    bits = {word: 1 << number for number, word in enumerate(wanted)}
    bare = [without_signs(text) for text in texts]
    runs = [set(text.split()) for text in bare]
    met = list(set().union(*runs))
    bits_of = {
        run: sum([bits[word] for word in words & wanted])
        for run, words in zip(met, map(counts_as, met), strict=True)
        if not wanted.isdisjoint(words)
    }
    return [_places(text, some & bits_of.keys(), bits_of) for text, some in zip(bare, runs, strict=True)]


def _places(bare: str, runs: Set[str], bits_of: Mapping[str, int]) -> list[Place]:
    padded = f" {bare} "
    found = []
    for run in runs:
        sought, length, bits = f" {run} ", len(run), bits_of[run]
        begin = padded.find(sought)
        while begin >= 0:
            found.append((begin, begin + length, bits))
            begin = padded.find(sought, begin + length)
    return sorted(found)
