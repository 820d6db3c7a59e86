"""`afterimage embed`: how far the vectors are, and why some could not be made."""

import asyncio
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app import embedding_status
from app.embedding_progress import EmbeddingProgress
from app.embedding_status import describe, restart, status_of
from app.models import MAX_WHOLE_CHARACTERS, Piece
from app.store.embedding_protocol import PieceVector
from app.store.protocol import Store
from tests.conftest import MODEL
from tests.memories import NOON, minutes, new, vector
from tests.processes import afterimage
from tests.source_files import entry, write_ai_afterimage

NOT_MOVING = (
    "What is pending did not become less in 3 s: no service runs on this store, its model does not load (its log and "
    "/readyz say why), it waits before it tries again, or as much came as was made."
)


async def test_a_complete_store_says_so(store: Store) -> None:
    await store.memories.add([new(vector(1))], NOON)
    assert describe(await status_of(store, f"sentence-transformers/{MODEL}")) == (
        f"Model searched:    {MODEL}\n"
        f"In the settings:   {MODEL}\n"
        "\n"
        f"{MODEL}\n"
        "  With a vector:   1 of 1 memories\n"
        "  Pending:         0, and the pieces of 0 long ones\n"
        "  Failed:          0\n"
        "\n"
        "Nothing is left to be made."
    )


async def test_a_change_names_both_models_and_why_vectors_could_not_be_made(store: Store) -> None:
    rows = [new(vector(1)) for _ in range(3)]
    await store.memories.add(rows, NOON)
    await store.models.aim("next", NOON, NOON + minutes(1))
    await store.embeddings.queue_missing("next", NOON)
    await store.embeddings.postpone("next", [rows[0].memory.key], "attempt 5 of 5: no luck", until=None)
    await store.embeddings.postpone("next", [rows[1].memory.key], "attempt 1 of 5: too long", until=NOON)
    lines = describe(await status_of(store, "third", watched_seconds=0)).splitlines()
    assert lines[:3] == [
        f"Model searched:    {MODEL}",
        "Being made:        next, searched once it is complete",
        "In the settings:   third, to be made from the next start of a service on",
    ]
    assert lines[lines.index("next") :] == [
        "next",
        "  With a vector:   0 of 3 memories",
        "  Pending:         2, and the pieces of 0 long ones",
        "  Failed:          1",
        f"    1 given up, such as default/{rows[0].memory.id}: attempt 5 of 5: no luck",
        f"    1 to be tried again, such as default/{rows[1].memory.id}: attempt 1 of 5: too long",
        "",
        NOT_MOVING,
    ]


@pytest.mark.parametrize("whole", [0, 2])
async def test_pieces_that_were_made_meanwhile_count(store: Store, whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = asyncio.Event()

    class Noted(EmbeddingProgress):
        async def look(self) -> float:
            pause = await super().look()
            looked.set()
            return pause

    monkeypatch.setattr(embedding_status, "EmbeddingProgress", Noted)
    long = [new(vector(1), new_code="x = 1\n" * MAX_WHOLE_CHARACTERS) for _ in range(3)]
    await store.memories.add([*long, *(new() for _ in range(whole))], NOON)
    watching = asyncio.create_task(status_of(store, MODEL, watched_seconds=2))
    await looked.wait()
    await store.embeddings.save_pieces(MODEL, long[0].memory.key, [PieceVector(Piece(1, 2), vector(1))])
    pace = describe(await watching).splitlines()[-1]
    if whole:
        assert re.fullmatch(r"\S+ memories a second, time left unknown", pace)
    else:  # one was made in 2 s or more, and two are left
        made = re.fullmatch(r"\S+ memories a second, (\d+) s left", pace)
        assert made
        assert 4 <= int(made[1]) < 60


async def test_a_restart_queues_what_was_given_up_and_what_is_missing(store: Store) -> None:
    failed, missing = new(), new(vector(1))
    await store.memories.add([failed, missing], NOON)
    await store.embeddings.postpone(MODEL, [failed.memory.key], "no luck", until=None)
    await store.models.aim("next", NOON, NOON + minutes(1))
    assert await restart(store) == (1, 2)
    soon = datetime.now(UTC) + timedelta(seconds=1)
    assert len(await store.embeddings.claim("next", 10, soon, soon)) == 2
    [claimed] = await store.embeddings.claim(MODEL, 10, soon, soon)
    assert (claimed.memory.key, claimed.attempts) == (failed.memory.key, 0)
    assert await restart(store) == (0, 0)


def test_the_commands_work_without_a_service(tmp_path: Path) -> None:
    source = write_ai_afterimage(tmp_path / "memory.db", [entry(1), entry(2)])
    assert afterimage(tmp_path, "migrate", "--sqlite", str(source)).returncode == 0
    done = afterimage(tmp_path, "embed", "--restart", "--status")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "Queued anew: 0 that were given up, 0 that were missing.\nModel searched:    hashing\n"
    )
    assert "  Pending:         2," in done.stdout
    exported = afterimage(tmp_path, "export", "--sqlite", str(tmp_path / "back.db"))
    assert exported.returncode == 0
    with closing(sqlite3.connect(tmp_path / ".afterimage" / "afterimage.db")) as connection:
        noted = [action for (action,) in connection.execute("SELECT action FROM audit ORDER BY id")]
    assert noted == ["import.start", "embed.restart", "export.start"]
