"""A few lines of a memory around what a query asks for."""

from collections.abc import Sequence
from itertools import islice

from app.models import Excerpt, QueryWords
from app.tokens import found_runs, places

MAX_LINES = 5
MAX_LINE_CHARACTERS = 200
MAX_CODE_CHARACTERS = 16 * 1024
"""Of the code that is looked through."""


def excerpt_of(code: str, query: QueryWords, first_line: int = 1) -> Excerpt:
    """The lines that hold the most different words of the query, or those from `first_line` on if none does.

    Of longer code the beginning is looked through, or what follows `first_line` where the beginning ends before it.
    """
    lines, before = _shown(code[:MAX_CODE_CHARACTERS]), 0
    if first_line > len(lines) and len(code) > MAX_CODE_CHARACTERS:
        before = first_line - 1
        lines = _shown("\n".join(islice(code.splitlines(), before, None))[:MAX_CODE_CHARACTERS])
    text = "\n".join(lines)
    runs = found_runs(text, {*query.words, *query.identifiers})
    highlights = places(text, runs)
    found: dict[int, set[str]] = {}
    line = counted = 0
    for begin, end in highlights:
        line += text.count("\n", counted, begin)
        counted = begin
        found.setdefault(line, set()).update(runs[text[begin:end]])
    best, start = 0, max(0, min(first_line - 1 - before, len(lines) - 1))
    for at in found:
        count = len(set().union(*[found[line] for line in range(at, at + MAX_LINES) if line in found]))
        if count > best:
            best, start = count, at
    shown = "\n".join(lines[start : start + MAX_LINES])
    first = sum(map(len, lines[:start])) + start
    last = first + len(shown)
    return Excerpt(
        text=shown,
        first_line=before + start + 1,
        highlights=[(begin - first, end - first) for begin, end in highlights if first <= begin < last],
    )


def _shown(code: str) -> Sequence[str]:
    return [line[:MAX_LINE_CHARACTERS] for line in code.splitlines()] or [""]
