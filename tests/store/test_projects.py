"""Every statement carries the project, in both stores."""

import re
from pathlib import Path

import pytest

import app.store

INSTALLATION = {
    *("create_key", "get_key", "list_keys", "revoke_key", "any_key"),
    *("add_audit", "end_audit", "list_audit"),
    *("find_answer", "keep_answer", "sweep_answers"),
}
"""Keys and the audit record are the installation's: the service lets none but callers for all projects near them.

Answers to repeatable writes are the key's that wrote: another key finds none of them.
"""

MODELS = {"get_models", "claim_sweep", "renew_sweep"}
"""Which embedding models are in use is the installation's as well, and tells nothing of a project."""

ANY_VECTOR = {"begin_models", "aim_models"}
"""Of which model there are vectors at all, in whatever project."""

ANY_IMPORT = {"requeue_imports"}
"""Whose lease has run out, in whatever project; it answers nothing."""

WITHOUT = {
    # Whatever words are new in the index; the copies that a search of all projects finds.
    "postgresql": INSTALLATION | MODELS | ANY_VECTOR | ANY_IMPORT | {"merge_words", "find_copies"},
    # Words of rows that a statement with the project has named; how frequent a word is in the whole file.
    "sqlite": INSTALLATION | MODELS | ANY_VECTOR | ANY_IMPORT | {"delete_words", "word_frequencies"},
}


def statements(dialect: str) -> list[str]:
    text = Path(app.store.__file__).with_name(f"{dialect}.sql").read_text(encoding="utf-8")
    return text.split("-- name: ")[1:]


@pytest.mark.parametrize("dialect", WITHOUT)
def test_every_statement_names_the_project(dialect: str) -> None:
    seen = set()
    for statement in statements(dialect):
        name = re.match(r"\w+", statement)
        assert name is not None
        sql = "\n".join(line for line in statement.splitlines()[1:] if not line.startswith("--"))
        if name[0] in INSTALLATION | MODELS:
            seen.add(name[0])
            assert re.search(r"\b(keys|audit|idempotency_keys|embedding_models)\b", sql), name[0]
            assert not re.search(r"\b(memories|embeddings|embedding_queue|imports|import_findings)\b", sql), name[0]
        elif name[0] in WITHOUT[dialect]:
            seen.add(name[0])
        else:
            assert re.search(r"\bproject\b", sql), f"{name[0]} does not name the project"
    assert seen == WITHOUT[dialect]
