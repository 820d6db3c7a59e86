"""Code-aware words: the same for documents and queries, and for both stores.

An identifier counts as a whole and in parts: `getUserById` and `get_user_by_id` are both the identifier `getuserbyid`
and the words `get`, `user`, `by`, `id`. Parts are reduced to their English stem, identifiers are not. What a piece of
code defines counts once more, as its names.
"""

import re
from collections.abc import Iterator, Set
from functools import lru_cache
from itertools import islice, pairwise

import Stemmer
from ahocorasick_rs import AhoCorasick

from app.models import QueryWords, Words

MAX_WORD_CHARACTERS = 64
"""Longer runs are encoded data rather than words, and are not indexed."""

MAX_PARTS = 12
"""A run that falls into more parts is a hash or a serial number: only the whole of it is kept."""

MAX_NAMES = 64
"""Definitions of a memory whose names are kept; more are in none but generated code."""

MAX_CODE_BYTES = 128 * 1024
MAX_CONTEXT_BYTES = 16 * 1024
"""What is searched by words of one memory, of its UTF-8. A tsvector holds 1 MiB; a word takes its bytes and some
twelve more, and stands there twice at most, as a part and as a whole."""

MAX_QUERY_WORDS = 256
"""Distinct words of a query that are looked up; a longer query, such as a piece of code, is cut."""

MAX_DEMANDS = 8
"""Phrases, and excluded words, of a query that are heeded."""

MAX_IDENTIFIER_CHARACTERS = 200
"""A longer query is no identifier."""

NAME_MARK = "="
"""Begins the word that stands for a name that is defined; no other word holds it."""

_RUN = re.compile(r"\w+")
_ASCII_RUNS = {code: chr(code) if _RUN.match(chr(code)) else " " for code in range(128)}
"""Parts ASCII text at what `_RUN` leaves out, in half the time."""

_SIGN = re.compile(r"[^\w ]")

_SMALL = str.maketrans({"\u0130": "i", "\u03a3": "\u03c3", "\u03c2": "\u03c3"})
"""I with a dot, whose small form is two characters, and Sigma, whose small form depends on what follows."""

_NOT_SHARED = {"e": 2, "i": 1, "l": 1, "y": 1}
"""How many letters at the end of a stem may be others in its word, by the last of them: Porter2 makes `die` of `dying`,
`queri` of `query`, `possibl` of `possibility` and `sky` of `skies`."""

_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")

_KEYWORD_DEFINITION = (
    r"\b(?:def|class|func(?:[ \t]{0,4}\([^()\n]{0,100}\))?|function\*?|fn|fun|sub|interface|struct|enum|trait|module"
    r"|namespace|type|defp|defmodule|procedure)[ \t]{1,4}(\w+)"
    r"|\b(?:const|let|var)[ \t]{1,4}(\w+)[ \t]{0,4}=[ \t]{0,4}(?:async\b|function\b|\([^()\n]{0,200}\)[ \t]{0,4}=>)"
)
_DEFINITION = re.compile(_KEYWORD_DEFINITION)
"""Definitions in languages that have a word for it."""

_KEYWORDS = (
    "def class func function fn fun sub interface struct enum trait module namespace type defp defmodule procedure "
    "const let var"
).split()
_BEGINNING = AhoCorasick([*(word + blank for word in _KEYWORDS for blank in " \t"), "func(", "function*"])
"""How every such definition begins; this finds the few places to look at in a tenth of the time."""

_BRACE_DEFINITION = re.compile(
    _KEYWORD_DEFINITION
    + r"|\b(?!(?:if|for|while|switch|catch|return|with)\b)(\w+)[ \t]{0,4}\([^(){};]{0,300}\)[^(){};=\n]{0,60}\{"
)
"""The same, and definitions in languages that have none, but curly braces."""

_BODY = re.compile(r"\)[^(){};=\n]{0,60}\{")
"""What such a definition needs; most code has none, and to look for this is much the quicker."""

_CALL = re.compile(r"[\w.:>$@#-]*?(\w+)[!?]?(?:\([^\n]*\))?;?")
"""A query that is one name, dotted or called: `json.loads`, `Queue::push(x)`, `$this->save()`."""

_CODE = re.compile(r"[\n(){}\[\];=<>]")
"""What tells code from a question; in code quotes and a minus have another meaning."""

_PHRASE = re.compile(r'(?<!\S)"([^"]+)"(?!\S)')
_EXCLUDED = re.compile(r"(?<!\S)-([^\W\d]\w*)(?!\S)")

STOP_WORDS = frozenset(
    "a an and are as at be but by can do does for from how i if in into is it its me my of on or so that the their "
    "then there these this to was we were what when where which who why will with you your".split()
)
"""Words that are left out of a query unless nothing else is in it."""


def document_words(file_path: str, code: str, context: str | None) -> Words:
    """The searchable words of a memory, of its first `MAX_CODE_BYTES` and `MAX_CONTEXT_BYTES`."""
    code = _beginning(code, MAX_CODE_BYTES)
    words: list[str] = []
    identifiers = []
    for parts, identifier in map(_split, _runs(code)):
        words += parts
        if identifier is not None:
            identifiers.append(identifier)
    return Words(
        code=words,
        identifiers=identifiers,
        names=list(_names(code)),
        path=_parts_of(file_path),
        context=_parts_of(_beginning(context or "", MAX_CONTEXT_BYTES)),
    )


def query_words(query: str, *, match_all: bool = False) -> QueryWords:
    """At most `MAX_QUERY_WORDS` words and identifiers; stop words count only where nothing else is asked for.

    `"two words"` is a phrase and `-word` excludes a word, unless the query is code or nothing else is in it.
    """
    phrases: list[tuple[str, ...]] = []
    excluded: dict[str, None] = {}
    if not _CODE.search(query):
        wanted = _EXCLUDED.sub(" ", query)
        if _RUN.search(wanted):
            excluded = dict.fromkeys(word for found in _EXCLUDED.findall(query) for word in _excluded(found))
            phrases = [tuple(phrase) for phrase in map(_parts_of, _PHRASE.findall(wanted)) if phrase]
            query = wanted
    words: dict[str, None] = {}
    common: dict[str, None] = {}
    identifiers: dict[str, None] = {}
    for match in _RUN.finditer(query):
        run = match.group()
        parts, identifier = _split(run)
        kind = common if run.lower() in STOP_WORDS else words
        kind.update(dict.fromkeys(parts))
        if identifier is not None:
            identifiers.update(dict.fromkeys([identifier, *_pairs(run)]))
        if len(words) >= MAX_QUERY_WORDS:
            break
    name = identifier_of(query)
    if name is not None:
        identifiers[NAME_MARK + name] = None
    return QueryWords(
        words=tuple(words or common)[:MAX_QUERY_WORDS],
        identifiers=tuple(identifiers)[-MAX_QUERY_WORDS:],
        phrases=tuple(phrases[:MAX_DEMANDS]),
        excluded=tuple(excluded)[:MAX_DEMANDS],
        match_all=match_all,
    )


def identifier_of(query: str) -> str | None:
    """The name that a query consists of, in small letters and without underscores; None for any other text."""
    match = _CALL.fullmatch(query.strip()) if len(query) <= MAX_IDENTIFIER_CHARACTERS else None
    return _whole(match.group(1)) or None if match else None


def is_code(query: str) -> bool:
    """True if it is a piece of code, of more than one line."""
    lines = query.strip().splitlines()
    return len(lines) > 1 and bool(_CODE.search(" ".join(lines)))


def without_signs(text: str) -> str:
    """The text with a blank for each character that is of no word."""
    return text.translate(_ASCII_RUNS) if text.isascii() else _SIGN.sub(" ", text)


def in_small_letters(text: str) -> str:
    """The text in small letters, each in its place."""
    return text.lower() if text.isascii() else text.translate(_SMALL).lower()


def _in_place(word: str) -> str:
    """A word in the small letters that a text has, `in_small_letters`."""
    return word if word.isascii() else word.replace("i\u0307", "i").translate(_SMALL)


def clues_of(query: QueryWords) -> Set[str]:
    """Texts of which one or more are in each run of word characters that a word of the query finds, in small letters.

    A stem is the beginning of its word but for the last letters. The whole of a run has lost its underscores: there are
    two of them side by side, or one between two letters of the whole.
    """
    words = [_in_place(word.removeprefix(NAME_MARK)) for word in (*query.words, *query.identifiers)]
    begins = {word[: max(1, len(word) - _NOT_SHARED.get(word[-1], 0))] for word in words}
    parted = {"_".join(letters) for word in words for letters in pairwise(word)}
    return {"__"} | begins | parted


@lru_cache(maxsize=65536)
def counts_as(run: str) -> Set[str]:
    """The words that find a run of word characters: its parts, the whole, and the name that it may be."""
    parts, identifier = _split(run)
    whole = {NAME_MARK + _whole(run)} if identifier is None else {NAME_MARK + _whole(run), identifier}
    return frozenset(parts) | whole


def _names(code: str) -> Iterator[str]:
    """What code defines: each name marked, its parts, and each two parts that stand side by side."""
    for match in islice(_definitions(code), MAX_NAMES):
        run = next(filter(None, match.groups()))
        parts, identifier = _split(run)
        if parts:
            yield NAME_MARK + _whole(run)
            yield from parts
            if identifier is not None:
                yield identifier
                yield from _pairs(run)


def _definitions(code: str) -> Iterator[re.Match[str]]:
    if _BODY.search(code):
        yield from _BRACE_DEFINITION.finditer(code)
        return
    end = 0
    for _, start, _ in _BEGINNING.find_matches_as_indexes(code, overlapping=True):
        match = _DEFINITION.match(code, start) if start >= end else None
        if match:
            yield match
            end = match.end()


def _beginning(text: str, limit_bytes: int) -> str:
    if 4 * len(text) <= limit_bytes:
        return text
    return text.encode()[:limit_bytes].decode(errors="ignore")


def _parts_of(text: str) -> list[str]:
    return [part for run in _runs(text) for part in _split(run)[0]]


def _runs(text: str) -> list[str]:
    return text.translate(_ASCII_RUNS).split() if text.isascii() else _RUN.findall(text)


def _excluded(run: str) -> tuple[str, ...]:
    """What a memory with this word holds: an identifier as a whole, or the stem of a word."""
    parts, identifier = _split(run)
    return parts if identifier is None else (identifier,)


def _whole(run: str) -> str:
    return run.replace("_", "").lower()[:MAX_WORD_CHARACTERS]


def _pairs(run: str) -> list[str]:
    """Neighbouring parts of a name of three parts or more; of two parts the pair is the name."""
    parts = [part.lower() for part in _PART.findall(run)]
    return [left + right for left, right in pairwise(parts)] if len(parts) > 2 else []


_stemmer = Stemmer.Stemmer("english", 0)
"""Without a cache of its own, which takes longer than it saves behind that of `_split`."""


@lru_cache(maxsize=65536)
def _split(run: str) -> tuple[tuple[str, ...], str | None]:
    """Stemmed parts of a run of word characters, and the whole of it where it is more than one part."""
    bare = run.replace("_", "")
    plain = bare.isascii() and (bare.isdigit() or (bare.isalpha() and bare.islower()))
    parts = [*filter(None, run.split("_"))] if plain else _PART.findall(run)  # the same, but sooner
    whole = bare.lower()
    short = len(whole) <= MAX_WORD_CHARACTERS
    if len(parts) > MAX_PARTS or not short:
        return (whole,) if short and whole else (), None
    stems = tuple([_stemmer.stemWord(part.lower()) for part in parts])
    return stems, whole if len(parts) > 1 else None
