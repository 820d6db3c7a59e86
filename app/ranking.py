"""Fuses the two arms of a search into one order; for both stores."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from app.models import Match, MemoryKey

RANK_CONSTANT = 60
"""Of reciprocal rank fusion (Cormack et al. 2009): how little the first ranks differ."""

FEW = 5
DISTINCT = (0.2, 0.4)
"""By how much the fifth match by words scores less than the first, where the words begin to count more, and where they
count as much as for an identifier. Measured on questions, docstrings, comments, error messages, names and code."""


NOWHERE = (None, None, 0.0)
"""Score, rank and part of an arm that did not return a memory."""


class Ranked(NamedTuple):
    """A memory with its place in each arm; ranks count from 1. `score` is the sum of the two parts."""

    key: MemoryKey
    score: float
    fts_score: float | None = None
    semantic_score: float | None = None
    fts_rank: int | None = None
    semantic_rank: int | None = None
    fts_part: float = 0.0
    semantic_part: float = 0.0


@dataclass(frozen=True, slots=True)
class Weights:
    """What the arms of a hybrid search count for; only their ratio matters."""

    fts: float
    semantic: float

    @property
    def share(self) -> float:
        """The share of the words."""
        return self.fts / (self.fts + self.semantic)

    def towards_words(self, part: float) -> "Weights":
        """For a part of 0 these, for 1 those of a query that is to be taken by its words: the greater is theirs."""
        share = self.share + part * (max(self.share, 1 - self.share) - self.share)
        return Weights(fts=share, semantic=1 - share)


def distinction(words: Sequence[Match]) -> float:
    """How clearly the words single out a few memories, 0 to 1: by how much the fifth scores less than the first.

    Those of an error message, of a piece of code or of a name do; those of a question are in many memories alike. Fewer
    than five tell nothing.
    """
    if len(words) < FEW or words[0].score == 0:
        return 0.0
    least, most = DISTINCT
    less = 1 - words[FEW - 1].score / words[0].score
    return min(1.0, max(0.0, (less - least) / (most - least)))


def ranked_by_words(match: Match, rank: int) -> Ranked:
    """A place of the text arm alone."""
    return Ranked(match.key, match.score, match.score, None, rank, None, match.score)


def ranked_by_meaning(match: Match, rank: int) -> Ranked:
    """A place of the semantic arm alone; a negative cosine scores 0."""
    score = _cosine(match)
    return Ranked(match.key, score, None, match.score, None, rank, 0.0, score)


def fuse(words: Sequence[Match], vectors: Sequence[Match], weights: Weights, depth: int) -> list[Ranked]:
    """Convex combination of the arms' normalised scores (Bruch et al. 2023, arXiv 2210.11934).

    The best score of an arm becomes 1. What becomes 0 is the score at which the arm was cut off, or 0 if it returned
    all that it has, fewer than `depth`.

    Returns:
        Every memory of either arm, best first; scores are 0 to 1. An arm that did not return a memory adds nothing.
    """
    by_words = _normalised([match.score for match in words], depth)
    by_meaning = _normalised([_cosine(match) for match in vectors], depth)
    return _combine(words, vectors, by_words, by_meaning, weights)


def fuse_ranks(words: Sequence[Match], vectors: Sequence[Match], weights: Weights) -> list[Ranked]:
    """Reciprocal rank fusion: as `fuse`, and looks at the ranks alone. First in both arms scores 1."""
    by_words, by_meaning = (
        [(RANK_CONSTANT + 1) / (RANK_CONSTANT + rank) for rank in range(1, len(arm) + 1)] for arm in (words, vectors)
    )
    return _combine(words, vectors, by_words, by_meaning, weights)


def _cosine(match: Match) -> float:
    return max(0.0, min(1.0, match.score))


def _normalised(scores: Sequence[float], depth: int) -> list[float]:
    if not scores:
        return []
    best = max(scores)
    floor = min(scores) if len(scores) >= depth else 0.0
    if best <= floor:
        return [1.0 if best > 0 else 0.0] * len(scores)
    return [(score - floor) / (best - floor) for score in scores]


def _combine(
    words: Sequence[Match],
    vectors: Sequence[Match],
    by_words: Sequence[float],
    by_meaning: Sequence[float],
    weights: Weights,
) -> list[Ranked]:
    share = weights.share
    meaning = {
        match.key: (match.score, rank, (1 - share) * part)
        for rank, (match, part) in enumerate(zip(vectors, by_meaning, strict=True), 1)
    }
    fused = []
    for rank, (match, part) in enumerate(zip(words, by_words, strict=True), 1):
        semantic_score, semantic_rank, semantic_part = meaning.pop(match.key, NOWHERE)
        fts_part = share * part
        score = fts_part + semantic_part
        fused.append(
            Ranked(match.key, score, match.score, semantic_score, rank, semantic_rank, fts_part, semantic_part)
        )
    for key, (score, rank, part) in meaning.items():
        fused.append(Ranked(key, part, None, score, None, rank, 0.0, part))
    return sorted(fused, key=attrgetter("score"), reverse=True)
