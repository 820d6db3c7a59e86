"""What turns text into vectors, and the texts that are turned."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.embedding import hashing, minilm
from app.embedding.hashing import HashingEmbedder
from app.embedding.onnx import OnnxEmbedder
from app.embedding.sentence_transformers import SentenceTransformerEmbedder

MAX_CHARACTERS = 1500


class Embedder(Protocol):
    """A model; its methods block, and `load` is called alone."""

    @property
    def model(self) -> str:
        """The identity that is stored with each vector."""

    @property
    def dimensions(self) -> int | None:
        """Length of a vector; None until loaded, where it is not known beforehand."""

    @property
    def texts_per_call(self) -> int:
        """How many texts a call should take: more are no faster and keep urgent texts waiting."""

    @property
    def parallel_calls(self) -> int:
        """How many calls to keep running beside a query's; with 0 there is never more than one at a time."""

    @property
    def gives_way(self) -> bool:
        """Whether a call for nobody who waits takes a core from the requests, and should wait until there are none."""

    @property
    def brief_bytes(self) -> int:
        """A text of fewer bytes may be embedded on the event loop beside other calls; 0 if calls exclude each other."""

    def load(self) -> None:
        """Makes `embed` possible; does nothing the second time.

        Raises:
            UnavailableError: the model cannot be used; says why and how to mend it.
        """

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of unit length in the order of the texts, shape (texts, dimensions)."""


def model_identity(model: str) -> str:
    """The identity that is stored with the vectors of a model, of whatever name it was configured by."""
    if hashing.dimensions_of(model) == hashing.DIMENSIONS:
        return hashing.MODEL
    return model.removeprefix("sentence-transformers/")


def open_embedder(model: str, device: str, models_folder: Path, processes: int = 1) -> Embedder:
    """The embedder of a model, not loaded yet; what is made of a model is kept in the folder.

    So many processes have one each, and share the processor.
    """
    if (dimensions := hashing.dimensions_of(model)) is not None:
        return HashingEmbedder(dimensions)
    if minilm.is_named(model) and device == "cpu":
        return OnnxEmbedder(models_folder, processes)
    return SentenceTransformerEmbedder(model, device)


def document_text(file_path: str, code: str) -> str:
    """What a memory is embedded as: the end of its path and its code.

    This is the form AI-AfterImage uses; its vectors are imported as they are and must stay comparable.
    """
    end_of_path = "/".join(Path(file_path).parts[-3:])
    return query_text(f"File: {end_of_path}\n{code}")


def query_text(query: str) -> str:
    """What a query is embedded as: a long one loses its middle."""
    text = query.replace("\t", "    ")
    if len(text) > MAX_CHARACTERS:
        half = MAX_CHARACTERS // 2
        text = f"{text[:half]}\n...\n{text[-half:]}"
    return text.strip()
