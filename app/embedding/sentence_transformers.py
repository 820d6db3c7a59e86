import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.embedding import minilm
from app.errors import UnavailableError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CPU_BATCH = 4
"""Four long texts: 23/s on two cores, where one by one gives 19/s and sixteen 22/s."""

GPU_BATCH = 32


class SentenceTransformerEmbedder:
    """Any sentence-transformers model, by its name on the hub or as a local folder, on any device of PyTorch."""

    parallel_calls = 0
    brief_bytes = 0

    def __init__(self, model: str, device: str) -> None:
        self.model = model.removeprefix("sentence-transformers/")
        self.dimensions = minilm.DIMENSIONS if minilm.is_named(model) else None
        self.texts_per_call = CPU_BATCH if device == "cpu" else GPU_BATCH
        self.gives_way = device == "cpu"  # of which PyTorch takes all cores
        self._device = device
        self._transformer: SentenceTransformer | None = None

    def load(self) -> None:
        """Loads the model; one that is not on this machine comes from the hub.

        Raises:
            UnavailableError: there is no such model, or no such device.
        """
        if self._transformer is not None:
            return
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read at import by all the libraries below
        from app.embedding import device, pytorch  # noqa: PLC0415 - takes seconds, and only this class needs it

        device.check_device(self._device)
        self._transformer = pytorch.open_transformer(self.model, self._device)
        self.dimensions = self._transformer.get_embedding_dimension()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of unit length in the order of the texts, shape (texts, dimensions)."""
        if self._transformer is None:
            raise UnavailableError(f"the embedding model {self.model} is not loaded")
        vectors: NDArray[np.float32] = self._transformer.encode(
            list(texts), normalize_embeddings=True, show_progress_bar=False
        )
        return vectors
