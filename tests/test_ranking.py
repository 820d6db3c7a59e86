"""The fusion of two arms."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.models import Match, MemoryKey
from app.ranking import Weights, distinction, fuse, fuse_ranks, ranked_by_meaning


def match(number: int, score: float) -> Match:
    return Match(MemoryKey("p", UUID(int=number)), score)


def test_what_both_arms_find_comes_first() -> None:
    fused = fuse([match(1, 0.9), match(2, 0.8)], [match(2, 0.7), match(3, 0.69)], Weights(0.5, 0.5), 10)
    assert [ranked.key.id.int for ranked in fused] == [2, 1, 3]
    assert (fused[0].fts_rank, fused[0].semantic_rank) == (2, 1)
    assert (fused[2].fts_rank, fused[2].fts_score) == (None, None)


def test_scores_are_divided_by_the_best_of_their_arm() -> None:
    [first, second] = fuse([match(1, 0.02)], [match(2, 0.5)], Weights(0.2, 0.8), 10)
    assert (first.key.id.int, second.key.id.int) == (2, 1)
    assert [first.score, second.score] == pytest.approx([0.8, 0.2])


def test_a_negative_cosine_scores_zero() -> None:
    ranked = ranked_by_meaning(match(1, -0.5), 1)
    assert (ranked.score, ranked.semantic_score) == (0.0, -0.5)


def test_words_count_more_the_more_clearly_they_single_out_a_few() -> None:
    alike = [match(number, 0.5 - number / 100) for number in range(20)]
    clear = [match(99, 0.9), *alike]
    between = [match(99, 0.6), *alike]
    assert distinction(alike) == 0
    assert 0 < distinction(between) < 1
    assert distinction(clear) == 1
    assert distinction(clear[:4]) == 0
    assert distinction([]) == 0


def test_the_greater_weight_goes_to_the_words_where_they_say_it_all() -> None:
    assert Weights(0.2, 0.8).towards_words(0).share == pytest.approx(0.2)
    assert Weights(0.2, 0.8).towards_words(0.5).share == pytest.approx(0.5)
    assert Weights(0.2, 0.8).towards_words(1).share == pytest.approx(0.8)
    assert Weights(0.9, 0.3).towards_words(1).share == pytest.approx(0.75)


numbers = st.dictionaries(st.integers(0, 30), st.floats(-1, 1), max_size=20)


@given(numbers, numbers, st.floats(0.01, 1), st.floats(0.01, 1), st.integers(1, 30))
def test_every_memory_comes_out_once_with_a_score_from_0_to_1(
    words: dict[int, float], vectors: dict[int, float], fts_weight: float, semantic_weight: float, depth: int
) -> None:
    def arm(found: dict[int, float]) -> list[Match]:
        return sorted((match(key, score) for key, score in found.items()), key=lambda one: one.score, reverse=True)

    fused = fuse(
        arm({key: abs(score) for key, score in words.items()}),
        arm(vectors),
        Weights(fts_weight, semantic_weight),
        depth,
    )
    assert sorted(ranked.key.id.int for ranked in fused) == sorted(words.keys() | vectors.keys())
    scores = [ranked.score for ranked in fused]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1.000001 for score in scores)


def test_the_score_where_an_arm_was_cut_counts_as_nothing() -> None:
    [first, second, third] = fuse([], [match(1, 0.9), match(2, 0.8), match(3, 0.7)], Weights(0, 1), 3)
    assert [first.score, second.score, third.score] == pytest.approx([1, 0.5, 0])


def test_rank_fusion_looks_at_ranks_alone() -> None:
    fused = fuse_ranks([match(1, 0.9), match(2, 0.1)], [match(2, 0.7), match(1, 0.69)], Weights(0.5, 0.5))
    assert fused[0].score == pytest.approx(fused[1].score)
    [alone] = fuse_ranks([match(1, 0.1)], [match(1, 0.1)], Weights(0.2, 0.8))
    assert alone.score == pytest.approx(1)


def test_the_parts_add_up_to_the_score() -> None:
    for ranked in fuse([match(1, 0.9), match(2, 0.8)], [match(2, 0.7), match(3, 0.6)], Weights(0.3, 0.7), 10):
        assert ranked.score == pytest.approx(ranked.fts_part + ranked.semantic_part)
