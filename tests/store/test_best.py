"""The best of a semantic search that is asked alone: what is found, and what is answered of that, at once."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest

from app.models import MAX_PIECES, Best, MemoryKey, Piece, Scope
from app.store.distinct import best_of
from app.store.embedding_protocol import PieceVector
from app.store.protocol import Store
from app.tokens import query_words
from tests.conftest import MODEL
from tests.memories import NOON, minutes, new, vector

COUNT = 60
SCOPES = [Scope(), Scope(projects=["a"]), Scope(projects=["a", "b"], language="python"), Scope(projects=["nobody"])]
DEMANDS = ["", '"parse header" value', "value -header", "parse -unheard"]
NEAR = vector(1, 2, 3)


@pytest.fixture
async def keys(store: Store) -> Sequence[MemoryKey]:
    """Memories of two projects, each code some three times, at other times and with other vectors or pieces."""
    random, numbers = Random(0), np.random.default_rng(0)
    codes = [" ".join(random.choices(["parse", "header", "value", "the"], k=30)) for _ in range(COUNT // 3)]
    rows = [
        new(
            vector(*numbers.standard_normal(8)),
            new_code=random.choice(codes),
            project=random.choice("ab"),
            language=random.choice(["python", "go"]),
            timestamp=NOON + minutes(number),
        )
        for number in range(COUNT)
    ]
    await store.memories.add(rows, NOON)
    for row in rows[::7]:
        near = [PieceVector(Piece(at, at + 2), vector(*numbers.standard_normal(8))) for at in (1, 4)]
        await store.embeddings.save_pieces(MODEL, row.memory.key, near)
    return [row.memory.key for row in rows]


def told(best: Best) -> tuple[object, ...]:
    found = [(match.key, match.piece, pytest.approx(match.score), rank, one) for match, rank, one in best.found]
    return best.matches, found


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("candidates", [3, 10, COUNT, COUNT + 1])
@pytest.mark.parametrize("limit", [1, 5, COUNT])
async def test_it_is_the_same_in_one_step_and_in_two(store: Store, limit: int, candidates: int) -> None:
    scores = set()
    for scope in SCOPES:
        for words in map(query_words, DEMANDS):
            once = await store.memories.best_by_vectors(scope, NEAR, MODEL, limit, candidates, words)
            matches = await store.memories.search_vectors(scope, NEAR, MODEL, candidates, words)
            assert told(once) == told(await best_of(store.memories, scope, matches, limit))
            scores |= {found.match.score < 0 for found in once.found}
    assert scores == {True, False} if candidates >= COUNT == limit else scores == {False}


async def test_among_equals_the_newest_comes_first(store: Store) -> None:
    rows = [new(NEAR, timestamp=NOON + minutes(at), new_code=f"f({at})") for at in (2, 0, 3, 1)]
    copy = new(NEAR, timestamp=NOON - minutes(1), new_code="f(3)")
    await store.memories.add([copy, *rows], NOON)
    best = await store.memories.best_by_vectors(Scope(), NEAR, MODEL, 3, 10)
    assert [found.distinct.memory.new_code for found in best.found] == ["f(3)", "f(2)", "f(1)"]
    assert [found.distinct.memory.timestamp for found in best.found] == [NOON + minutes(at) for at in (3, 2, 1)]
    assert [found.distinct.copies for found in best.found] == [2, 1, 1]


async def test_many_pieces_of_few_memories_do_not_crowd_out_the_others(store: Store, keys: Sequence[MemoryKey]) -> None:
    pieces = [PieceVector(Piece(at, at + 1), NEAR) for at in range(1, MAX_PIECES + 1)]
    for key in keys[:2]:
        await store.embeddings.save_pieces(MODEL, key, pieces)
    best = await store.memories.best_by_vectors(Scope(), NEAR, MODEL, 10, 30)
    assert (best.matches, len(best.found)) == (30, 10)
    assert {found.match.key for found in best.found[:2]} <= set(keys[:2])
