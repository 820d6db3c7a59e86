import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.errors import SourceError, UnavailableError
from app.sources import Reader, snapshot
from app.sources.snapshots import SUPER_JOURNAL_MAGIC
from tests.source_files import entry, write_ai_afterimage

NOBODY = 65534
ADD_ROW = """
INSERT INTO code_memory (id, file_path, new_code, timestamp)
VALUES (hex(randomblob(16)), 'p', ?, hex(randomblob(9)))
"""

WRITER = f"""
import os, sqlite3, sys, time
path, journal_mode, end = sys.argv[1:]
connection = sqlite3.connect(path, isolation_level=None)
if end == "alone":
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
connection.execute(f"PRAGMA journal_mode = {{journal_mode}}")
connection.execute("PRAGMA wal_autocheckpoint = 20")
connection.execute("PRAGMA synchronous = OFF")
def add(pairs):
    for _ in range(pairs):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute({ADD_ROW!r}, ("x" * 3000,))
        connection.execute({ADD_ROW!r}, ("y" * 3000,))
        connection.execute("COMMIT")
add(30)
if end == "in a transaction":
    connection.execute("PRAGMA cache_size = 2")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE code_memory SET new_code = 'not committed'")
print("ready", flush=True)
if end == "idle":
    sys.stdin.read()
while end in ("busy", "alone"):
    add(1)
    print("pair", flush=True)
    time.sleep(0.002)
os._exit(1)
"""
"""Adds rows two by two, 30 pairs before it says `ready`; then goes on, waits, or crashes."""


@contextmanager
def writer(path: Path, journal_mode: str, end: str) -> Iterator[subprocess.Popen[str]]:
    """A second process that has written to the file; for `crash` and `in a transaction` it is dead already."""
    command = [sys.executable, "-c", WRITER, str(path), journal_mode, end]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if end not in ("busy", "idle", "alone"):
            process.wait()
        try:
            yield process
        finally:
            process.kill()


def folder_state(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Each file with its inode, time of change and content."""
    state = {}
    for path in sorted(folder.iterdir()):
        status = path.stat()
        state[path.name] = (status.st_ino, status.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
    return state


def row_count(path: Path) -> int:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(connection.execute("SELECT count(*) FROM code_memory").fetchone()[0])


@pytest.fixture
def original(tmp_path: Path) -> Path:
    (tmp_path / "theirs").mkdir()
    return write_ai_afterimage(tmp_path / "theirs" / "memory.db", [entry(1), entry(2)])


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "ours").mkdir()
    return tmp_path / "ours" / "copy.db"


@pytest.mark.parametrize(
    ("journal_mode", "end", "side_files"),
    [
        ("wal", "idle", ["-shm", "-wal"]),
        ("wal", "crash", ["-shm", "-wal"]),
        ("delete", "idle", []),
        ("delete", "in a transaction", ["-journal"]),
        ("persist", "idle", ["-journal"]),
        ("truncate", "idle", ["-journal"]),
        ("truncate", "in a transaction", ["-journal"]),
    ],
)
def test_all_that_is_committed_is_copied_and_the_folder_stays_as_it_was(
    original: Path, copy: Path, journal_mode: str, end: str, side_files: list[str]
) -> None:
    with writer(original, journal_mode, end):
        before = folder_state(original.parent)
        assert list(before) == [original.name, *(original.name + suffix for suffix in side_files)]
        snapshot(original, copy)
        assert folder_state(original.parent) == before
    assert row_count(copy) == 62
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT * FROM code_memory WHERE new_code = 'not committed'").fetchall() == []


@pytest.mark.parametrize("shared_memory", [None, b"", b"\xa5" * 32768])
def test_a_wal_that_a_crash_left_is_read_whatever_became_of_its_shared_memory(
    original: Path, copy: Path, shared_memory: bytes | None
) -> None:
    with writer(original, "wal", "crash"):
        pass
    memory = original.with_name(f"{original.name}-shm")
    memory.unlink()
    if shared_memory is not None:
        memory.write_bytes(shared_memory)
    before = folder_state(original.parent)
    snapshot(original, copy)
    assert folder_state(original.parent) == before
    assert row_count(copy) == 62


def test_a_wal_database_that_nobody_has_open_gets_no_side_files(original: Path, copy: Path) -> None:
    with closing(sqlite3.connect(original)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    before = folder_state(original.parent)
    assert list(before) == [original.name]
    snapshot(original, copy)
    assert folder_state(original.parent) == before
    assert row_count(copy) == 2


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_of_a_file_that_is_being_written_whole_transactions_are_copied(
    original: Path, copy: Path, journal_mode: str
) -> None:
    with writer(original, journal_mode, "busy") as process:
        assert process.stdout is not None
        for attempt in range(1, 6):
            process.stdout.readline()
            snapshot(original, copy)
            count = row_count(copy)
            assert count % 2 == 0
            assert count >= 62 + 2 * attempt


def test_a_writer_that_shares_nothing_gets_a_refusal_or_whole_transactions(original: Path, copy: Path) -> None:
    with writer(original, "wal", "alone"):
        assert not original.with_name(f"{original.name}-shm").exists()
        for _ in range(3):
            try:
                snapshot(original, copy)
            except SourceError as error:
                refusal = str(error)
                assert "changed during each of 5 attempts" in refusal
            else:
                assert row_count(copy) % 2 == 0


def test_committed_rows_of_this_process_are_copied(original: Path, copy: Path) -> None:
    with closing(sqlite3.connect(original, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(ADD_ROW, ("x",))
        snapshot(original, copy)
        assert row_count(copy) == 3
        connection.execute(ADD_ROW, ("x",))
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_other_connections_of_this_process_keep_their_locks(original: Path, copy: Path) -> None:
    write = f"import sqlite3; sqlite3.connect({str(original)!r}, timeout=0).execute('BEGIN EXCLUSIVE')"
    with closing(sqlite3.connect(original, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM code_memory").fetchone()
        snapshot(original, copy)
        other = subprocess.run([sys.executable, "-c", write], capture_output=True, text=True, check=False)
    assert "database is locked" in other.stderr


def test_a_file_that_stays_locked_is_refused(original: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.sources.snapshots.LOCK_SECONDS", 0.05)
    with closing(sqlite3.connect(original, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SourceError, match="database is locked"):
            snapshot(original, copy)
    assert list(copy.parent.iterdir()) == []


def test_a_journal_that_names_another_file_is_refused_and_that_file_lives_on(original: Path, copy: Path) -> None:
    with writer(original, "delete", "in a transaction"):
        pass
    victim = original.with_name("victim")
    victim.write_text("precious")
    name = str(victim).encode()
    record = (0).to_bytes(4, "big") + name + len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big")
    with original.with_name(f"{original.name}-journal").open("ab") as journal:
        journal.write(record + SUPER_JOURNAL_MAGIC)
    with pytest.raises(SourceError, match="transaction over several files"):
        snapshot(original, copy)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"Not a database, but a letter" * 40, "it begins with b'Not a database, ', expected b'SQLite format 3"),
    ],
)
def test_what_is_no_database_is_refused(original: Path, copy: Path, content: bytes, message: str) -> None:
    original.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        snapshot(original, copy)
    assert list(copy.parent.iterdir()) == []


def test_what_is_no_file_is_refused(original: Path, copy: Path) -> None:
    os.mkfifo(original.with_name("pipe"))
    for name, message in (("absent", "there is no file"), ("", "is not a file"), ("pipe", "is not a file")):
        with pytest.raises(SourceError, match=message):
            snapshot(original.parent / name, copy)
    with pytest.raises(SourceError, match="there is no file"):
        snapshot(original / "below-a-file", copy)


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_stands_in_the_place_of_a_side_file_is_neither_followed_nor_waited_for(
    original: Path, copy: Path, tmp_path: Path, suffix: str, kind: str
) -> None:
    beside = original.with_name(original.name + suffix)
    if kind == "pipe":
        os.mkfifo(beside)
    else:
        (tmp_path / "of somebody else").touch()
        beside.symlink_to(tmp_path / "of somebody else")
    with pytest.raises(SourceError, match=f"{suffix}' beside the file is not a file"):
        snapshot(original, copy)


def test_without_room_for_the_copy_the_folder_is_named_and_nothing_left(
    original: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def connect_with_little_room(path: str | Path, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(path, **options)
        if isinstance(path, Path):
            connection.execute("PRAGMA max_page_count = 1")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_with_little_room)
    with pytest.raises(UnavailableError, match=f"no room .* in {copy.parent}"):
        snapshot(original, copy)
    assert list(copy.parent.iterdir()) == []


def test_a_link_is_followed_to_the_file_and_its_wal(original: Path, copy: Path, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(original)
    with writer(original, "wal", "idle"):
        snapshot(tmp_path / "link.db", copy)
    assert row_count(copy) == 62


def test_what_an_interrupted_snapshot_left_is_replaced(original: Path, copy: Path) -> None:
    for suffix in ("", "-wal", "-journal", "-shm"):
        copy.with_name(f"{copy.name}.partial{suffix}").write_bytes(b"left over")
    snapshot(original, copy)
    assert row_count(copy) == 2
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine can enter, with a subfolder where all may write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "ours").mkdir()
        (folder / "ours").chmod(0o777)
        yield folder


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may do anything; permissions mean something to others."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(("journal_mode", "end"), [("wal", "crash"), ("wal", "idle"), ("delete", "in a transaction")])
def test_a_folder_that_may_only_be_read_is_enough(open_folder: Path, journal_mode: str, end: str) -> None:
    theirs = open_folder / "theirs"
    theirs.mkdir()
    original = write_ai_afterimage(theirs / "memory.db", [entry(1), entry(2)])
    with writer(original, journal_mode, end):
        for path in theirs.iterdir():
            path.chmod(0o444)
        theirs.chmod(0o555)
        before = folder_state(theirs)
        with without_privileges():
            snapshot(original, open_folder / "ours" / "copy.db")
        assert folder_state(theirs) == before
        theirs.chmod(0o755)
    assert row_count(open_folder / "ours" / "copy.db") == 62


def test_a_file_that_may_not_be_read_is_refused(open_folder: Path) -> None:
    original = write_ai_afterimage(open_folder / "memory.db", [entry(1)])
    original.chmod(0)
    with without_privileges(), pytest.raises(SourceError, match="Permission denied"):
        snapshot(original, open_folder / "ours" / "copy.db")


def test_a_snapshot_is_a_source(original: Path, copy: Path) -> None:
    snapshot(original, copy)
    assert stat.S_ISREG(copy.stat().st_mode)
    with Reader(copy) as reader:
        assert [row.rowid for row in reader.rows(0, 10)] == [1, 2]
