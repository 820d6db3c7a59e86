"""`afterimage export`, as a person runs it."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.processes import afterimage
from tests.source_files import entry, write_ai_afterimage

REPORT = """\
Starting export...
Writing entries: 3/3 (100.0%)

============================================================
AI-AfterImage Export Report
============================================================
Memories:           3
Written:            3
With vector:        0
Failed:             0
Elapsed time:       SECONDS
Later times:        1 (another memory has the same file and time)
Not carried over:   project of 2 memories
============================================================
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose store holds three memories, two of them in a project and two of one file and time."""
    made = tmp_path / "home"
    made.mkdir()
    same = {"file_path": "a.py", "timestamp": entry(1)["timestamp"]}
    one = write_ai_afterimage(tmp_path / "one.db", [entry(1, **same)])
    two = write_ai_afterimage(tmp_path / "two.db", [entry(2, **same), entry(3)])
    assert afterimage(made, "migrate", "--sqlite", str(one)).returncode == 0
    assert afterimage(made, "migrate", "--sqlite", str(two), "--project", "shop").returncode == 0
    return made


def test_export_writes_a_file_and_says_what_is_in_it(home: Path) -> None:
    done = afterimage(home, "export", "--sqlite", str(home / "memory.db"))
    assert re.sub(r"\d+\.\ds\n", "SECONDS\n", done.stdout) == REPORT
    assert (done.returncode, done.stderr) == (0, "")
    with closing(sqlite3.connect(home / "memory.db")) as connection:
        assert connection.execute("SELECT count(*) FROM code_memory").fetchone() == (3,)


def test_export_takes_projects_and_overwrites_when_told_to(home: Path) -> None:
    (home / "memory.db").touch()
    refused = afterimage(home, "export", "--sqlite", str(home / "memory.db"), "--project", "shop")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "--force" in refused.stderr
    done = afterimage(home, "export", "--sqlite", str(home / "memory.db"), "--project", "shop", "--force")
    assert "Written:            2" in done.stdout


def test_export_never_overwrites_the_store_itself(home: Path) -> None:
    store = home / ".afterimage" / "afterimage.db"
    before = store.read_bytes()
    refused = afterimage(home, "export", "--sqlite", str(store), "--force")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert store.read_bytes() == before
