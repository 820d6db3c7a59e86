"""Semantic search at scale on PostgreSQL: recall against exact search, full pages, time, under filters.

The vectors are unit vectors around centres that lie around topics: neighbours are as close as those of real code.
"""

import argparse
import asyncio
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from app.models import EmbeddingStatus, Memory, NewMemory, Scope, Vector, VectorIndexState, Words
from app.store.embedded import EmbeddedPostgres
from app.store.postgresql import PostgresStore
from app.store.postgresql.connections import Connections

MODEL = "benchmark"
DIMENSIONS = 384
TOPICS = 50
CENTRES = 1000
SPREAD = 0.8
"""Length of what is added to a topic or a centre: neighbours have a cosine of about 1 / (1 + SPREAD ** 2)."""
BATCH = 1000
TOP = 10
"""Matches whose recall is measured."""
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)

CASES: dict[str, tuple[Scope, Callable[[int], bool]]] = {
    "everything": (Scope(), lambda _: True),
    "project of 40 %": (Scope(projects=["large"]), lambda at: at % 100 < 40),
    "project of 20 %": (Scope(projects=["middle"]), lambda at: 40 <= at % 100 < 60),
    "project of 1 %": (Scope(projects=["p60"]), lambda at: at % 100 == 60),
    "project of 0.1 %": (Scope(projects=["tiny"]), lambda at: at % 1000 == 99),
    "language of 50 %": (Scope(language="python"), lambda at: at % 2 == 0),
    "language of 1 %": (Scope(language="rust"), lambda at: at % 200 in (1, 101)),
    "agent of 1 %": (Scope(agent_id="a7"), lambda at: at // 7 % 100 == 7),
    "agent of 0.1 %": (Scope(agent_id="rare"), lambda at: at % 1000 == 500),
    "one session of 20": (Scope(session_id="s77"), lambda at: at // 20 == 77),
    "folder of 1 %": (Scope(path_prefix="src/33/"), lambda at: at // 3 % 100 == 33),
    "one file of 0.3 %": (Scope(file_path="src/33/part0.py"), lambda at: at // 3 % 100 == 33 and at % 10 == 0),
}


def cases(count: int) -> dict[str, tuple[Scope, Callable[[int], bool]]]:
    """By name the scope, and whether it holds a memory of so many."""
    last, quarter = count * 99 // 100, count * 3 // 4
    return CASES | {
        "the last 1 %": (Scope(since=NOON + timedelta(minutes=last)), lambda at: at >= last),
        "the last 25 %": (Scope(since=NOON + timedelta(minutes=quarter)), lambda at: at >= quarter),
    }


def project_of(at: int) -> str:
    """Two large projects, a tiny one, and others of 1 % each."""
    if at % 1000 == 99:
        return "tiny"
    return "large" if at % 100 < 40 else "middle" if at % 100 < 60 else f"p{at % 100}"


def language_of(at: int) -> str:
    """Half of everything is Python, 1 % Rust."""
    return "python" if at % 2 == 0 else "rust" if at % 200 in (1, 101) else "go"


def memory(at: int, random: np.random.Generator) -> NewMemory:
    """Memory number `at`, with about 1 kB of words."""
    words = [f"w{word}" for word in random.zipf(1.3, 120) % 20_000]
    agent = "rare" if at % 1000 == 500 else f"a{at // 7 % 100}"
    file_path = f"src/{at // 3 % 100}/part{at % 10}.py"
    one = Memory(
        id=uuid4(), project=project_of(at), file_path=file_path, new_code=" ".join(words), old_code=None, context=None,
        session_id=f"s{at // 20}", agent_id=agent, language=language_of(at), timestamp=NOON + timedelta(minutes=at),
        created_at=NOON, embedding_status=EmbeddingStatus.READY, import_id=None,
    )  # fmt: skip
    return NewMemory(one, Words(code=words, identifiers=[], path=[], context=[]), None)


def around(centres: NDArray[np.float32], count: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Unit vectors near the centres, shape (count, dimensions)."""
    noise = random.standard_normal((count, DIMENSIONS), dtype=np.float32)
    noise *= SPREAD / np.linalg.norm(noise, axis=1, keepdims=True)
    vectors = centres[random.integers(0, len(centres), count)] + noise
    made: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return made


async def measure(store: PostgresStore, keys: Sequence[object], vectors: Vector, queries: Vector, limit: int) -> None:
    """Prints a line for each case."""
    print(f"{'scope':20} {'rows':>6} {'recall@10':>10} {'least page':>10} {'p50 ms':>8} {'p95 ms':>8}")
    stored = vectors.astype(np.float16).astype(np.float32)
    for name, (scope, holds) in cases(len(keys)).items():
        places = np.array([at for at in range(len(keys)) if holds(at)])
        found, wanted, hits, times = 0, 0, [], []
        for query in queries:
            cosines = stored[places] @ query
            nearest = {keys[at] for at in places[np.argsort(-cosines)[:TOP]]}
            started = time.perf_counter()
            matches = await store.memories.search_vectors(scope, query, MODEL, limit)
            times.append((time.perf_counter() - started) * 1000)
            found += len(nearest & {match.key for match in matches[:TOP]})
            wanted += len(nearest)
            hits.append(len(matches) / min(limit, len(places)))
        p95 = statistics.quantiles(times, n=20)[-1]
        print(
            f"{name:20} {len(places):6} {found / wanted:10.3f} {min(hits):10.0%} "
            f"{statistics.median(times):8.1f} {p95:8.1f}",
            flush=True,
        )


async def run(url: str, count: int, query_count: int, limit: int) -> None:
    """Fills an empty database, builds the index, measures before and after."""
    random = np.random.default_rng(7)
    topics = around(np.zeros((1, DIMENSIONS), dtype=np.float32), TOPICS, random)
    centres = around(topics, CENTRES, random)
    vectors, queries = around(centres, count, random), around(centres, query_count, random)
    store = PostgresStore(Connections({"dsn": url}, 1, 4, 30, 300), MODEL)
    await store.open()
    keys = []
    started = time.perf_counter()
    for start in range(0, count, BATCH):
        places = range(start, min(start + BATCH, count))
        rows = [memory(at, random) for at in places]
        keys += [row.memory.key for row in rows]
        await store.memories.add(rows, NOON)
        await store.embeddings.save(MODEL, {row.memory.key: vectors[at] for row, at in zip(rows, places, strict=True)})
    print(f"stored {count} memories with vectors in {time.perf_counter() - started:.0f} s", flush=True)
    async with store._connections.acquire() as connection:
        await connection.execute("VACUUM ANALYZE")
    print("\nwithout an index")
    await measure(store, keys, vectors, queries, limit)
    started = time.perf_counter()
    await store.embeddings.ensure_index(MODEL)
    stats = await store.memories.stats(None, MODEL)
    assert stats.embedding.index.state is VectorIndexState.READY
    print(f"\nwith the HNSW index, built in {time.perf_counter() - started:.0f} s")
    await measure(store, keys, vectors, queries, limit)
    await store.close()


def main() -> None:
    """Reads the arguments and runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60_000, help="memories, more than 10,000")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--limit", type=int, default=200, help="matches asked for; hybrid searches want 200, others 30")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder) / "postgres")
        try:
            asyncio.run(run(server.start(), arguments.count, arguments.queries, arguments.limit))
        finally:
            server.stop()
            shutil.rmtree(server.home)


if __name__ == "__main__":
    main()
