"""Search time over HTTP by kind of query, with few memories and with ten times as many, in one run.

Memories are functions, classes and whole modules of the Python standard library and of what is installed beside the
service: real code, of real and very different lengths. Vectors are those of the hashing embedder, so that what is
measured is the service and its store. Each query is asked three times; `slowest` is the query that took longest at its
fastest, `worst` the longest of all answers.
"""

import argparse
import ast
import asyncio
import json
import logging
import shutil
import statistics
import sysconfig
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import structlog

from app.embedding.hashing import MODEL, HashingEmbedder
from app.models import EmbeddingStatus, Memory, NewMemory
from app.store.embedded import EmbeddedPostgres
from app.store.postgresql import PostgresStore
from app.store.postgresql.connections import Connections
from app.store.protocol import Store
from app.store.sqlite import SqliteStore
from app.tokens import document_words
from tests.processes import serving

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
BATCH = 500
PROJECTS = 20
REPEATS = 3
MODES = ("fts", "semantic", "hybrid")
SETTLING_SECONDS = 3.0
MAX_CODE_BYTES = 1024 * 1024
LONG = 100_000
"""Characters of the longest query that is taken."""

COMMON = "self return def name value none if in get set data class import test type true path list is not".split()
LANGUAGES = {0: "rust", 1: "go"}
"""Of one memory in a hundred each; the others are Python."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds that one kind of query took in one mode."""

    store: str
    memories: int
    kind: str
    mode: str
    p50_ms: float
    p95_ms: float
    slowest_ms: float
    worst_ms: float


def codes() -> Iterator[tuple[str, str]]:
    """Path and code: of each module the module, its classes and its functions, in an order that mixes packages."""
    folders = {Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib")}
    files = sorted({path for folder in folders for path in folder.rglob("*.py")})
    Random(0).shuffle(files)
    seen: set[str] = set()
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace").replace("\0", "")
        for code in [text, *_definitions(text)]:
            if code.strip() and len(code.encode()) <= MAX_CODE_BYTES and code not in seen:
                seen.add(code)
                yield "/".join(path.parts[-4:]), code


def _definitions(text: str) -> Iterator[str]:
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    lines = text.splitlines(keepends=True)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield "".join(lines[node.lineno - 1 : node.end_lineno])


def memory(at: int, file_path: str, code: str) -> NewMemory:
    """Memory number `at`, of a project of a twentieth and a session of twenty."""
    one = Memory(
        id=UUID(int=at + 1), project=f"p{at % PROJECTS}", file_path=file_path, new_code=code, old_code=None,
        context=None, session_id=f"s{at // 20}", agent_id=f"a{at % 1000}", language=LANGUAGES.get(at % 100, "python"),
        timestamp=NOON + timedelta(minutes=at), created_at=NOON, embedding_status=EmbeddingStatus.READY, import_id=None,
    )  # fmt: skip
    return NewMemory(one, document_words(file_path, code, None), None)


async def fill(store: Store, rows: Iterator[tuple[int, tuple[str, str]]], embedder: HashingEmbedder) -> None:
    """Stores them with their vectors; of very long code the beginning is embedded, as a model does."""
    while batch := list(islice(rows, BATCH)):
        new = [memory(at, *code) for at, code in batch]
        await store.memories.add(new, NOON)
        vectors = embedder.embed([row.memory.new_code[:1500] for row in new])
        keys = [row.memory.key for row in new]
        await store.embeddings.save(MODEL, dict(zip(keys, vectors, strict=True)))
    await store.memories.refresh_frequencies()
    await store.embeddings.ensure_index(MODEL)


def asked(sample: Sequence[tuple[str, str]], count: int) -> dict[str, list[dict[str, Any]]]:
    """Requests by kind; made of the code that both sizes hold."""
    random = Random(1)
    short = [code for _, code in sample if 100 < len(code) < 3000]

    def common(words: int) -> str:
        return " ".join(random.sample(COMMON, words))

    def some_code() -> str:
        return random.choice(short)

    def words_of(code: str, number: int) -> str:
        words = [word for word in code.replace("(", " ").replace(".", " ").split() if word.isalpha()] or ["value"]
        at = random.randrange(len(words))
        return " ".join(words[at : at + number])

    def long_text() -> str:
        return "\n".join(some_code() for _ in range(200))[:LONG]

    filters: list[dict[str, Any]] = [
        {"projects": ["p3"]},
        {"projects": [f"p{number}" for number in range(0, PROJECTS, 2)]},
        {"session_id": "s77"},
        {"language": "rust"},
        {"language": "python"},
        {"path_prefix": "site-packages/"},
        {"path_prefix": sample[0][0].rsplit("/", 1)[0]},
        {"file_path": sample[1][0]},
        {"since": str(NOON + timedelta(minutes=5000))},
    ]
    phrases = ['"return self"', '"self name"', '"if not"', '"is none" get']
    made: dict[str, Callable[[], dict[str, Any]]] = {
        "name": lambda: {"query": some_code().partition("(")[0].split()[-1][:100] or "run"},
        "words": lambda: {"query": words_of(some_code(), 6)},
        "common words": lambda: {"query": common(random.choice([1, 2, 4, 6, 12]))},
        "phrase": lambda: {"query": f'"{common(2)}" "{words_of(some_code(), 2)}" {common(2)}'},
        "common phrase": lambda: {"query": random.choice(phrases)},
        "excluded": lambda: {"query": f"{common(4)} -{random.choice(COMMON)} -{random.choice(COMMON)}"},
        "all words": lambda: {"query": common(random.choice([2, 3, 6])), "match": "all"},
        "filtered": lambda: {"query": common(4), **random.choice(filters)},
        "filtered, excluded": lambda: {"query": f"{common(3)} -{random.choice(COMMON)}", **random.choice(filters)},
        "100 hits": lambda: {"query": common(4), "limit": 100},
        "code": lambda: {"query": some_code()},
        "100 kB of code": lambda: {"query": long_text()},
    }
    return {kind: [make() for _ in range(count)] for kind, make in made.items()}


def measure(address: str, store: str, memories: int, requests: Mapping[str, Sequence[dict[str, Any]]]) -> list[Timing]:
    """Asks everything, one request after the other."""
    timings = []
    with httpx.Client(base_url=address, timeout=120) as client:
        for kind, bodies in requests.items():
            for mode in MODES:
                best, every = [], []
                for body in bodies:
                    times = []
                    for _ in range(REPEATS):
                        started = time.perf_counter()
                        client.post(f"/v1/search/{mode}", json=body).raise_for_status()
                        times.append(1000 * (time.perf_counter() - started))
                    best.append(min(times))
                    every += times
                timing = Timing(
                    store,
                    memories,
                    kind,
                    mode,
                    p50_ms=round(statistics.median(every), 1),
                    p95_ms=round(statistics.quantiles(every, n=20)[-1], 1),
                    slowest_ms=round(max(best), 1),
                    worst_ms=round(max(every), 1),
                )
                timings.append(timing)
                print_row(list(asdict(timing).values()))
    return timings


async def prepared_postgresql(server: str, count: int, sample: Sequence[tuple[str, str]]) -> str:
    """The URL of a database that holds the first `count` memories."""
    name = f"memories_{count}"
    connection = await asyncpg.connect(server)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    url = server.replace("/afterimage?", f"/{name}?")
    store = PostgresStore(Connections({"dsn": url}, 1, 4, 30, 600), MODEL)
    await store.open()
    await fill(store, iter(enumerate(sample[:count])), HashingEmbedder())
    await store.close()
    connection = await asyncpg.connect(url)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()
    return url


async def prepared_sqlite(folder: Path, count: int, sample: Sequence[tuple[str, str]]) -> Path:
    """A file that holds the first `count` memories."""
    path = folder / f"memories_{count}.db"
    store = SqliteStore(path, MODEL)
    await store.open()
    await fill(store, iter(enumerate(sample[:count])), HashingEmbedder())
    await store.close()
    return path


@contextmanager
def service(home: Path, **settings: str) -> Iterator[str]:
    """The address of a service that has read its vectors; it logs no requests, which nobody would read."""
    with serving(home, AFTERIMAGE_LOG_LEVEL="warning", **settings) as (address, _):
        httpx.post(f"{address}/v1/search/hybrid", json={"query": "first"}, timeout=120).raise_for_status()
        time.sleep(SETTLING_SECONDS)
        yield address


def print_row(cells: Sequence[object]) -> None:
    """A row of the table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def main() -> None:
    """Reads the arguments and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[6000, 60_000], help="memories")
    parser.add_argument("--queries", type=int, default=20, help="of each kind")
    parser.add_argument("--store", choices=["postgresql", "sqlite"], help="this one alone")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    sample = list(islice(codes(), max(arguments.sizes)))
    requests = asked(sample[: min(arguments.sizes)], arguments.queries)
    names = list(Timing.__dataclass_fields__)
    print_row(names)
    print_row(["---"] * len(names))
    timings: list[Timing] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.store != "sqlite":
            server = EmbeddedPostgres(folder / "postgres")
            try:
                url = server.start()
                for size in arguments.sizes:
                    database = asyncio.run(prepared_postgresql(url, size, sample))
                    with service(folder, AFTERIMAGE_BACKEND="postgresql", AFTERIMAGE_DATABASE_URL=database) as at:
                        timings += measure(at, "postgresql", size, requests)
            finally:
                server.stop()
                shutil.rmtree(server.home)
        if arguments.store != "postgresql":
            for size in arguments.sizes:
                path = asyncio.run(prepared_sqlite(folder, size, sample))
                with service(folder, AFTERIMAGE_SQLITE_PATH=str(path)) as at:
                    timings += measure(at, "sqlite", size, requests)
    print(json.dumps([asdict(timing) for timing in timings]))


if __name__ == "__main__":
    main()
