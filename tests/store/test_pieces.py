"""Vectors of pieces of long code, on every store."""

import asyncio

import numpy as np
import pytest

from app.backfill import Backfill
from app.embedding.hashing import HashingEmbedder
from app.embedding.worker import EmbeddingWorker
from app.models import MAX_PIECES, MAX_WHOLE_CHARACTERS, EmbeddingStatus, MemoryKey, Piece, Scope, Vector
from app.store.embedding_protocol import PieceVector
from app.store.protocol import Store
from tests.conftest import MODEL
from tests.memories import NOON, minutes, new, vector

LONG = "x = 1\n" * MAX_WHOLE_CHARACTERS
SOON = NOON + minutes(1)


async def claimed(store: Store, *, whole: bool) -> list[MemoryKey]:
    claims = await store.embeddings.claim(MODEL, 10, SOON, SOON + minutes(1), whole=whole)
    return [claim.memory.key for claim in claims]


def pieces(*vectors: Vector) -> list[PieceVector]:
    return [PieceVector(Piece(10 * at + 1, 10 * at + 10), one) for at, one in enumerate(vectors)]


async def test_a_long_memory_that_comes_with_a_vector_is_ready_and_queued_for_its_pieces(store: Store) -> None:
    long, short = new(vector(1), new_code=LONG), new(vector(1), new_code=LONG[:MAX_WHOLE_CHARACTERS])
    await store.memories.add([long, short], SOON)
    [found] = await store.memories.find(long.memory.id, None)
    assert found.embedding_status is EmbeddingStatus.READY
    stats = (await store.memories.stats(None, MODEL)).embedding
    assert (stats.pending, stats.failed, stats.pieces_pending) == (0, 0, 1)
    assert await claimed(store, whole=True) == []
    assert await claimed(store, whole=False) == [long.memory.key]


async def test_the_whole_of_a_long_memory_comes_first_and_its_pieces_follow(store: Store) -> None:
    long = new(new_code=LONG)
    await store.memories.add([long], NOON)
    assert await claimed(store, whole=False) == []
    assert await claimed(store, whole=True) == [long.memory.key]
    await store.embeddings.save(MODEL, {long.memory.key: vector(1)})
    [found] = await store.memories.find(long.memory.id, None)
    assert found.embedding_status is EmbeddingStatus.READY
    assert await claimed(store, whole=False) == [long.memory.key]
    await store.embeddings.save_pieces(MODEL, long.memory.key, pieces(vector(0, 1)))
    assert (await store.memories.stats(None, MODEL)).embedding.pieces_pending == 0
    assert (await store.memories.stats(None, MODEL)).entries_with_embeddings == 1


async def test_the_best_piece_counts_and_the_match_names_it(store: Store) -> None:
    long, other = new(vector(1), new_code=LONG), new(vector(1, 1))
    await store.memories.add([long, other], NOON)
    await store.embeddings.save_pieces(MODEL, long.memory.key, pieces(vector(0, 0, 1), vector(0, 1), vector(0, 0, 1)))
    best, second = await store.memories.search_vectors(Scope(), vector(0, 1), MODEL, 10)
    assert (best.key, best.piece) == (long.memory.key, Piece(11, 20))
    assert best.score == pytest.approx(1, abs=1e-3)
    assert (second.key, second.piece) == (other.memory.key, None)
    [whole, _] = await store.memories.search_vectors(Scope(), vector(1), MODEL, 10)
    assert (whole.key, whole.piece) == (long.memory.key, None)


@pytest.mark.parametrize("scope", [Scope(), Scope(language="python")])
async def test_a_page_is_full_of_distinct_memories_however_many_pieces_they_have(store: Store, scope: Scope) -> None:
    long, others = new(vector(1), new_code=LONG), [new(vector(0, 1)) for _ in range(5)]
    await store.memories.add([long, *others], NOON)
    await store.embeddings.save_pieces(MODEL, long.memory.key, pieces(*[vector(1, 0.001)] * MAX_PIECES))
    found = await store.memories.search_vectors(scope, vector(1), MODEL, 3)
    assert found[0].key == long.memory.key
    assert len({match.key for match in found}) == 3


async def test_pieces_go_with_their_memory(store: Store) -> None:
    long = new(vector(1), new_code=LONG)
    await store.memories.add([long], NOON)
    await store.embeddings.save_pieces(MODEL, long.memory.key, pieces(vector(0, 1)))
    assert await store.memories.search_vectors(Scope(), vector(1), MODEL, 10)
    await store.memories.delete(long.memory.key)
    assert await store.memories.search_vectors(Scope(), vector(1), MODEL, 10) == []
    await store.embeddings.save_pieces(MODEL, long.memory.key, pieces(vector(0, 1)))
    assert await store.memories.search_vectors(Scope(), vector(1), MODEL, 10) == []


async def test_the_stored_vector_of_a_memory_is_that_of_the_whole(store: Store) -> None:
    long = new(vector(1), new_code=LONG)
    await store.memories.add([long], NOON)
    await store.embeddings.save_pieces(MODEL, long.memory.key, pieces(vector(0, 1)))
    stored = await store.embeddings.vectors(MODEL, [long.memory.key])
    assert np.array_equal(stored[long.memory.key], vector(1).astype(np.float16))


async def test_pieces_that_cannot_be_embedded_leave_the_memory_ready(store: Store) -> None:
    long = new(vector(1), new_code=LONG)
    await store.memories.add([long], NOON)
    await store.embeddings.postpone(MODEL, [long.memory.key], "no luck", until=None)
    [found] = await store.memories.find(long.memory.id, None)
    assert found.embedding_status is EmbeddingStatus.READY
    stats = (await store.memories.stats(None, MODEL)).embedding
    assert (stats.pending, stats.failed, stats.pieces_pending) == (0, 0, 0)


class Hashing(HashingEmbedder):
    """Under the name of the store's model."""

    model = MODEL


async def test_the_background_makes_the_vectors_of_whole_and_pieces(store: Store) -> None:
    worker = EmbeddingWorker(Hashing())
    backfill = Backfill(store.embeddings, worker)
    functions = [f"def {word}():\n" + f"    {word} = None\n" * 40 for word in ("apple", "berry", "cherry")]
    row = new(new_code="\n\n".join(functions))
    await store.memories.add([row], NOON)
    await worker.start()
    backfill.start()
    [query] = Hashing().embed(["berry"])
    async with asyncio.timeout(20):
        while not (found := await store.memories.search_vectors(Scope(), query, MODEL, 1)) or not found[0].piece:
            await asyncio.sleep(0.02)
    await backfill.stop()
    await worker.stop()
    assert found[0].piece == Piece(44, 84)
