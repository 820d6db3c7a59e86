"""A peer, used through its own interface, in its own environment: nothing here but the standard library and the peer.

    python -m tests.benchmarks.peer_side < side

The side is a pickled dict: `peer`, `where`, `action` (`store`, `write`, `fts`, `semantic`), `rows` of (path, code,
vector or None), `queries` of (text, vector), `writers`, `seconds`.
"""

# mypy: disable-error-code="import-not-found"

import asyncio
import pickle
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count, cycle
from typing import Any

from tests.benchmarks.tally import Tally


def on_postgres(side: dict[str, Any]) -> Tally:
    """The backend that AI-AfterImage exports for parallel agents: calls that block, from threads."""
    from afterimage.storage import SyncPostgreSQLBackend

    backend = SyncPostgreSQLBackend(connection_string=side["where"])
    backend.initialize()
    return in_threads(side, lambda what: _call(backend, side["action"], what))


async def on_asyncpg(side: dict[str, Any]) -> Tally:
    """What lies below: AI-AfterImage's asyncpg code, which it does not export."""
    from afterimage.storage.postgres_backend import AsyncPostgreSQLBackend, PostgreSQLBackend

    backend = AsyncPostgreSQLBackend(PostgreSQLBackend(connection_string=side["where"]))
    await backend.initialize()
    tally = Tally(side["seconds"])
    items = cycle(_items(side))

    async def work() -> None:
        while not tally.over:
            item = next(items)
            started = time.perf_counter()
            try:
                await _call(backend, side["action"], item)
            except Exception as error:  # noqa: BLE001 - counted
                tally.note(started, type(error).__name__)
            else:
                tally.note(started)

    await asyncio.gather(*(work() for _ in range(side["writers"])))
    return tally


def in_threads(side: dict[str, Any], do: Callable[[Any], object]) -> Tally:
    """Calls that block, from as many threads as there are writers."""
    tally = Tally(side["seconds"])
    items, numbers = _items(side), count()

    def work() -> None:
        while not tally.over or side["action"] == "store":
            number = next(numbers)
            if side["action"] == "store" and number >= len(items):
                return
            started = time.perf_counter()
            try:
                do(items[number % len(items)])
            except Exception as error:  # noqa: BLE001 - counted
                tally.note(started, type(error).__name__)
            else:
                tally.note(started)

    with ThreadPoolExecutor(side["writers"]) as threads:
        for _ in range(side["writers"]):
            threads.submit(work)
    return tally


def on_sqlite(side: dict[str, Any]) -> Tally:
    """AI-AfterImage's SQLite backend."""
    from afterimage.storage.sqlite_backend import SQLiteBackend

    backend = SQLiteBackend(side["where"])
    backend.initialize()
    return in_threads(side, lambda what: _call(backend, side["action"], what))


def on_chroma(side: dict[str, Any]) -> Tally:
    """Chroma in this process, the fastest way to it; vectors are given, its own model comes from a hub."""
    import chromadb

    client = chromadb.PersistentClient(side["where"], chromadb.Settings(anonymized_telemetry=False))
    collection = client.get_or_create_collection("bench", embedding_function=None)
    numbers = count(time.time_ns())

    def do(what: Any) -> object:
        if side["action"] in {"store", "write"}:
            path, code, vector = what
            return collection.add(str(next(numbers)), [vector], [{"file_path": path}], [code])
        if side["action"] == "semantic":
            return collection.query(query_embeddings=[what[1]], n_results=10)
        longest = max(what[0].split(), key=len)
        return collection.get(where_document={"$contains": longest}, limit=10)

    return in_threads(side, do)


def _call(backend: Any, action: str, what: Any) -> Any:
    if action == "fts":
        return backend.search_fts(query=what[0])
    if action == "semantic":
        return backend.search_semantic(embedding=what[1])
    path, code, vector = what
    return backend.store(file_path=path, new_code=code, embedding=vector)


def _items(side: dict[str, Any]) -> list[Any]:
    return list(side["rows"] if side["action"] in {"store", "write"} else side["queries"])


def main() -> None:
    """Runs the side that comes on standard input."""
    side = pickle.load(sys.stdin.buffer)
    if side["peer"] == "asyncpg":
        tally = asyncio.run(on_asyncpg(side))
    else:
        tally = {"postgres": on_postgres, "sqlite": on_sqlite, "chroma": on_chroma}[side["peer"]](side)
    tally.tell()


if __name__ == "__main__":
    main()
