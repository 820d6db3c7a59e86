import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from app.cores import cores
from app.embedding import minilm
from app.errors import UnavailableError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

GRAPH_VERSION = 1
"""To be raised with each change of the exported graph, so that files kept from before are not used."""

MAX_PARALLEL_CALLS = 4

CORES_OF_REQUESTS = 2
"""Which these keep busy: one the service, one its database."""


class OnnxEmbedder:
    """all-MiniLM-L6-v2 on the processor, in 8-bit integers, without PyTorch.

    The first `load` exports the model's graph into a folder, where later ones find it. The vector of a text does not
    depend on the texts that it is embedded with. A call keeps one core busy, which takes the least processor time for a
    text, whose matrices are small. A backfill keeps half of the cores busy, no more than four, and leaves the others to
    the service and its database: with all of them, writes beside it took three times as long. Where too few are left,
    it gives way.
    """

    model = minilm.MODEL
    dimensions = minilm.DIMENSIONS
    texts_per_call = 1
    brief_bytes = 100  # 2 to 10 ms on a slow core, 20 where all of them are signs

    def __init__(self, models_folder: Path, processes: int = 1) -> None:
        """`processes` is how many share the processor, each with an embedder of its own."""
        self._folder = models_folder
        usable = cores()
        self.parallel_calls = max(1, min(usable // 2 // processes, MAX_PARALLEL_CALLS))
        self.gives_way = usable - self.parallel_calls * processes < CORES_OF_REQUESTS
        self._loaded: tuple[Tokenizer, InferenceSession] | None = None

    def load(self) -> None:
        """Takes 0.2 s, the first time on a machine 0.8 s.

        Raises:
            UnavailableError: the weights are missing or wrong, or the folder cannot be written.
        """
        if self._loaded is not None:
            return
        # Both take time and memory, which an installation with another model does not need.
        from onnxruntime import InferenceSession, SessionOptions  # noqa: PLC0415

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # for batches of one
        from tokenizers import Tokenizer  # noqa: PLC0415

        tokenizer = Tokenizer.from_file(str(minilm.files() / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(minilm.MAX_WORD_PIECES)
        options = SessionOptions()
        options.intra_op_num_threads = 1
        session = InferenceSession(kept_graph(self._folder), options, providers=["CPUExecutionProvider"])
        self._loaded = tokenizer, session

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of unit length in the order of the texts, shape (texts, 384)."""
        if self._loaded is None:
            raise UnavailableError(f"the embedding model {self.model} is not loaded")
        tokenizer, session = self._loaded
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        # One by one is as fast as in batches, where short texts would be padded.
        for row, text in enumerate(texts):
            # As a batch, during which other threads may run Python.
            tokens = np.array([tokenizer.encode_batch_fast([text])[0].ids], np.int64)
            [vectors[row]] = session.run(None, {"tokens": tokens})[0]
        return vectors


def kept_graph(folder: Path) -> bytes:
    """The graph that is kept in the folder; it is exported if there is none, or only a damaged one.

    Its file is named after its SHA-256 and appears whole, so any number of processes may do this at once.

    Raises:
        UnavailableError: the weights are missing or wrong, or the folder cannot be read and written.
    """
    prefix = f"{minilm.MODEL}-int8-v{GRAPH_VERSION}-"
    try:
        for path in folder.glob(f"{prefix}*.onnx"):
            try:
                graph = path.read_bytes()
            except FileNotFoundError:  # another process has found it damaged
                continue
            if path.stem == prefix + sha256(graph).hexdigest():
                return graph
            path.unlink(missing_ok=True)
        from app.embedding.onnx_export import export  # noqa: PLC0415 - needed once on a machine

        graph = export(minilm.checked_weights())
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{uuid4()}.tmp"
        unfinished.write_bytes(graph)
        unfinished.replace(folder / f"{prefix}{sha256(graph).hexdigest()}.onnx")
    except OSError as error:
        raise UnavailableError(
            f"the folder {folder} cannot hold the embedding model ({error}); "
            "set AFTERIMAGE_MODELS_FOLDER to a folder that can be written"
        ) from error
    return graph
