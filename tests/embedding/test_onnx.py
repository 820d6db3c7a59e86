import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.embedding.onnx import OnnxEmbedder
from app.embedding.sentence_transformers import SentenceTransformerEmbedder
from app.errors import UnavailableError

pytestmark = pytest.mark.model

TEXTS = [
    "parse a date",
    "def parse_date(text):\n    return datetime.strptime(text, '%Y-%m-%d')",
    "class Matrix:\n" + "    def total(self, rows):\n        return sum(rows)\n" * 40,
]

PROGRAM = """
import sys
from pathlib import Path
from app.embedding.onnx import OnnxEmbedder
embedder = OnnxEmbedder(Path(sys.argv[1]))
embedder.load()
embedder.embed(["text"])
print(sorted({"torch", "transformers", "sentence_transformers", "onnx"} & set(sys.modules)))
"""


def loaded(folder: Path) -> OnnxEmbedder:
    embedder = OnnxEmbedder(folder)
    embedder.load()
    return embedder


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> OnnxEmbedder:
    return loaded(tmp_path_factory.mktemp("models"))


def test_vectors_are_close_to_those_of_sentence_transformers(embedder: OnnxEmbedder) -> None:
    original = SentenceTransformerEmbedder("all-MiniLM-L6-v2", "cpu")
    original.load()
    cosines = (embedder.embed(TEXTS) * original.embed(TEXTS)).sum(axis=1)
    assert cosines.min() > 0.99


def test_vectors_have_384_dimensions_and_unit_length(embedder: OnnxEmbedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimensions)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)


def test_an_empty_text_has_a_vector_too(embedder: OnnxEmbedder) -> None:
    assert np.linalg.norm(embedder.embed([""])) == pytest.approx(1)


def test_code_is_closer_to_what_it_does_than_to_other_code(embedder: OnnxEmbedder) -> None:
    query, near, far = embedder.embed(TEXTS)
    assert query @ near > query @ far + 0.2


def test_a_vector_does_not_depend_on_its_neighbours(embedder: OnnxEmbedder) -> None:
    together = embedder.embed(TEXTS)
    alone = [embedder.embed([text])[0] for text in TEXTS]
    assert np.array_equal(together, alone)


def test_the_model_reads_256_word_pieces(embedder: OnnxEmbedder) -> None:
    read = "word " * 254
    first, second = embedder.embed([read, read + "and more"])
    assert np.array_equal(first, second)


def test_the_exported_graph_is_kept(tmp_path: Path) -> None:
    first = loaded(tmp_path)
    [file] = tmp_path.iterdir()
    written = (file.stat().st_ino, file.stat().st_mtime_ns)
    second = loaded(tmp_path)
    assert [(file.stat().st_ino, file.stat().st_mtime_ns) for file in tmp_path.iterdir()] == [written]
    assert np.array_equal(first.embed(TEXTS), second.embed(TEXTS))


def test_a_damaged_graph_is_exported_again(tmp_path: Path) -> None:
    loaded(tmp_path)
    [file] = tmp_path.iterdir()
    intact = file.read_bytes()
    file.write_bytes(intact[:-1])
    loaded(tmp_path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [intact]


def test_a_graph_that_another_process_has_just_removed_is_exported_again(tmp_path: Path) -> None:
    loaded(tmp_path)
    [file] = tmp_path.iterdir()
    gone = file.with_name(f"{file.stem[:-1]}-.onnx")
    gone.symlink_to("nothing")
    file.unlink()
    loaded(tmp_path)
    assert file.exists()


def test_processes_may_export_at_the_same_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "models")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0]
    assert [file.suffix for file in (tmp_path / "models").iterdir()] == [".onnx"]


def test_a_later_load_imports_neither_pytorch_nor_the_exporter(tmp_path: Path) -> None:
    loaded(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match=r"the folder .*file.* cannot hold .* set AFTERIMAGE_MODELS_FOLDER"):
        loaded(tmp_path / "file")


def test_an_embedder_must_be_loaded_first(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="the embedding model all-MiniLM-L6-v2 is not loaded"):
        OnnxEmbedder(tmp_path).embed(TEXTS)
