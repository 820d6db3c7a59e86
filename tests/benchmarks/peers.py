"""Peers on the same data, each through its own interface and on a store of its own; the service over HTTP."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from tests.benchmarks.imports import database
from tests.benchmarks.report import Figure, Measured, rate_figure
from tests.benchmarks.rows import Corpus, body, request
from tests.benchmarks.searches import distinct_queries, parted
from tests.benchmarks.served import Service, new_database, scratch_postgres, served
from tests.benchmarks.sides import Comparison, HttpSide, Sample, by_turns, run_side
from tests.peers import ai_afterimage, chroma

PART = "peers"
WRITERS = 16
SEARCHED = 300
"""Memories that are searched: AI-AfterImage 0.8.0 takes half a minute to store so many."""
TIMES_AS_FAST = {"AI-AfterImage 0.7.0": 3.0, "AI-AfterImage 0.8.0": 20.0}


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer on one kind of store; `where` is a URL or a path."""

    name: str
    kind: str
    python: str
    where: str

    def run(self, corpus: Corpus, seconds: float, action: str, *, writers: int, with_vectors: bool = True) -> Sample:
        """One round of something, or the storing of what is searched."""
        rows = list(zip(corpus.paths, corpus.codes, corpus.vectors.tolist(), strict=True))
        rows = [(path, code, vector if with_vectors else None) for path, code, vector in rows]
        side: dict[str, Any] = {
            "peer": self.kind,
            "where": self.where,
            "action": action,
            "rows": rows[:SEARCHED] if action == "store" else rows,
            "queries": list(zip(corpus.queries, corpus.vectors[: len(corpus.queries)].tolist(), strict=True)),
            "writers": writers,
            "seconds": seconds,
        }
        return run_side("peer_side", side, python=self.python)


def measure(corpus: Corpus, folder: Path, models: Path, seconds: float, rounds: int) -> Iterator[Figure]:
    """All peers."""
    versions = {version: ai_afterimage(version) for version in ("0.7.0", "0.8.0")}
    with scratch_postgres(folder / "postgres") as url:
        peers = [
            Peer(f"AI-AfterImage {version}", "postgres", python, _database(url, f"peer_{version.replace('.', '_')}"))
            for version, python in versions.items()
        ]
        beneath = _database(url, "peer_beneath")
        peers.append(Peer("AI-AfterImage 0.7.0, asyncpg, not exported", "asyncpg", versions["0.7.0"], beneath))
        peers.append(Peer("Chroma", "chroma", chroma(), str(folder / "chroma")))
        for number, peer in enumerate(peers):
            # Each time a service of its own, which has nothing left to embed from the last.
            ours = new_database(url, f"ours_{number}")
            with served(folder / f"postgresql-{number}", models, database_url=ours) as service:
                yield from Match(peer, service, "postgresql", corpus, seconds, rounds).figures()
    for version, python in versions.items():
        peer = Peer(f"AI-AfterImage {version}", "sqlite", python, str(folder / f"peer-{version}.db"))
        home = folder / f"sqlite-{version}"
        with served(home, models, backend="sqlite", sqlite_path=str(home / "ours.db")) as service:
            yield from Match(peer, service, "sqlite", corpus, seconds, rounds).figures()


@dataclass(frozen=True, slots=True)
class Match:
    """A peer and the service, by turns."""

    peer: Peer
    service: Service
    store: str
    corpus: Corpus
    seconds: float
    rounds: int

    def figures(self) -> Iterator[Figure]:
        """Searches first, while there is little to search; what leaves work to the background last."""
        if self.peer.kind != "asyncpg":
            yield from self._searches()
        yield self._write(with_vectors=True)
        if self.peer.kind != "chroma":
            yield self._write(with_vectors=False)

    def _searches(self) -> Iterator[Figure]:
        with self.service.paused():
            self.peer.run(self.corpus, 1.0, "store", writers=4)
        rows = [body(*row) for row in self.corpus.variations(SEARCHED)]
        self.service.ask("/v1/memories/batch", {"memories": rows})
        for mode in ("fts", "semantic"):
            yield self._search(mode)

    def _search(self, mode: str) -> Figure:
        # Each once, in all rounds: the service keeps the vectors of queries that come twice.
        queries = distinct_queries(self.corpus.queries)
        [rounds] = parted(queries, 1, self.rounds + 1, len(queries))
        requests = [
            [request(f"/v1/search/{mode}", {"query": query, "limit": 10}) for query in asked] for asked in rounds
        ]
        compared = self._by_turns(iter(requests), 1, lambda: self.peer.run(self.corpus, self.seconds, mode, writers=1))
        name = f"{self.peer.name}, vector given" if mode == "semantic" else self.peer.name
        case = f"{mode} among {SEARCHED}, {self.store}"
        ours, theirs = Measured.of("service", compared.ours), Measured.of(name, compared.theirs)
        return Figure(PART, case, ours, theirs, "p50", round(compared.ratio(50), 3), round(compared.excess(50), 2))

    def _write(self, *, with_vectors: bool) -> Figure:
        bodies = [body(*row) if with_vectors else body(row[0], row[1], None) for row in self._rows()]
        compared = self._by_turns(
            repeat([request("/v1/memories", one) for one in bodies]),
            WRITERS,
            lambda: self.peer.run(self.corpus, self.seconds, "write", writers=WRITERS, with_vectors=with_vectors),
        )
        promised = None
        if self.store == "postgresql" and not with_vectors:
            promised = TIMES_AS_FAST.get(self.peer.name)
        vectors = "with vectors" if with_vectors else "without vectors"
        case = f"{WRITERS} writers, single, {vectors}, {self.store}"
        return rate_figure(PART, case, self.peer.name, compared, promised)

    def _rows(self) -> list[Any]:
        return list(self.corpus.variations(len(self.corpus)))

    def _by_turns(self, rounds: Iterator[list[bytes]], connections: int, theirs: Callable[[], Sample]) -> Comparison:
        def ours() -> Sample:
            return run_side("load", HttpSide(self.service.port, next(rounds), connections, self.seconds))

        def paused() -> Sample:
            with self.service.paused():
                return theirs()

        samples = by_turns(self.rounds, {"ours": ours, "theirs": paused})
        return Comparison(samples["ours"], samples["theirs"])


def _database(url: str, name: str) -> str:
    return asyncio.run(database(url, name))
