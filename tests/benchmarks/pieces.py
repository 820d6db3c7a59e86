"""What pieces of long code bring: sentences about functions of whole modules and classes of the standard library.

A sentence is the first of a function's docstring, which is taken out of the code; what is looked for is the module, or
the class, that holds the function. Measured with the vectors of the whole alone, and with the best of all pieces.
"""

import argparse
import ast
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.embedding.embedder import document_text, query_text
from app.embedding.sentence_transformers import SentenceTransformerEmbedder
from app.pieces import cut

STDLIB = Path(ast.__file__).parent
MAX_FUNCTIONS = 60
TEXTS_PER_CALL = 16


@dataclass(frozen=True)
class Document:
    """Code without docstrings, and what its functions are said to do."""

    file_path: str
    code: str
    sentences: Sequence[str]


def documents(kind: str) -> Iterator[Document]:
    """Whole modules, or the classes in them, of 3 to 60 documented functions."""
    for path in sorted(STDLIB.glob("*.py")):
        source = path.read_text(encoding="utf-8", errors="replace")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
        lines = source.split("\n")
        blocks = [tree] if kind == "modules" else [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for block in blocks:
            made = _document(path, lines, block)
            if 3 <= len(made.sentences) <= MAX_FUNCTIONS:
                yield made


def _document(path: Path, lines: list[str], block: ast.Module | ast.ClassDef) -> Document:
    hidden: set[int] = set()
    sentences = []
    for node in ast.walk(block):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            docstring = ast.get_docstring(node)
            if docstring:
                hidden.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
                sentence = " ".join(docstring.split("\n\n")[0].split()).split(". ")[0]
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and len(sentence) > 30:
                    sentences.append(sentence)
    first, last = (block.lineno, block.end_lineno or 0) if isinstance(block, ast.ClassDef) else (1, len(lines))
    code = "\n".join(lines[at - 1] for at in range(first, last + 1) if at not in hidden)
    return Document(path.name, code, sentences)


def embed(embedder: SentenceTransformerEmbedder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Vectors in the order of the texts, made in order of length."""
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    vectors = np.zeros((len(texts), 384), np.float32)
    for start in range(0, len(order), TEXTS_PER_CALL):
        part = order[start : start + TEXTS_PER_CALL]
        vectors[part] = embedder.embed([texts[at] for at in part])
    return vectors


def main() -> None:
    """Prints nDCG@10 and the share of queries whose document comes first, with and without pieces."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=["modules", "classes"], default="classes")
    parser.add_argument("--documents", type=int, default=120)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    arguments = parser.parse_args()
    chosen = list(documents(arguments.kind))
    random = np.random.default_rng(3)
    if len(chosen) > arguments.documents:
        chosen = [chosen[at] for at in sorted(random.choice(len(chosen), arguments.documents, replace=False))]
    embedder = SentenceTransformerEmbedder(arguments.model, "cpu")
    embedder.load()
    wholes = embed(embedder, [document_text(one.file_path, one.code) for one in chosen])
    started = time.perf_counter()
    parts = [(at, piece) for at, one in enumerate(chosen) for piece in cut(one.code)]
    took = time.perf_counter() - started
    vectors = embed(embedder, [document_text(chosen[at].file_path, piece.text) for at, piece in parts])
    owners = np.array([at for at, _ in parts])
    questions = [(at, sentence) for at, one in enumerate(chosen) for sentence in one.sentences]
    if len(questions) > 600:
        questions = [questions[at] for at in random.choice(len(questions), 600, replace=False)]
    asked = embed(embedder, [query_text(sentence) for _, sentence in questions])
    print(f"{len(chosen)} {arguments.kind}, {len(parts)} pieces cut in {took:.2f} s, {len(questions)} queries")
    whole_scores = asked @ wholes.T
    best = whole_scores.copy()
    scores = asked @ vectors.T
    for at in range(len(chosen)):
        if (owners == at).any():
            best[:, at] = np.maximum(best[:, at], scores[:, owners == at].max(axis=1))
    wanted = np.array([at for at, _ in questions])
    for name, found in (("whole only", whole_scores), ("best piece", best)):
        ranks = (found > found[np.arange(len(wanted)), wanted][:, None]).sum(axis=1) + 1
        gains = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0)
        print(f"{name}: nDCG@10 {gains.mean():.3f}, first {np.mean(ranks == 1):.3f}")


if __name__ == "__main__":
    main()
