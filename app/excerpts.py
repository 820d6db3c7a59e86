"""A few lines of a memory around what a query asks for."""

from app.models import Excerpt, QueryWords
from app.tokens import found_words

MAX_LINES = 5
MAX_LINE_CHARACTERS = 200
MAX_CODE_CHARACTERS = 32 * 1024
"""Of the code that is looked through."""


def excerpt_of(code: str, query: QueryWords, first_line: int = 1) -> Excerpt:
    """The lines that hold the most different words of the query, or those from `first_line` on if none does."""
    lines = [line[:MAX_LINE_CHARACTERS] for line in code[:MAX_CODE_CHARACTERS].splitlines()] or [""]
    wanted = {*query.words, *query.identifiers}
    found = [{word for words, _, _ in found_words(line) for word in words if word in wanted} for line in lines]
    best, start = 0, min(first_line - 1, len(lines) - 1)
    for at in range(len(lines)):
        count = len(set().union(*found[at : at + MAX_LINES]))
        if found[at] and count > best:
            best, start = count, at
    chosen = lines[start : start + MAX_LINES]
    text = "\n".join(chosen)
    highlights = [(begin, end) for words, begin, end in found_words(text) if not wanted.isdisjoint(words)]
    return Excerpt(text=text, first_line=start + 1, highlights=highlights)
