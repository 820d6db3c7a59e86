from pathlib import Path

import pytest

from app.embedding.embedder import document_text, model_identity, open_embedder, query_text
from app.embedding.hashing import HashingEmbedder
from app.embedding.onnx import OnnxEmbedder
from app.embedding.sentence_transformers import SentenceTransformerEmbedder


@pytest.mark.parametrize(
    ("model", "device", "embedder"),
    [
        ("hashing", "cpu", HashingEmbedder),
        ("hashing-384", "cpu", HashingEmbedder),
        ("hashing-100", "cpu", HashingEmbedder),
        ("all-MiniLM-L6-v2", "cpu", OnnxEmbedder),
        ("sentence-transformers/all-MiniLM-L6-v2", "cpu", OnnxEmbedder),
        ("all-MiniLM-L6-v2", "cuda", SentenceTransformerEmbedder),
        ("all-mpnet-base-v2", "cpu", SentenceTransformerEmbedder),
    ],
)
def test_an_embedder_is_chosen_by_model_and_device(model: str, device: str, embedder: type, tmp_path: Path) -> None:
    opened = open_embedder(model, device, tmp_path)
    assert type(opened) is embedder
    assert opened.model == model_identity(model)


def test_a_document_names_the_end_of_its_path() -> None:
    assert document_text("/home/me/project/app/main.py", "run()") == "File: project/app/main.py\nrun()"


def test_a_short_path_is_kept_whole() -> None:
    assert document_text("main.py", "run()") == "File: main.py\nrun()"


def test_a_tab_becomes_four_spaces() -> None:
    assert document_text("a.py", "if x:\n\ty()") == "File: a.py\nif x:\n    y()"


def test_a_text_of_1500_characters_is_kept_whole() -> None:
    assert query_text("x" * 1500) == "x" * 1500


def test_a_longer_text_loses_its_middle() -> None:
    assert query_text("a" * 800 + "b" * 800) == "a" * 750 + "\n...\n" + "b" * 750


def test_tabs_count_as_four_characters() -> None:
    assert query_text("x" + "\t" * 400 + "y") == "x" + " " * 749 + "\n...\n" + " " * 749 + "y"


def test_space_around_a_query_is_dropped() -> None:
    assert query_text("\n  parse json \n") == "parse json"
