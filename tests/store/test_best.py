"""The best of an arm that is asked alone: what its search finds, and what is answered of that, at once."""

from random import Random

import numpy as np
import pytest

from app.models import Best, Piece, Scope
from app.store.distinct import best_of
from app.store.embedding_protocol import PieceVector
from app.store.protocol import Store
from app.tokens import query_words
from tests.conftest import MODEL
from tests.memories import NOON, minutes, new, vector

COUNT = 60
SCOPES = [Scope(), Scope(projects=["a"]), Scope(projects=["a", "b"], language="python"), Scope(projects=["nobody"])]
QUERIES = ["parse the header", "header", '"parse header" value', "value -header", "unheard"]


@pytest.fixture
async def filled(store: Store) -> Store:
    """Memories of two projects, each code some three times, at other times and with other vectors."""
    random, numbers = Random(0), np.random.default_rng(0)
    words = ["parse", "header", "value", "the", "line", "other"]
    codes = [" ".join(random.choices(words, k=random.randint(3, 30))) for _ in range(COUNT // 3)]
    rows = [
        new(
            vector(*numbers.standard_normal(8)),
            file_path="a.py",
            new_code=random.choice(codes),
            project=random.choice("ab"),
            language=random.choice(["python", "go"]),
            timestamp=NOON + minutes(number),
        )
        for number in range(COUNT)
    ]
    await store.memories.add(rows, NOON)
    await store.memories.refresh_frequencies()
    for row in rows[::7]:
        near = [PieceVector(Piece(at, at + 2), vector(*numbers.standard_normal(8))) for at in (1, 4)]
        await store.embeddings.save_pieces(MODEL, row.memory.key, near)
    return store


def told(best: Best) -> list[tuple[object, ...]]:
    return [(match.key, match.piece, pytest.approx(match.score), rank, one) for match, rank, one in best.found]


@pytest.mark.parametrize("limit", [1, 5, COUNT])
async def test_it_is_the_same_in_one_step_and_in_two(filled: Store, limit: int) -> None:
    memories = filled.memories
    found = 0
    for scope in SCOPES:
        for query in map(query_words, QUERIES):
            once = await memories.best_by_words(scope, query, limit, COUNT)
            twice = await best_of(memories, scope, await memories.search_words(scope, query, COUNT), limit)
            assert (told(once), once.matches) == (told(twice), twice.matches)
            near = vector(1, 2, 3)
            once = await memories.best_by_vectors(scope, near, MODEL, limit, COUNT, query)
            matches = await memories.search_vectors(scope, near, MODEL, COUNT, query)
            twice = await best_of(memories, scope, matches, limit)
            assert (told(once), once.matches) == (told(twice), twice.matches)
            found += len(once.found)
    assert found


async def test_it_tells_where_there_may_be_more(filled: Store) -> None:
    query, near = query_words("value"), vector(1, 2, 3)
    all_of_them = len(await filled.memories.search_words(Scope(), query, COUNT))
    assert 10 < all_of_them < COUNT
    few = await filled.memories.best_by_words(Scope(), query, 5, 10)
    every = await filled.memories.best_by_words(Scope(), query, 5, COUNT)
    assert few.matches >= 10
    assert every.matches == all_of_them
    assert (await filled.memories.best_by_vectors(Scope(), near, MODEL, 5, 10)).matches >= 10
    assert (await filled.memories.best_by_vectors(Scope(), near, MODEL, 5, COUNT + 1)).matches == COUNT
