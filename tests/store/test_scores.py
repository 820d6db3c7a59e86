"""A text search says the same of the same memories on both stores."""

import inspect
import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import ModuleType

import numpy as np
import pytest

from app.models import Scope
from app.store.postgresql import PostgresStore
from app.store.postgresql import words as words_module
from app.store.sqlite import SqliteStore
from app.tokens import query_words
from tests.conftest import MODEL, connections, new_database
from tests.memories import NOON, new

MODULES: tuple[ModuleType, ...] = (inspect, json, json.decoder, json.encoder, textwrap)


def functions() -> dict[str, str]:
    """Real functions with their names."""
    found = {}
    for module in MODULES:
        for owner in (module, *(value for _, value in inspect.getmembers(module, inspect.isclass))):
            for name, value in inspect.getmembers(owner, inspect.isfunction):
                if value.__doc__ and value.__module__ == module.__name__:
                    found[name] = inspect.getsource(value)
    return found


def places(scores: list[float]) -> list[int]:
    return [int(place) for place in np.argsort(np.argsort(scores))]


async def test_scores_and_order_are_alike(postgres_url: Callable[[int], str], tmp_path: Path) -> None:
    codes = functions()
    rows = [new(file_path=f"{name}.py", new_code=code) for name, code in codes.items()]
    stores = (
        PostgresStore(connections(await new_database(postgres_url(18))), MODEL),
        SqliteStore(tmp_path / "store.db", MODEL),
    )
    for store in stores:
        await store.open()
        await store.memories.add(rows, NOON)
        await store.memories.refresh_frequencies()
    ratios, correlations, first = [], [], []
    for name, code in list(codes.items())[::4]:
        for query in (name, f"how to {name} with a default", code[:500]):
            words = query_words(query)
            one, two = [
                {match.key: match.score for match in await store.memories.search_words(Scope(), words, 200)}
                for store in stores
            ]
            both = [key for key in one if key in two]
            first.append(next(iter(one)) == next(iter(two)))
            ratios += [two[key] / one[key] for key in both[:10]]
            if len(both) > 5:
                by_one, by_two = [places([scores[key] for key in both]) for scores in (one, two)]
                correlations.append(float(np.corrcoef(by_one, by_two)[0, 1]))
    for store in stores:
        await store.close()
    assert len(codes) > 50
    assert np.mean(first) > 0.8
    assert median(correlations) > 0.8
    assert 0.9 < median(ratios) < 1.1
    assert all(0.5 < edge < 2 for edge in np.percentile(ratios, [5, 95]))


async def test_of_memories_with_too_many_words_the_shortest_are_ranked(
    postgres_url: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgresStore(connections(await new_database(postgres_url(18))), MODEL)
    await store.open()
    codes = ["parse " + " ".join(f"word{hash((length, at))}" for at in range(length)) for length in range(20, 400, 20)]
    rows = [new(new_code=code) for code in codes]
    await store.memories.add(rows[::-1], NOON)
    words, shortest_first = query_words("parse"), [row.memory.key for row in rows]
    found = await store.memories.search_words(Scope(), words, 200)
    assert {match.key for match in found} == {*shortest_first}
    monkeypatch.setattr(words_module, "MAX_BYTES", 30_000)
    some = {match.key for match in await store.memories.search_words(Scope(), words, 200)}
    await store.close()
    assert 1 < len(some) < len(rows)
    assert some == {*shortest_first[: len(some)]}
