"""The benchmark of the service, at a size at which its figures mean nothing: that it still runs."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from app.search import SearchMode
from tests.benchmarks import searches, writers
from tests.benchmarks.plot import plot
from tests.benchmarks.report import as_json
from tests.benchmarks.rows import Corpus
from tests.benchmarks.served import new_database
from tests.effort import FULL


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    vectors = np.random.default_rng(0).standard_normal((20, 384)).astype(np.float32)
    numbers = range(len(vectors))
    return Corpus(
        [f"src/part{number}.py" for number in numbers],
        [f"def part{number}(line): return line.partition(':')" for number in numbers],
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        [f"Return the part of line number {number}." for number in numbers],
    )


def test_writers_are_measured_beside_hand_written_code(corpus: Corpus, tmp_path: Path, models: Path) -> None:
    effort = writers.Effort(seconds=0.2, rounds=1, writers=(2,))
    [figure] = writers.sqlite(corpus, tmp_path, models, effort, writers.Form(batch=1, with_vectors=True))
    assert figure.ours.rate
    assert figure.theirs.rate
    assert figure.ours.errors == 0


def test_searches_are_measured_beside_their_own_statements(
    corpus: Corpus, tmp_path: Path, models: Path, postgres_url: Callable[[int], str]
) -> None:
    database = new_database(postgres_url(18), "bench")
    effort = searches.Effort(seconds=0.2, rounds=1, sizes=(20,), queries=100, modes=(SearchMode.HYBRID,))
    searches.fill_database(database, corpus, 0, 20)
    [figure] = searches.at_size(corpus, tmp_path, models, effort, 20, database)
    assert figure.ours.rate
    assert figure.theirs.rate
    assert figure.ours.errors == 0
    told = json.loads(as_json([figure]))["figures"]
    assert "hybrid, bare" in ElementTree.fromstring(plot(told)).itertext()


def test_no_query_is_asked_twice(corpus: Corpus) -> None:
    queries = searches.distinct_queries(corpus.queries)
    parts = searches.parted(queries, 6, 3, 200)
    assert [len(rounds) for rounds in parts] == [3] * 6
    assert len({len(asked) for rounds in parts for asked in rounds}) == 1
    asked = [query for rounds in parts for asked in rounds for query in asked]
    assert len(asked) == len(set(asked)) > 200
    assert searches.parted(queries, 2, 1, 5) == [[queries[:5]], [queries[5:10]]]


@pytest.mark.skipif(not FULL, reason="takes a minute or two")
def test_all_of_it_runs() -> None:
    few = ("--seconds", "0.3", "--rounds", "1", "--writers", "2", "--sizes", "500")
    run = subprocess.run([sys.executable, "-m", "tests.benchmarks", *few], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "start-up" in run.stdout
