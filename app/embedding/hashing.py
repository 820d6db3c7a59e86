import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from app.settings import HASHING

MODEL = "hashing"
DIMENSIONS = 384

WORD = re.compile(r"\w+")
PART_BOUNDARY = re.compile(r"_+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=\D)(?=\d)|(?<=\d)(?=\D)")


class HashingEmbedder:
    """Counts hashed words: texts are close when they share words, and nothing is known of meaning.

    This is the hashing trick (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009): each word
    adds +1 or -1 to the dimension that its hash names. Vectors are the same in every process.
    """

    model = MODEL
    dimensions = DIMENSIONS
    texts_per_call = 16
    parallel_calls = 0
    gives_way = False
    brief_bytes = 0

    def __init__(self, dimensions: int = DIMENSIONS) -> None:
        if dimensions != DIMENSIONS:
            self.model = f"{MODEL}-{dimensions}"
            self.dimensions = dimensions

    def load(self) -> None:
        """Nothing to load."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of unit length in the order of the texts, shape (texts, dimensions)."""
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for word in words(text):
                digest = int.from_bytes(blake2b(word.encode(), digest_size=8).digest())
                vector[(digest >> 1) % self.dimensions] += 1 if digest & 1 else -1
            if not vector.any():  # no words, or all of them cancelled out: a zero vector has no cosine
                vector[0] = 1
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


def dimensions_of(model: str) -> int | None:
    """The dimensions of `hashing`, or of `hashing-N`; None if the model is another."""
    found = HASHING.fullmatch(model)
    if found is None:
        return None
    return int(found[1]) if found[1] else DIMENSIONS


def words(text: str) -> Iterator[str]:
    """The words of a text in small letters, and the parts of each identifier (`getUserById`, `get_user_2`)."""
    for word in WORD.findall(text):
        yield word.lower()
        parts = [part for part in PART_BOUNDARY.split(word) if part]
        if parts != [word]:
            yield from (part.lower() for part in parts)
