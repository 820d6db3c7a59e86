"""Code-aware words: the same for documents and queries, and for both stores.

An identifier counts as a whole and in parts: `getUserById` and `get_user_by_id` are both the identifier `getuserbyid`
and the words `get`, `user`, `by`, `id`. Parts are reduced to their English stem, identifiers are not.
"""

import re
from functools import lru_cache

import Stemmer

from app.models import QueryWords, Words

MAX_WORD_CHARACTERS = 64
"""Longer runs are encoded data rather than words, and are not indexed."""

MAX_PARTS = 12
"""A run that falls into more parts is a hash or a serial number: only the whole of it is kept."""

MAX_CODE_CHARACTERS = 128 * 1024
MAX_CONTEXT_CHARACTERS = 16 * 1024
"""What is searched by words of one memory; a tsvector holds 1 MiB, into which a new word every two characters fits."""

MAX_QUERY_WORDS = 64
"""Distinct words of a query that are looked up; a longer query, such as a piece of code, is cut."""

_RUN = re.compile(r"\w+")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")

STOP_WORDS = frozenset(
    "a an and are as at be but by can do does for from how i if in into is it its me my of on or so that the their "
    "then there these this to was we were what when where which who why will with you your".split()
)
"""Words that are left out of a query unless nothing else is in it."""


def document_words(file_path: str, code: str, context: str | None) -> Words:
    """The searchable words of a memory, of its first `MAX_CODE_CHARACTERS` and `MAX_CONTEXT_CHARACTERS`."""
    words: list[str] = []
    identifiers: list[str] = []
    for run in _RUN.findall(code[:MAX_CODE_CHARACTERS]):
        parts, identifier = _split(run)
        words += parts
        if identifier is not None:
            identifiers.append(identifier)
    return Words(
        code=words,
        identifiers=identifiers,
        path=_parts_of(file_path),
        context=_parts_of((context or "")[:MAX_CONTEXT_CHARACTERS]),
    )


def query_words(query: str) -> QueryWords:
    """At most `MAX_QUERY_WORDS` words and identifiers; stop words count only where nothing else is asked for."""
    words: dict[str, None] = {}
    common: dict[str, None] = {}
    identifiers: dict[str, None] = {}
    for match in _RUN.finditer(query):
        run = match.group()
        parts, identifier = _split(run)
        kind = common if run.lower() in STOP_WORDS else words
        kind.update(dict.fromkeys(parts))
        if identifier is not None:
            identifiers[identifier] = None
        if len(words) >= MAX_QUERY_WORDS:
            break
    return QueryWords(tuple(words or common)[:MAX_QUERY_WORDS], tuple(identifiers)[:MAX_QUERY_WORDS])


def _parts_of(text: str) -> list[str]:
    return [part for run in _RUN.findall(text) for part in _split(run)[0]]


_stemmer = Stemmer.Stemmer("english")


@lru_cache(maxsize=65536)
def _split(run: str) -> tuple[tuple[str, ...], str | None]:
    """Stemmed parts of a run of word characters, and the whole of it where it is more than one part."""
    parts = _PART.findall(run)
    whole = run.replace("_", "").lower()
    short = len(whole) <= MAX_WORD_CHARACTERS
    if len(parts) > MAX_PARTS or not short:
        return (whole,) if short and whole else (), None
    stems = tuple(_stemmer.stemWord(part.lower()) for part in parts)
    return stems, whole if len(parts) > 1 else None
