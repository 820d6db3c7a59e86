"""Work at the same time: embedding beside the bare model, reads beside writes, and both beside a backfill."""

import pickle
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from app.embedding.embedder import document_text
from app.embedding.onnx import OnnxEmbedder
from tests.benchmarks.report import Figure, Measured, Target
from tests.benchmarks.rows import Corpus, body, request
from tests.benchmarks.searches import distinct_queries
from tests.benchmarks.served import (
    Service,
    execute,
    fetch_value,
    forget_memories,
    new_database,
    scratch_postgres,
    served,
)
from tests.benchmarks.sides import Comparison, HttpSide, Sample, by_turns, end_side, run_side, start_side
from tests.benchmarks.tally import Tally
from tests.benchmarks.writers import Form

PART = "background"
WRITERS = 16
CLIENTS = 4
"""Of the writes, and of the text searches, that a backfill may slow."""
MAX_SLOWDOWN = 1.5
QUEUED = "SELECT count(*) FROM embedding_queue WHERE whole AND due_at IS NOT NULL"


@dataclass(frozen=True, slots=True)
class ModelSide:
    """Texts for the bare model, one after the other."""

    models: Path
    texts: list[str]
    seconds: float


def measure(corpus: Corpus, folder: Path, models: Path, seconds: float, rounds: int) -> Iterator[Figure]:
    """On PostgreSQL."""
    with scratch_postgres(folder / "postgres") as url:
        database = new_database(url, "background")
        with served(folder / "service", models, database_url=database) as service:
            scene = Scene(service, database, corpus, seconds, rounds)
            yield scene.embedding(models)
            scene.clear()
            yield from scene.reads_beside_writes()
            scene.clear()
            yield from scene.beside_a_backfill()


@dataclass(frozen=True, slots=True)
class Scene:
    """A service with its database."""

    service: Service
    database: str
    corpus: Corpus
    seconds: float
    rounds: int

    def embedding(self, models: Path) -> Figure:
        """Memories that the backfill embeds a second, and texts that the bare model does."""
        texts = [document_text(*pair) for pair in zip(self.corpus.paths, self.corpus.codes, strict=True)]

        def bare() -> Sample:
            with self.service.paused():
                return run_side("background", ModelSide(models, texts, self.seconds))

        samples = by_turns(self.rounds, {"service": self._backfill_alone, "model": bare})
        return _paces("memories embedded", Comparison(samples["service"], samples["model"]), "onnxruntime")

    def reads_beside_writes(self) -> Iterator[Figure]:
        """Searches while 16 writers write, against the same when nobody does."""
        self.store_all()
        writes = Form(1, with_vectors=True).requests(self.corpus)
        queries = distinct_queries(self.corpus.queries)
        for mode in ("fts", "semantic"):
            turns = count()

            def alone(mode: str = mode, turns: Iterator[int] = turns) -> Sample:
                asked = queries[next(turns) :: 2 * (self.rounds + 1)]  # none of which it has a vector of yet
                bodies = [request(f"/v1/search/{mode}", {"query": query}) for query in asked]
                return run_side("load", HttpSide(self.service.port, bodies, 1, self.seconds))

            def busy(alone: Callable[[], Sample] = alone) -> Sample:
                others = start_side("load", HttpSide(self.service.port, writes, WRITERS, self.seconds + 1))
                sample = alone()
                end_side(others)
                return sample

            yield self._beside(f"{mode} beside {WRITERS} writers", busy, alone, "nobody writes", None)

    def beside_a_backfill(self) -> Iterator[Figure]:
        """Writes and text searches while the backfill works at full speed, against the same when it rests."""
        self.store_all()
        queries = [request("/v1/search/fts", {"query": query}) for query in self.corpus.queries]
        sides = {
            "writes": HttpSide(
                self.service.port, Form(1, with_vectors=True).requests(self.corpus), CLIENTS, self.seconds
            ),
            "fts": HttpSide(self.service.port, queries, CLIENTS, self.seconds),
        }
        for name, side in sides.items():
            paces: list[Sample] = []

            def busy(side: HttpSide = side, paces: list[Sample] = paces) -> Sample:
                samples: list[Sample] = []
                paces.append(self._backfill(lambda: samples.append(run_side("load", side))))
                return samples[0]

            def quiet(side: HttpSide = side) -> Sample:
                execute(self.database, "DELETE FROM embedding_queue")
                self._rest()
                return run_side("load", side)

            yield self._beside(f"{name} beside a backfill", busy, quiet, "no backfill", MAX_SLOWDOWN)
            alone = [self._backfill_alone() for _ in paces]
            yield _paces(f"memories embedded beside {name}", Comparison(paces[1:], alone[1:]), "nobody asks")

    def store_all(self) -> None:
        """Every function, with its vector."""
        memories = [body(*row) for row in self.corpus.variations(len(self.corpus))]
        for at in range(0, len(memories), 100):
            self.service.ask("/v1/memories/batch", {"memories": memories[at : at + 100]})

    def queue_all(self) -> None:
        """Takes the vectors of all memories away, so that the backfill makes them anew."""
        if fetch_value(self.database, "SELECT count(*) FROM memories") == 0:
            self.store_all()
        execute(
            self.database,
            "DELETE FROM embeddings",
            "INSERT INTO embedding_queue (project, memory_id, model, due_at) "
            "SELECT project, id, 'all-MiniLM-L6-v2', now() FROM memories ON CONFLICT DO NOTHING",
        )

    def clear(self) -> None:
        """Forgets everything."""
        forget_memories(self.database)
        self._rest()

    def _backfill_alone(self) -> Sample:
        return self._backfill(lambda: time.sleep(self.seconds))

    def _backfill(self, during: Callable[[], object]) -> Sample:
        """What it embeds of all memories meanwhile; other memories come with their vectors."""
        self.queue_all()
        time.sleep(0.5)  # until it is at full speed
        before, began = fetch_value(self.database, QUEUED), time.perf_counter()
        during()
        left, spent = fetch_value(self.database, QUEUED), time.perf_counter() - began
        if left == 0:
            raise RuntimeError("the backfill was done before the measurement")
        embedded = before - left
        return Sample(spent, [1000 * spent / max(embedded, 1)] * embedded)

    def _embedded(self) -> int:
        return int(fetch_value(self.database, "SELECT count(*) FROM embeddings"))

    def _rest(self) -> None:
        """Returns when the model has nothing left of what was claimed."""
        before = -1
        while before != (before := self._embedded()):
            time.sleep(1.0)

    def _beside(
        self, case: str, busy: Callable[[], Sample], quiet: Callable[[], Sample], name: str, limit: float | None
    ) -> Figure:
        samples = by_turns(self.rounds, {"busy": busy, "quiet": quiet})
        compared = Comparison(samples["busy"], samples["quiet"])
        ratio = compared.ratio(95)
        target = None if limit is None else Target(f"at most {limit:g}", ratio <= limit)
        ours, theirs = Measured.of("service", compared.ours), Measured.of(name, compared.theirs)
        return Figure(PART, case, ours, theirs, "p95", round(ratio, 3), round(compared.excess(50), 2), target)


def _paces(case: str, compared: Comparison, name: str) -> Figure:
    """Of all rounds together: the backfill stores what it embeds several memories at a time."""
    ours = Measured("backfill", round(Sample.together(compared.ours).rate, 1))
    theirs = Measured(name, round(Sample.together(compared.theirs).rate, 1))
    ratio = Sample.together(compared.ours).rate / Sample.together(compared.theirs).rate
    return Figure(PART, case, ours, theirs, "rate", round(ratio, 3))


def run(side: ModelSide) -> Tally:
    """The bare model, one text after the other."""
    embedder = OnnxEmbedder(side.models)
    embedder.load()
    tally = Tally(side.seconds)
    at = 0
    while not tally.over:
        started = time.perf_counter()
        embedder.embed([side.texts[at % len(side.texts)]])
        tally.note(started)
        at += 1
    return tally


if __name__ == "__main__":
    # What is unpickled names this module as it is imported, not as it is run.
    from tests.benchmarks.background import run as run_model

    run_model(pickle.load(sys.stdin.buffer)).tell()
