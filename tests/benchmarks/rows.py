"""What is stored and asked: functions of the standard library, sentences of its docstrings, vectors of the model."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.embedding.embedder import document_text
from app.embedding.onnx import OnnxEmbedder
from app.languages import language_of
from app.models import MAX_WHOLE_CHARACTERS
from app.store.postgresql.words import tsvector
from app.store.sqlite.values import vector_bytes
from app.tokens import document_words
from tests.benchmarks.bare_writers import PROJECT, BareRow
from tests.benchmarks.labelled import standard_library

EMBEDDED = 1000
"""Functions that the model embeds; the vectors of more are these with noise."""

NOISE = 0.5
"""Length of what is added to a unit vector: its cosine to what comes of it is about 0.9."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Functions short enough to be embedded as a whole, with vectors, shape (functions, dimensions), and questions."""

    paths: Sequence[str]
    codes: Sequence[str]
    vectors: NDArray[np.float32]
    queries: Sequence[str]

    def __len__(self) -> int:
        return len(self.codes)

    def variations(self, count: int) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
        """Path, code and vector of any number of memories: the functions, then again with other names and noise."""
        random = np.random.default_rng(0)
        for number in range(count):
            at, turn = number % len(self), number // len(self)
            vector = self.vectors[at]
            if turn == 0:
                yield self.paths[at], self.codes[at], vector
                continue
            noise = random.standard_normal(len(vector)).astype(np.float32)
            noisy = vector + NOISE * noise / np.linalg.norm(noise)
            code = f"# {self.paths[(at + turn) % len(self)]} {turn}\n{self.codes[at]}"
            yield f"v{turn}/{self.paths[at]}", code, noisy / np.linalg.norm(noisy)


def corpus(kept: Path, models: Path) -> Corpus:
    """The functions, with vectors that are kept in a folder from one run to the next."""
    docstrings, functions = standard_library()
    short = [document for document in functions.documents.values() if len(document.code) <= MAX_WHOLE_CHARACTERS]
    short = short[:EMBEDDED]
    texts = [document_text(document.file_path, document.code) for document in short]
    path = kept / f"vectors-{hashlib.sha256(chr(0).join(texts).encode()).hexdigest()[:16]}.npy"
    if not path.exists():
        print(f"embedding {len(texts)} functions, which is done once", flush=True)
        embedder = OnnxEmbedder(models)
        embedder.load()
        kept.mkdir(parents=True, exist_ok=True)
        np.save(path, embedder.embed(texts))
    return Corpus(
        [document.file_path for document in short],
        [document.code for document in short],
        np.load(path),
        list(docstrings.queries.values()),
    )


def body(path: str, code: str, vector: NDArray[np.float32] | None) -> dict[str, object]:
    """A memory as a client sends it."""
    given: dict[str, object] = {} if vector is None else {"embedding": [round(float(value), 6) for value in vector]}
    return {"project": PROJECT, "file_path": path, "new_code": code, **given}


def bare_row(path: str, code: str, vector: NDArray[np.float32] | None) -> BareRow:
    """The same for hand-written code, with everything made."""
    words = document_words(path, code, None)
    columns = (words.code, words.identifiers, words.names, words.path, words.context)
    code_words, identifiers, names, path_words, context = (" ".join(column) for column in columns)
    return BareRow(
        path,
        code,
        language_of(path),
        tsvector(words),
        (code_words, identifiers, names, path_words, context),
        None if vector is None else vector_bytes(vector),
    )


def request(path: str, content: object) -> bytes:
    """A POST as it goes over the wire."""
    sent = json.dumps(content).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}\r\n"
    )
    return f"{head}\r\n".encode() + sent
