"""What is searched for, and what is found."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from app.models.memories import Memory, MemoryKey
from app.models.values import value


@dataclass(frozen=True, slots=True)
class QueryWords:
    """Distinct words and whole identifiers to look for, in the order of the query.

    A memory must hold every phrase (words side by side), none of the excluded words, and, where `match_all` is set,
    every word.
    """

    words: tuple[str, ...]
    identifiers: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...] = ()
    excluded: tuple[str, ...] = ()
    match_all: bool = False

    def __bool__(self) -> bool:
        return bool(self.words or self.identifiers)

    @property
    def required(self) -> tuple[tuple[str, ...], ...]:
        """Phrases, of one word or more, that a memory must hold."""
        return (*self.phrases, *((word,) for word in self.words if self.match_all))


@dataclass(frozen=True, slots=True)
class Scope:
    """Which memories may be seen: projects (None: all of them) and filters, all of which must hold."""

    projects: Sequence[str] | None = None
    session_id: str | None = None
    agent_id: str | None = None
    file_path: str | None = None
    path_prefix: str | None = None
    language: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_of_whole_projects(self) -> bool:
        """True if there are no filters."""
        return _filters(self) == _NONE

    def fields(self) -> dict[str, Any]:
        """Each by its name."""
        return {name: getattr(self, name) for name in Scope.__slots__}


_filters = attrgetter(*(name for name in Scope.__slots__ if name != "projects"))
_NONE = (len(Scope.__slots__) - 1) * (None,)


@value
class Piece:
    """A part of long code that has a vector of its own."""

    first_line: Annotated[int, Field(description="Its first line in `new_code`, from 1.")]
    last_line: Annotated[int, Field(description="Its last line.")]


class Match(NamedTuple):
    """A memory that one arm of a search found; a higher score is better. `piece` is the part that matched, if any."""

    key: MemoryKey
    score: float
    piece: Piece | None = None


@value
class Distinct:
    """A memory that stands for all in a scope with the same code.

    `copies` is how many these are, `last_timestamp` that of the newest of them.
    """

    memory: Memory
    code_hash: int
    copies: int
    last_timestamp: datetime


class Found(NamedTuple):
    """What one arm of a search found: a match, its rank among all matches, from 1, and what is answered of it.

    Which of equals has the better rank is up to the store.
    """

    match: Match
    rank: int
    distinct: Distinct


class Best(NamedTuple):
    """The best of each code that one arm found, best first, newer first among equals, and how many matches it found."""

    found: Sequence[Found]
    matches: int


@value
class Excerpt:
    """A few lines of `new_code` around what matched."""

    text: str
    first_line: Annotated[int, Field(description="Where it begins in `new_code`, from 1.")]
    highlights: Annotated[
        list[tuple[int, int]],
        Field(description="Begin and end, in characters of `text`, of each word that matched."),
    ]


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a score came about: it is the sum of the two parts."""

    fts_weight: Annotated[
        float,
        Field(description="Share of the words, 0 to 1: the greater, the more clearly they single out a few memories."),
    ]
    semantic_weight: Annotated[float, Field(description="Share of the meaning.")]
    fts_part: Annotated[float, Field(description="What the words add to the score.")]
    semantic_part: Annotated[float, Field(description="What the meaning adds.")]
    words: Annotated[Sequence[str], Field(description="What was looked for; `=` marks the name of a definition.")]


@value
class Hit:
    """A memory with its scores. Memories with the same code are one hit, of which the best is shown."""

    memory: Memory
    score: Annotated[float, Field(description="What the hits are ordered by, 0 to 1.")]
    fts_score: Annotated[float | None, Field(description="Score of the text search, 0 to 1.")]
    semantic_score: Annotated[float | None, Field(description="Cosine of query and memory, -1 to 1.")]
    fts_rank: Annotated[
        int | None, Field(description="Place in the text search, from 1; null if it was not found there.")
    ]
    semantic_rank: Annotated[
        int | None, Field(description="Place in the semantic search, from 1; null if it was not found there.")
    ]
    piece: Annotated[
        Piece | None, Field(description="The part of long code that the semantic search matched; null: all of it.")
    ]
    copies: Annotated[int, Field(description="Memories with this code that the search may see, itself included.")]
    last_timestamp: Annotated[datetime, Field(description="`timestamp` of the newest of them.")]
    excerpt: Excerpt
    explanation: Annotated[Explanation | None, Field(description="With `explain` only.")] = None
