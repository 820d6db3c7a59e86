"""Work at the same time: embedding beside the bare model, reads beside writes, and both beside a backfill."""

import pickle
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from app.embedding.embedder import document_text
from app.embedding.onnx import OnnxEmbedder
from tests.benchmarks.report import Figure, Measured, Target
from tests.benchmarks.rows import Corpus, request
from tests.benchmarks.served import Service, execute, fetch_value, new_database, scratch_postgres, served
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

        def backfill() -> Sample:
            self.queue_all()
            time.sleep(self.seconds / 4)  # until it is at full speed
            before, began = self._embedded(), time.perf_counter()
            time.sleep(self.seconds)
            embedded, spent = self._embedded() - before, time.perf_counter() - began
            return Sample(spent, [1000 * spent / max(embedded, 1)] * embedded)

        def bare() -> Sample:
            with self.service.paused():
                return run_side("background", ModelSide(models, texts, self.seconds))

        samples = by_turns(self.rounds, {"service": backfill, "model": bare})
        compared = Comparison(samples["service"], samples["model"])
        ours = Measured("backfill", rate=round(Sample.together(compared.ours).rate, 1))
        theirs = Measured("onnxruntime", rate=round(Sample.together(compared.theirs).rate, 1))
        return Figure(PART, "memories embedded", ours, theirs, "rate", round(compared.rate_ratio, 3))

    def reads_beside_writes(self) -> Iterator[Figure]:
        """Searches while 16 writers write, against the same when nobody does."""
        self.store_all()
        writes = Form(1, with_vectors=True).requests(self.corpus)
        for mode in ("fts", "semantic"):
            queries = [request(f"/v1/search/{mode}", {"query": query}) for query in self.corpus.queries]
            reads = HttpSide(self.service.port, queries, 1, self.seconds)

            def busy(reads: HttpSide = reads) -> Sample:
                others = start_side("load", HttpSide(self.service.port, writes, WRITERS, self.seconds + 1))
                sample = run_side("load", reads)
                end_side(others)
                return sample

            def alone(reads: HttpSide = reads) -> Sample:
                return run_side("load", reads)

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

            def busy(side: HttpSide = side) -> Sample:
                self.queue_all()
                time.sleep(0.5)
                sample = run_side("load", side)
                if fetch_value(self.database, QUEUED) == 0:
                    raise RuntimeError("the backfill was done before the measurement")
                return sample

            def quiet(side: HttpSide = side) -> Sample:
                execute(self.database, "DELETE FROM embedding_queue")
                self._rest()
                return run_side("load", side)

            yield self._beside(f"{name} beside a backfill", busy, quiet, "no backfill", MAX_SLOWDOWN)

    def store_all(self) -> None:
        """Every function, with its vector."""
        for start in range(0, len(self.corpus), 100):
            end = start + 100
            self.service.ask(
                "/v1/memories/batch",
                {
                    "memories": [
                        {"project": "bench", "file_path": path, "new_code": code, "embedding": vector.tolist()}
                        for path, code, vector in list(self.corpus.variations(len(self.corpus)))[start:end]
                    ]
                },
            )

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
        execute(self.database, "TRUNCATE memories CASCADE")
        self._rest()

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
        return Figure(
            PART, case, ours, theirs, "p95", round(ratio, 3), round(statistics.median([compared.excess(50)]), 2), target
        )


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
