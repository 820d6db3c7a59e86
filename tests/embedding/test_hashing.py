import subprocess
import sys
from itertools import product
from string import ascii_lowercase

import numpy as np
import pytest

from app.embedding.hashing import HashingEmbedder, dimensions_of, words

TEXTS = ["def parse_header(line):", "read the HTTP header", "", "größe = 2"]


def test_a_vector_is_the_same_in_every_process() -> None:
    program = (
        f"from app.embedding.hashing import HashingEmbedder\nprint(HashingEmbedder().embed({TEXTS!r}).tobytes().hex())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert outputs == {HashingEmbedder().embed(TEXTS).tobytes().hex()}


def test_a_name_may_give_the_dimensions() -> None:
    embedder = HashingEmbedder(100)
    assert (embedder.model, embedder.embed(TEXTS).shape) == ("hashing-100", (len(TEXTS), 100))
    assert [dimensions_of(name) for name in ("hashing", "hashing-1", "hashing-384", "hashing-9999")] == [
        384,
        1,
        384,
        9999,
    ]


@pytest.mark.parametrize("name", ["hashing-", "hashing-0", "hashing-10000", "hashing-1.5", "hashing-٣", "my-hashing"])
def test_other_names_are_other_models(name: str) -> None:
    assert dimensions_of(name) is None


def test_texts_that_share_words_are_closer() -> None:
    query, near, far = HashingEmbedder().embed(["parse header", "def parse_header(line):", "class Matrix: rows = 3"])
    assert query @ near > 0.5 > query @ far


def test_words_that_cancel_each_other_out_still_give_a_unit_vector() -> None:
    embedder = HashingEmbedder()
    [first] = embedder.embed(["word"])
    others = ("".join(letters) for letters in product(ascii_lowercase, repeat=3))
    opposite = next(other for other in others if np.array_equal(embedder.embed([other])[0], -first))
    [vector] = embedder.embed([f"word {opposite}"])
    assert np.linalg.norm(vector) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("getUserById", ["getuserbyid", "get", "user", "by", "id"]),
        ("HTTPServer", ["httpserver", "http", "server"]),
        ("snake_case_2", ["snake_case_2", "snake", "case", "2"]),
        ("sha256", ["sha256", "sha", "256"]),
        ("a + b", ["a", "b"]),
        ("Größe", ["größe"]),
        ("__init__", ["__init__", "init"]),
    ],
)
def test_identifiers_are_split(text: str, expected: list[str]) -> None:
    assert list(words(text)) == expected


def test_importing_and_hashing_loads_no_model_library() -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "import app.embedding.worker\n"
        "from app.embedding.embedder import open_embedder\n"
        "embedder = open_embedder('hashing', 'cpu', Path('models'))\n"
        "embedder.load()\n"
        "embedder.embed(['text'])\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'onnx', 'onnxruntime', 'tokenizers'}\n"
        "print(heavy & set(sys.modules))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
