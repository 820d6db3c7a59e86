"""A few lines of a memory around what a query asks for."""

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from app.models import Excerpt
from app.word_places import WordPlaces

MAX_LINES = 5
MAX_LINE_CHARACTERS = 200
MAX_CODE_CHARACTERS = 16 * 1024
"""Of the code that is looked through."""


def excerpt_of(code: str, first_line: int, words: WordPlaces) -> Excerpt:
    """The lines that hold the most different words of the query, or those from that line (from 1) on if none does.

    Of longer code the beginning is looked through, or what follows that line where the beginning ends before it.
    """
    lines, before, start = _looked_through(code, first_line)
    text = "\n".join(lines)
    places = words.of(text)
    found: dict[int, int] = {}
    line = counted = most = 0
    for begin, _, bits in places:
        line += text.count("\n", counted, begin)
        counted = begin
        found[line] = found.get(line, 0) | bits
    for first in found:
        together = 0
        for at in range(first, first + MAX_LINES):
            together |= found.get(at, 0)
        if together.bit_count() > most:
            most, start = together.bit_count(), first
    shown = "\n".join(lines[start : start + MAX_LINES])
    begins = sum(map(len, lines[:start])) + start
    ends = begins + len(shown)
    return Excerpt(
        text=shown,
        first_line=before + start + 1,
        highlights=[(begin - begins, end - begins) for begin, end, _ in places if begins <= begin < ends],
    )


class _Part(NamedTuple):
    """Lines of code, how many there are before them, and the index of the first to show if no word is found."""

    lines: Sequence[str]
    before: int
    start: int


def _looked_through(code: str, first_line: int) -> _Part:
    lines = _shown(code[:MAX_CODE_CHARACTERS])
    if first_line > len(lines) and len(code) > MAX_CODE_CHARACTERS:
        rest = "\n".join(islice(code.splitlines(), first_line - 1, None))
        return _Part(_shown(rest[:MAX_CODE_CHARACTERS]), first_line - 1, 0)
    return _Part(lines, 0, max(0, min(first_line, len(lines)) - 1))


def _shown(code: str) -> Sequence[str]:
    return [line[:MAX_LINE_CHARACTERS] for line in code.splitlines()] or [""]
