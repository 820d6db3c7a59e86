"""Cuts long code into pieces that a model can read as a whole: functions as far as possible, else windows."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, islice, pairwise

from app.models import MAX_PIECES, MAX_WHOLE_CHARACTERS, Piece
from app.models.values import value

MIN_CHARACTERS = 200
"""Neighbours that are shorter together share a piece."""

OVERLAP_CHARACTERS = 200
"""What a window repeats of the window before, at most."""


@value
class CodePiece:
    """A piece and its text."""

    piece: Piece
    text: str


def cut(code: str) -> list[CodePiece]:
    """The pieces of code that is too long to be embedded as a whole only, in order; none for shorter code.

    Each has at most MAX_WHOLE_CHARACTERS. Together they hold every line that is not blank, unless that takes more than
    MAX_PIECES; then the end is left out.
    """
    if len(code) <= MAX_WHOLE_CHARACTERS:
        return []
    return list(islice(_Cutter(code).pieces(), MAX_PIECES))


class _Cutter:
    """Spans of lines are given by their first line and the line behind their last, from 0."""

    def __init__(self, code: str) -> None:
        self._lines = code.split("\n")
        self._starts = [0, *accumulate(len(line) + 1 for line in self._lines)]

    def pieces(self) -> Iterator[CodePiece]:
        """Functions; where there are too many of them, as many together as fit."""
        blocks = list(self._blocks(0, len(self._lines)))
        spans = self._joined(blocks, MIN_CHARACTERS)
        if len(spans) > MAX_PIECES:
            spans = self._joined(blocks, MAX_WHOLE_CHARACTERS)
        for span in spans:
            yield from self._windows(*span)

    def _blocks(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Spans that fit into a piece, cut at the least indented lines that follow a blank one.

        So the functions of a module part first, then the methods of a class too long, then the paragraphs of a method.
        What has no such line stays longer.
        """
        edges = [] if self._size(start, end) <= MAX_WHOLE_CHARACTERS else self._edges(start, end)
        if not edges:
            yield start, end
            return
        for at, following in pairwise([start, *edges, end]):
            yield from self._blocks(at, following)

    def _edges(self, start: int, end: int) -> list[int]:
        behind_blank = [
            at for at in range(start + 1, end) if self._lines[at].strip() and not self._lines[at - 1].strip()
        ]
        least = min((_indentation(self._lines[at]) for at in behind_blank), default=0)
        return [at for at in behind_blank if _indentation(self._lines[at]) == least]

    def _joined(self, blocks: Sequence[tuple[int, int]], limit: int) -> list[tuple[int, int]]:
        """The blocks, neighbours joined as long as they stay within `limit` characters."""
        spans: list[tuple[int, int]] = []
        for start, end in blocks:
            if spans and self._size(spans[-1][0], end) <= limit:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
        return spans

    def _windows(self, start: int, end: int) -> Iterator[CodePiece]:
        """The span as one piece if it fits, else as overlapping ones; a line too long is cut within."""
        filled = [at for at in range(start, end) if self._lines[at].strip()]
        if not filled:
            return
        at, end = filled[0], filled[-1] + 1
        while at < end:
            last = self._fitting(at, end, MAX_WHOLE_CHARACTERS)
            text = "\n".join(self._lines[at:last])
            for offset in range(0, max(len(text) - OVERLAP_CHARACTERS, 1), MAX_WHOLE_CHARACTERS - OVERLAP_CHARACTERS):
                window = text[offset : offset + MAX_WHOLE_CHARACTERS]
                if window.strip():
                    yield CodePiece(Piece(at + 1, last), window)
                if len(text) <= MAX_WHOLE_CHARACTERS:
                    break
            if last == end:
                return
            at = next((line for line in range(at + 1, last) if self._size(line, last) <= OVERLAP_CHARACTERS), last)

    def _fitting(self, start: int, end: int, limit: int) -> int:
        """The end of as many lines as have at most `limit` characters; of one line at least."""
        last = start + 1
        while last < end and self._size(start, last + 1) <= limit:
            last += 1
        return last

    def _size(self, start: int, end: int) -> int:
        """Characters of the lines with the line breaks between them."""
        return self._starts[end] - self._starts[start] - 1


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())
