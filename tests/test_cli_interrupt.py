"""`afterimage migrate` and Ctrl-C."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.processes import DEADLINE_SECONDS, afterimage, environment
from tests.source_files import entry, write_ai_afterimage

ROWS = 9000


@contextmanager
def heeding_ctrl_c() -> Iterator[None]:
    """A process that is started now does, even where this one is a job in the background, which does not."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def test_after_ctrl_c_the_same_command_brings_in_the_rest(tmp_path: Path) -> None:
    rows = (entry(number, embedding=None) for number in range(1, ROWS + 1))
    source = write_ai_afterimage(tmp_path / "memory.db", rows)
    command = ("migrate", "--sqlite", str(source), "--batch-size", "1")
    with (
        heeding_ctrl_c(),
        subprocess.Popen(
            [sys.executable, "-m", "app", *command],
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Reading source data"):  # from now on it migrates
                process.send_signal(signal.SIGINT)
                break
        report, problem = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, problem) == (1, "")
    assert "State:              cancelled" in report
    with closing(sqlite3.connect(tmp_path / ".afterimage" / "afterimage.db")) as store:
        (stored,) = store.execute("SELECT count(*) FROM memories").fetchone()
    assert stored < ROWS
    again = afterimage(tmp_path, "migrate", "--sqlite", str(source))
    assert again.returncode == 0
    assert f"Skipped (existing): {stored}\n" in again.stdout
    assert f"Migrated:           {ROWS - stored}\n" in again.stdout
    assert not list((tmp_path / ".afterimage").rglob("*.sqlite*"))
