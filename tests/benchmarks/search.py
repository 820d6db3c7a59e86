"""Search quality and time: nDCG@10, MRR@10, Recall@10, p50 and p95 of every mode on both stores.

Loads each labelled set through the service's own interface, with vectors of the configured model that are kept in a
folder from one run to the next, and asks every query in every mode. Prints a table, and the same as JSON.
"""

import argparse
import asyncio
import hashlib
import json
import logging
import math
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import httpx
import numpy as np
import structlog
from numpy.typing import NDArray

from app.api.deps import Services
from app.embedding.embedder import document_text
from app.embedding.worker import EmbeddingWorker, Priority
from app.main import create_app
from app.settings import Settings
from app.store.embedded import EmbeddedPostgres
from tests.benchmarks.labelled import LabelledSet, read_beir, standard_library

MODES = ("fts", "semantic", "hybrid")
BATCH = 250
DEPTH = 10
WARM_UP = 50
"""Queries that are asked before the clock runs."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one mode did on one set in one store; `in_first_3` is the share of queries answered by the first three."""

    set: str
    store: str
    mode: str
    ndcg: float
    mrr: float
    recall: float
    in_first_3: float
    p50_ms: float
    p95_ms: float
    worst_ms: float


def gain(relevant: Mapping[str, int], found: Sequence[str]) -> float:
    """NDCG@10 of one answer, with linear gains."""
    got = sum(relevant.get(key, 0) / math.log2(rank + 1) for rank, key in enumerate(found[:DEPTH], 1))
    best = sorted(relevant.values(), reverse=True)[:DEPTH]
    return got / sum(value / math.log2(rank + 1) for rank, value in enumerate(best, 1))


def measure(
    labelled: LabelledSet, store: str, mode: str, answers: Mapping[str, Sequence[str]], seconds: list[float]
) -> Result:
    """The means over all queries."""
    ranks = {
        query: next((rank for rank, key in enumerate(found, 1) if key in labelled.relevant[query]), math.inf)
        for query, found in answers.items()
    }
    times = sorted(1000 * value for value in seconds)
    return Result(
        set=labelled.name,
        store=store,
        mode=mode,
        ndcg=round(statistics.mean(gain(labelled.relevant[query], found) for query, found in answers.items()), 4),
        mrr=round(statistics.mean(1 / rank for rank in ranks.values()), 4),
        recall=round(
            statistics.mean(
                len(labelled.relevant[query].keys() & set(found)) / len(labelled.relevant[query])
                for query, found in answers.items()
            ),
            4,
        ),
        in_first_3=round(statistics.mean(rank <= 3 for rank in ranks.values()), 4),
        p50_ms=round(statistics.median(times), 2),
        p95_ms=round(times[int(0.95 * (len(times) - 1))], 2),
        worst_ms=round(times[-1], 2),
    )


async def document_vectors(labelled: LabelledSet, worker: EmbeddingWorker, kept: Path) -> NDArray[np.float32]:
    """The vectors of all documents, from the folder where the same texts were embedded before."""
    texts = [document_text(document.file_path, document.code) for document in labelled.documents.values()]
    digest = hashlib.sha256("\0".join([worker.model, *texts]).encode()).hexdigest()[:16]
    path = kept / f"{labelled.name}-{digest}.npy"
    if path.exists():
        vectors: NDArray[np.float32] = np.load(path)
        return vectors
    print(f"embedding {len(texts)} documents of {labelled.name}", flush=True)
    vectors = np.concatenate(
        [await worker.embed(texts[at : at + 64], Priority.WRITE) for at in range(0, len(texts), 64)]
    )
    np.save(path, vectors)
    return vectors


async def load(client: httpx.AsyncClient, labelled: LabelledSet, vectors: NDArray[np.float32]) -> None:
    """Stores the documents; their ids go into `session_id`."""
    rows = [
        {
            "project": labelled.name,
            "file_path": document.file_path,
            "new_code": document.code,
            "session_id": key,
            "embedding": vector.tolist(),
        }
        for (key, document), vector in zip(labelled.documents.items(), vectors, strict=True)
    ]
    for at in range(0, len(rows), BATCH):
        answer = await client.post("/v1/memories/batch", json={"memories": rows[at : at + BATCH]})
        answer.raise_for_status()
        bad = [result for result in answer.json()["results"] if result["status"] != "created"]
        if bad:
            raise RuntimeError(f"{len(bad)} documents were not stored: {bad[0]}")


async def ask(
    client: httpx.AsyncClient, labelled: LabelledSet, mode: str, count: int | None = None
) -> tuple[dict[str, list[str]], list[float]]:
    """The ids that each query finds, and the seconds that each took; of the first `count` queries, or of all."""
    answers, seconds = {}, []
    for query, text in islice(labelled.queries.items(), count):
        started = time.perf_counter()
        answer = await client.post(
            f"/v1/search/{mode}", json={"query": text, "limit": DEPTH, "projects": [labelled.name]}
        )
        seconds.append(time.perf_counter() - started)
        answer.raise_for_status()
        answers[query] = [hit["memory"]["session_id"] for hit in answer.json()["hits"]]
    return answers, seconds


@asynccontextmanager
async def service(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
    """A client of an application in this process, once its model is loaded."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=120) as client:
            services: Services = app.state.services
            await services.models.active.worker.wait_ready()
            yield client, services


async def run(sets: Sequence[LabelledSet], kept: Path, only: Callable[[str], bool]) -> list[Result]:
    """All sets in all modes on both stores."""
    results = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        server = EmbeddedPostgres(folder / "postgres")
        stack.callback(shutil.rmtree, server.home, ignore_errors=True)
        url = await asyncio.to_thread(server.start)
        stack.push_async_callback(asyncio.to_thread, server.stop)
        stores: dict[str, dict[str, object]] = {
            "postgresql": {"database_url": url},
            "sqlite": {"sqlite_path": folder / "store.db"},
        }
        for store, where in stores.items():
            if not only(store):
                continue
            settings = Settings.model_validate({"backend": store, "spool_folder": folder / "spool", **where})
            async with service(settings) as (client, services):
                worker = services.models.active.worker
                for labelled in sets:
                    await load(client, labelled, await document_vectors(labelled, worker, kept))
                    await services.store.memories.refresh_frequencies()
                    await services.store.memories.merge_words()
                    for mode in MODES:
                        await ask(client, labelled, mode, WARM_UP)
                        result = measure(labelled, store, mode, *await ask(client, labelled, mode))
                        results.append(result)
                        print_row(list(asdict(result).values()))
    return results


def print_row(cells: Sequence[object]) -> None:
    """A row of the table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def main() -> None:
    """Reads the arguments and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beir", type=Path, action="append", default=[], help="a folder with a labelled set")
    parser.add_argument("--store", choices=["postgresql", "sqlite"], help="this one alone")
    parser.add_argument("--vectors", type=Path, default=Path(gettempdir()) / "afterimage-vectors")
    arguments = parser.parse_args()
    sets = [*(read_beir(folder) for folder in arguments.beir), *standard_library()]
    names = list(Result.__dataclass_fields__)
    print_row(names)
    print_row(["---"] * len(names))
    arguments.vectors.mkdir(parents=True, exist_ok=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    results = asyncio.run(run(sets, arguments.vectors, lambda store: arguments.store in {None, store}))
    print(json.dumps([asdict(result) for result in results]))


if __name__ == "__main__":
    main()
