import random
import time
from pathlib import Path

import pytest

from app.errors import SourceError
from app.models import Reject, SourceRow
from app.sources import Reader, snapshot
from tests.source_files import (
    AI_AFTERIMAGE_SCHEMA,
    PAGE_BYTES,
    damage,
    entry,
    fullest_page,
    row_page,
    truncate,
    walk,
    write_ai_afterimage,
    write_ai_afterimage_08,
    zero_page,
)

ROWS = 60
DEADLINE_SECONDS = 10.0


def long_code(number: int) -> str:
    """From one line to several pages."""
    return f"def marker_{number:03}(): ...\n" * (1 + number * number % 400)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    entries = [entry(number, new_code=long_code(number)) for number in range(1, ROWS + 1)]
    return write_ai_afterimage(tmp_path / "source.db", entries)


def rejects(rows: list[SourceRow | Reject]) -> list[Reject]:
    return [row for row in rows if isinstance(row, Reject)]


def test_each_row_of_a_lost_page_is_a_reject_and_all_others_are_read(path: Path) -> None:
    zero_page(path, row_page(path, "/module_30.py"))
    with Reader(path) as reader:
        rows = walk(reader, 7)
        assert reader.count == len(rows) == ROWS
    assert [row.rowid for row in rows] == list(range(1, ROWS + 1))
    lost = rejects(rows)
    assert 30 in [reject.rowid for reject in lost]
    assert 0 < len(lost) < 5
    assert all(reject.reason == "the row cannot be read: database disk image is malformed" for reject in lost)


def test_of_a_row_with_damaged_text_the_id_is_told(path: Path) -> None:
    zero_page(path, fullest_page(path, "marker_019"))
    with Reader(path) as reader:
        lost = rejects(walk(reader))
    assert (19, entry(19)["id"]) in [(reject.rowid, reject.source_id) for reject in lost]


def test_damage_to_a_vector_alone_costs_no_memory(tmp_path: Path) -> None:
    # The text fills the page of the row, so that the vector goes on elsewhere.
    code = "x" * 20 + "\n" + "def marker(): ...\n" * 20
    path = write_ai_afterimage(tmp_path / "source.db", [entry(1, new_code=code, embedding=b"v" * 3 * PAGE_BYTES)])
    zero_page(path, fullest_page(path, "v"))
    with Reader(path) as reader:
        (row,) = walk(reader)
    assert isinstance(row, SourceRow)
    assert (row.new_code, row.vector) == (code, None)
    assert row.vector_problem == "embedding: database disk image is malformed"


def test_a_row_that_vanished_without_an_error_is_told_by_the_index(tmp_path: Path) -> None:
    path = write_ai_afterimage(tmp_path / "source.db", [entry(number) for number in range(1, 5)])
    content = bytearray(path.read_bytes())
    number_of_cells = (row_page(path, "/module_2.py") - 1) * PAGE_BYTES + 4
    assert content[number_of_cells] == 2
    content[number_of_cells] = 1
    path.write_bytes(content)
    with Reader(path) as reader:
        rows = walk(reader)
        assert reader.count == len(rows) == 4
    assert rejects(rows) == [Reject(2, None, "the row is lost: an index names it, but the table does not hold it")]


def test_what_no_index_can_tell_is_one_more_reject(tmp_path: Path) -> None:
    schema = AI_AFTERIMAGE_SCHEMA.replace("id TEXT PRIMARY KEY", "id TEXT").replace(
        ",\n  UNIQUE (file_path, timestamp)", ""
    )
    schema = "".join(f"{part};" for part in schema.split(";")[:1]) + "CREATE TABLE filler (x);"
    entries = [entry(number, new_code=long_code(number)) for number in range(1, ROWS + 1)]
    path = write_ai_afterimage(tmp_path / "source.db", entries, schema=schema)
    zero_page(path, row_page(path, "/module_30.py"))
    with Reader(path) as reader:
        rows = walk(reader)
        assert reader.count == len(rows)
    (lost,) = rejects(rows)
    assert lost.rowid == ROWS + 1
    assert "it may have lost more rows, which no index names" in lost.reason
    assert {row.rowid for row in rows} > {1, ROWS}


def test_a_truncated_file_is_refused_with_both_sizes(path: Path, tmp_path: Path) -> None:
    size = path.stat().st_size
    truncate(path, size - PAGE_BYTES)
    for read in (Reader, lambda path: snapshot(path, tmp_path / "copy.db")):
        with pytest.raises(
            SourceError, match=f"truncated: it has {size - PAGE_BYTES:,} bytes, its header says {size:,}"
        ):
            read(path)


@pytest.mark.parametrize("seed", range(60))
def test_every_damaged_file_is_refused_or_accounted_for(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    write = chance.choice((write_ai_afterimage, write_ai_afterimage_08))
    path = write(tmp_path / "source.db", [entry(number, new_code=long_code(number)) for number in range(1, ROWS + 1)])
    damage(path, chance, seed)
    started = time.monotonic()
    try:
        snapshot(path, tmp_path / "copy.db")
        with Reader(tmp_path / "copy.db") as reader:
            rows = walk(reader, chance.choice((7, 500)))
            assert len(rows) == reader.count
            assert [row.rowid for row in rows] == sorted({row.rowid for row in rows})
            assert set(reader.unmapped) <= {"unit_key", "version", "supersedes", "is_latest", "seen_count", "last_seen"}
    except SourceError:
        pass
    assert time.monotonic() - started < DEADLINE_SECONDS
