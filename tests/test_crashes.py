"""Kills processes in the middle of an import, at random, and looks for what was lost."""

import random
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from app.store.embedded import EmbeddedPostgres
from tests.effort import effort
from tests.processes import afterimage, get, serving
from tests.source_files import entry, insert, write_ai_afterimage
from tests.test_exports import assert_equal, rows

ROWS = effort(2000, full=50_000)
KILLS = effort(3, full=20)


@pytest.mark.parametrize("backend", ["postgresql", "sqlite"])
def test_an_import_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(backend: str, tmp_path: Path) -> None:
    source = write_ai_afterimage(tmp_path / "memory.db", (entry(number) for number in range(1, ROWS + 1)))
    settings = {
        "AFTERIMAGE_BACKEND": backend,
        "AFTERIMAGE_POSTGRES_FOLDER": str(tmp_path / "postgres"),
        "AFTERIMAGE_IMPORT_LEASE_SECONDS": "0.3",
        "AFTERIMAGE_IMPORT_BATCH_SIZE": "50",
        "AFTERIMAGE_EMBEDDING_MODEL": "all-MiniLM-L6-v2",
        "AFTERIMAGE_LOG_LEVEL": "warning",
    }
    chance = random.Random(7)
    address = None
    kills = 0
    while True:
        with serving(tmp_path, **settings) as (base, process):
            if address is None:
                upload = Request(
                    f"{base}/v1/admin/imports", source.read_bytes(), {"content-type": "application/vnd.sqlite3"}
                )
                with urlopen(upload) as answer:
                    address = answer.headers["location"]
            moment = time.monotonic() + (chance.uniform(0.05, 0.6) if kills < KILLS else 60)
            while time.monotonic() < moment and (job := get(base + address))["state"] not in ("completed", "failed"):
                time.sleep(0.01)
            if job["state"] == "completed":
                total = get(f"{base}/v1/stats")["total_entries"]
                break
            assert job["state"] != "failed", job["error"]
            process.kill()
            process.wait()
            kills += 1
    exported = afterimage(tmp_path, "export", "--sqlite", str(tmp_path / "out.db"), **settings)
    shutil.rmtree(EmbeddedPostgres(tmp_path / "postgres").home, ignore_errors=True)
    assert exported.returncode == 0, exported.stderr
    assert kills > 0
    assert_equal(rows(tmp_path / "out.db"), rows(source))
    assert job["counts"] == {
        "source_entries": ROWS,
        "migrated": ROWS,
        "skipped": 0,
        "failed": 0,
        "reembedded": 0,
        "redacted": 0,
        "altered": 0,
        "unusable_vectors": 0,
    }
    assert job["validation"] == {"checked": ROWS, "mismatched": 0, "missing": 0}
    assert total == ROWS


def test_a_source_that_is_written_meanwhile_is_imported_as_it_was_and_stays_whole(tmp_path: Path) -> None:
    source = write_ai_afterimage(tmp_path / "memory.db", (entry(number) for number in range(1, 501)))
    folder = {"AFTERIMAGE_IMPORT_FOLDER": str(tmp_path)}
    with serving(tmp_path, **folder) as (base, _), closing(sqlite3.connect(source)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("UPDATE code_memory SET context = 'changed' WHERE rowid = 1")
        writer.commit()
        begin = Request(f"{base}/v1/admin/imports", b'{"path": "memory.db"}', {"content-type": "application/json"})
        with urlopen(begin) as answer:
            address = answer.headers["location"]
        number = 501
        while (job := get(base + address))["state"] not in ("completed", "failed"):
            insert(writer, "code_memory", [entry(number)])
            writer.commit()
            number += 1
        assert number > 501
        assert writer.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert job["counts"]["migrated"] == job["counts"]["source_entries"] == 500
    assert job["validation"]["mismatched"] == 0
