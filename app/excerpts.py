"""A few lines of a memory around what a query asks for."""

from collections.abc import Sequence
from itertools import islice

from app.models import Excerpt, QueryWords
from app.tokens import found_runs, places, words_of

MAX_LINES = 5
MAX_LINE_CHARACTERS = 200
MAX_CODE_CHARACTERS = 16 * 1024
"""Of the code that is looked through."""


def excerpt_of(code: str, query: QueryWords, first_line: int = 1) -> Excerpt:
    """The lines that hold the most different words of the query, or those from `first_line` on if none does.

    Of longer code the beginning is looked through, or what follows `first_line` where the beginning ends before it.
    """
    wanted = {*query.words, *query.identifiers}
    lines, before = _shown(code[:MAX_CODE_CHARACTERS]), 0
    if first_line > len(lines) and len(code) > MAX_CODE_CHARACTERS:
        before = first_line - 1
        lines = _shown("\n".join(islice(code.splitlines(), before, None))[:MAX_CODE_CHARACTERS])
    runs = found_runs("\n".join(lines), wanted)
    found = [words_of(line, runs) if runs else frozenset() for line in lines]
    best, start = 0, max(0, min(first_line - 1 - before, len(lines) - 1))
    for at in range(len(lines)):
        count = len(set().union(*found[at : at + MAX_LINES])) if found[at] else 0
        if count > best:
            best, start = count, at
    text = "\n".join(lines[start : start + MAX_LINES])
    highlights = list(places(text, runs)) if runs else []
    return Excerpt(text=text, first_line=before + start + 1, highlights=highlights)


def _shown(code: str) -> Sequence[str]:
    return [line[:MAX_LINE_CHARACTERS] for line in code.splitlines()] or [""]
