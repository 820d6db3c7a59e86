"""Labelled sets for measuring a search: documents, queries, and which document answers which query."""

import ast
import csv
import json
import re
import sysconfig
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random

QUERIES = 400
"""Queries of each set that is made here."""

FUNCTIONS = 4000
"""Functions of the standard library that make the corpus of these sets."""

SKIPPED_FOLDERS = {"test", "tests", "idlelib", "site-packages", "lib2to3", "turtledemo", "__pycache__"}

PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True, slots=True)
class Document:
    """A piece of code to be found."""

    file_path: str
    code: str


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Documents and queries by id, and for each query how well documents answer it (0: not at all)."""

    name: str
    documents: Mapping[str, Document]
    queries: Mapping[str, str]
    relevant: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the standard library."""

    name: str
    module: str
    file_path: str
    code: str
    code_without_docstring: str
    first_sentence: str


def read_beir(folder: Path) -> LabelledSet:
    """A folder with `corpus.jsonl`, `queries.jsonl` and `qrels/*.tsv`; queries that nothing answers are left out."""
    corpus = {
        row["_id"]: Document(row["_id"], f"{row.get('title') or ''}\n{row['text']}".strip())
        for row in _json_lines(folder / "corpus.jsonl")
    }
    relevant: dict[str, dict[str, int]] = defaultdict(dict)
    for path in sorted((folder / "qrels").glob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file, delimiter="\t"):
                if len(row) == 3 and row[2].lstrip("-").isdigit() and int(row[2]) > 0:
                    relevant[row[0]][row[1]] = int(row[2])
    queries = {row["_id"]: row["text"] for row in _json_lines(folder / "queries.jsonl") if row["_id"] in relevant}
    return LabelledSet(folder.name, corpus, queries, relevant)


def standard_library() -> list[LabelledSet]:
    """Two sets: the first sentence of a docstring to its function, and an identifier to the function it names."""
    functions = _sample(list(_functions(Path(sysconfig.get_paths()["stdlib"]))))
    return [_docstrings(functions), _identifiers(functions)]


def _docstrings(functions: Sequence[Function]) -> LabelledSet:
    """The sentence is removed from the documents together with the rest of the docstring."""
    said: dict[str, list[int]] = defaultdict(list)
    for number, function in enumerate(functions):
        if len(function.first_sentence.split()) >= 4:
            said[function.first_sentence].append(number)
    asked = Random(0).sample(sorted(said), min(QUERIES, len(said)))
    return LabelledSet(
        "stdlib-docstrings",
        {str(number): Document(one.file_path, one.code_without_docstring) for number, one in enumerate(functions)},
        {str(number): sentence for number, sentence in enumerate(asked)},
        {str(number): {str(found): 1 for found in said[sentence]} for number, sentence in enumerate(asked)},
    )


def _identifiers(functions: Sequence[Function]) -> LabelledSet:
    """Names, pairs of neighbouring parts of names, and dotted calls, that lead to one function each."""
    meant: dict[str, set[int]] = defaultdict(set)
    for number, function in enumerate(functions):
        parts = PART.findall(function.name)
        joint = "_" if "_" in function.name.strip("_") else ""
        for text in (
            function.name,
            f"{function.module}.{function.name}",
            *(joint.join(pair) for pair in pairwise(parts) if len(parts) > 2),
        ):
            meant[text].add(number)
    unique = sorted(text for text, numbers in meant.items() if len(numbers) == 1 and len(text) > 3)
    kinds = [
        [text for text in unique if "." in text],
        [text for text in unique if "." not in text and text == functions[next(iter(meant[text]))].name],
        [text for text in unique if "." not in text and text != functions[next(iter(meant[text]))].name],
    ]
    asked = [text for kind in kinds for text in Random(0).sample(kind, min(QUERIES // len(kinds), len(kind)))]
    return LabelledSet(
        "stdlib-identifiers",
        {str(number): Document(one.file_path, one.code) for number, one in enumerate(functions)},
        {str(number): text for number, text in enumerate(asked)},
        {str(number): {str(found): 1 for found in meant[text]} for number, text in enumerate(asked)},
    )


def _sample(functions: list[Function]) -> list[Function]:
    return Random(0).sample(functions, min(FUNCTIONS, len(functions)))


def _functions(folder: Path) -> Iterator[Function]:
    """Functions with a docstring, of three lines or more; the same code counts once."""
    seen: set[str] = set()
    for path in sorted(folder.rglob("*.py")):
        file_path = path.relative_to(folder)
        if SKIPPED_FOLDERS.isdisjoint(file_path.parts[:-1]):
            for function in _functions_in(path.read_text(encoding="utf-8", errors="replace"), file_path):
                if function.code not in seen:
                    seen.add(function.code)
                    yield function


def _functions_in(text: str, file_path: Path) -> Iterator[Function]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    lines = text.splitlines(keepends=True)
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("__"):
            continue
        docstring = ast.get_docstring(node)
        first, last = node.body[0], node.end_lineno or node.lineno
        if not docstring or len(node.body) < 2 or node.body[1].lineno <= (first.end_lineno or 0):
            continue
        before, after = lines[node.lineno - 1 : first.lineno - 1], lines[first.end_lineno or 0 : last]
        yield Function(
            name=node.name,
            module=file_path.parent.name if file_path.stem == "__init__" else file_path.stem,
            file_path=file_path.as_posix(),
            code="".join(lines[node.lineno - 1 : last]),
            code_without_docstring="".join(before + after),
            first_sentence=re.split(r"(?<=[.!?])\s|\n\s*\n", docstring, maxsplit=1)[0].replace("\n", " ").strip(),
        )


def _json_lines(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.strip())
