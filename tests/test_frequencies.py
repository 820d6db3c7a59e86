"""The background count of words."""

import asyncio
import time

import asyncpg

from app.frequencies import Frequencies
from app.store.postgresql import PostgresStore
from tests.conftest import MODEL, connections
from tests.memories import NOON, new


async def test_words_are_counted_soon_after_they_were_stored(database: str) -> None:
    store = PostgresStore(connections(database), MODEL)
    await store.open()
    loops = [Frequencies(store.memories, pause_seconds=0.05) for _ in range(3)]
    for loop in loops:
        loop.start()
    watcher = await asyncpg.connect(database)
    for stored in (50, 100):
        await store.memories.add([new(new_code=f"value = {number}") for number in range(50)], NOON)
        deadline = time.monotonic() + 10
        while await watcher.fetchval("SELECT ndoc FROM word_frequencies WHERE lexeme = 'valu'") != stored:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
    assert await watcher.fetchval("SELECT memories FROM word_totals") == 100
    for loop in loops:
        await loop.stop()
    await watcher.close()
    await store.close()
