"""Fuses the two arms of a search into one order; for both stores."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.models import Match, MemoryKey


@dataclass(frozen=True, slots=True)
class Ranked:
    """A memory with its place in each arm; ranks count from 1."""

    key: MemoryKey
    score: float
    fts_score: float | None = None
    semantic_score: float | None = None
    fts_rank: int | None = None
    semantic_rank: int | None = None


def rank_words(words: Sequence[Match]) -> list[Ranked]:
    """The text arm alone."""
    return [
        Ranked(match.key, score=match.score, fts_score=match.score, fts_rank=rank)
        for rank, match in enumerate(words, 1)
    ]


def rank_vectors(vectors: Sequence[Match]) -> list[Ranked]:
    """The semantic arm alone; a negative cosine scores 0."""
    return [
        Ranked(match.key, score=max(0.0, min(1.0, match.score)), semantic_score=match.score, semantic_rank=rank)
        for rank, match in enumerate(vectors, 1)
    ]


def fuse(words: Sequence[Match], vectors: Sequence[Match], fts_weight: float, semantic_weight: float) -> list[Ranked]:
    """Convex combination of the arms' scores, each divided by its best (Bruch et al. 2023, arXiv 2210.11934).

    Args:
        words: matches of the text search, best first.
        vectors: matches of the semantic search, best first.
        fts_weight: weight of the first arm; only the ratio of the two weights counts.
        semantic_weight: weight of the second arm.

    Returns:
        Every memory of either arm, best first; scores are 0 to 1. An arm that did not return a memory adds nothing.
    """
    by_words = {ranked.key: ranked for ranked in rank_words(words)}
    by_meaning = {ranked.key: ranked for ranked in rank_vectors(vectors)}
    best_words = max((ranked.score for ranked in by_words.values()), default=0.0) or 1.0
    best_meaning = max((ranked.score for ranked in by_meaning.values()), default=0.0) or 1.0
    share = fts_weight / (fts_weight + semantic_weight)
    fused = []
    for key in by_words | by_meaning:
        word, meaning = by_words.get(key), by_meaning.get(key)
        score = (share * word.score / best_words if word else 0.0) + (
            (1 - share) * meaning.score / best_meaning if meaning else 0.0
        )
        fused.append(
            Ranked(
                key,
                score=score,
                fts_score=word.fts_score if word else None,
                semantic_score=meaning.semantic_score if meaning else None,
                fts_rank=word.fts_rank if word else None,
                semantic_rank=meaning.semantic_rank if meaning else None,
            )
        )
    return sorted(fused, key=lambda ranked: ranked.score, reverse=True)
