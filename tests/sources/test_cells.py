import struct
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np
import pytest

from app.models import MAX_TEXT_BYTES, Reject, SourceRow
from app.sources import Reader
from tests.source_files import DIMENSIONS, LOOSE_SCHEMA, entry, vector_blob, write_ai_afterimage

Read = Callable[..., SourceRow | Reject]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Writes one row with these changes into a table that takes anything, and reads it."""

    def read_one(**changes: object) -> SourceRow | Reject:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
        with Reader(write_ai_afterimage(path, [entry(1, **changes)], schema=LOOSE_SCHEMA)) as reader:
            (row,) = reader.rows(0, 10)
            return row

    return read_one


def taken(row: SourceRow | Reject) -> SourceRow:
    assert isinstance(row, SourceRow), row
    return row


REJECTS: list[tuple[dict[str, Any], str]] = [
    ({"new_code": None}, "new_code is missing"),
    ({"new_code": ""}, "new_code is empty"),
    ({"file_path": None}, "file_path is missing"),
    ({"file_path": ""}, "file_path is empty"),
    ({"file_path": "p" * 4097}, "file_path has 4,097 characters, the limit is 4,096"),
    ({"session_id": "s" * 201}, "session_id has 201 characters, the limit is 200"),
    ({"new_code": "x" * (MAX_TEXT_BYTES + 1)}, "new_code has 1,048,577 bytes, the limit is 1,048,576"),
    ({"old_code": "é" * (MAX_TEXT_BYTES // 2 + 1)}, "old_code has 1,048,578 bytes, the limit is 1,048,576"),
    ({"context": "\0" * (MAX_TEXT_BYTES // 2)}, "context has 1,572,864 bytes of UTF-8, the limit is 1,048,576"),
    ({"new_code": b"ab\xff"}, "new_code is not UTF-8: byte 0xff at 2"),
    ({"new_code": b"\xed\xa0\x80"}, "new_code is not UTF-8: byte 0xed at 0"),
    ({"timestamp": None}, "timestamp is missing"),
    ({"timestamp": ""}, "timestamp is empty"),
    ({"timestamp": "yesterday"}, "timestamp must be ISO 8601 in the years 1 to 9999, got 'yesterday'"),
    ({"timestamp": "0001-01-01T00:00:00+10:00"}, "timestamp must be ISO 8601 in the years 1 to 9999, got '0001"),
    ({"timestamp": 1767600000}, "timestamp must be ISO 8601 in the years 1 to 9999, got '1767600000'"),
]


@pytest.mark.parametrize(("changes", "reason"), REJECTS, ids=[reason for _, reason in REJECTS])
def test_a_row_that_does_not_fit_is_rejected_with_its_id(read: Read, changes: dict[str, Any], reason: str) -> None:
    row = read(**changes)
    assert isinstance(row, Reject)
    assert (row.rowid, row.source_id) == (1, entry(1)["id"])
    assert row.reason.startswith(reason)


def test_values_at_their_limits_are_taken_verbatim(read: Read) -> None:
    row = taken(read(file_path="é" * 4096, session_id="s" * 200, new_code="é" * (MAX_TEXT_BYTES // 2), old_code=""))
    assert (len(row.file_path), len(row.session_id or ""), len(row.new_code)) == (4096, 200, MAX_TEXT_BYTES // 2)
    assert (row.old_code, row.altered) == ("", None)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-01-05T09:00:37.000001+00:00", datetime(2026, 1, 5, 9, 0, 37, 1, tzinfo=UTC)),
        ("2026-01-05T09:00:37.123Z", datetime(2026, 1, 5, 9, 0, 37, 123000, tzinfo=UTC)),
        ("2026-01-05T09:00:37", datetime(2026, 1, 5, 9, 0, 37, tzinfo=UTC)),
        ("2026-01-05 11:00:37+02:00", datetime(2026, 1, 5, 9, 0, 37, tzinfo=UTC)),
        ("2026-01-05", datetime(2026, 1, 5, tzinfo=UTC)),
    ],
)
def test_a_timestamp_is_read_in_every_form_and_without_a_zone_is_utc(
    read: Read, written: str, expected: datetime
) -> None:
    row = taken(read(timestamp=written))
    assert row.timestamp == expected
    assert row.timestamp.tzinfo is UTC


def test_a_nul_character_costs_no_memory(read: Read) -> None:
    row = taken(read(new_code="a\0b\0", context="c"))
    assert row.new_code == "a\ufffdb\ufffd"
    assert row.altered == "new_code held 2 NUL characters, now U+FFFD"
    assert row.vector is None
    assert row.vector_problem == "embedding was made of text with NUL characters"


def test_what_a_timestamp_loses_is_told(read: Read) -> None:
    row = taken(read(timestamp="2026-01-02T03:04:05.123456789+00:00"))
    assert row.altered == "timestamp was more exact than a microsecond"
    assert taken(read(timestamp="2026-01-02T03:04:05.123456000")).altered is None


def test_a_number_or_a_blob_in_the_place_of_text_becomes_text(read: Read) -> None:
    row = taken(read(context=7, session_id=1.5, old_code="é".encode()))
    assert (row.context, row.session_id, row.old_code) == ("7", "1.5", "é")
    assert row.altered == (
        "old_code was stored as a blob; context was stored as a number; session_id was stored as a number"
    )


@pytest.mark.parametrize("written", ["note-17", 17, b"\xff\x00raw", "x" * 5000])
def test_an_id_that_is_no_uuid_gives_the_same_uuid_in_every_run(read: Read, written: object) -> None:
    first, second = taken(read(id=written)), taken(read(id=written))
    assert first.id == second.id
    assert first.altered is not None
    assert first.altered.startswith("id was ")
    assert len(first.altered) < 300


def test_the_uuid_of_another_id_can_be_reckoned_by_anyone(read: Read) -> None:
    row = taken(read(id="note-17"))
    assert (row.id, row.altered) == (uuid5(NAMESPACE_URL, "note-17"), "id was 'note-17'")


def test_a_uuid_in_another_spelling_stays_that_uuid(read: Read) -> None:
    row = taken(read(id="{0C847620-4E7F-4FEB-93FD-4BEEF2A9294C}"))
    assert row.id == UUID("0c847620-4e7f-4feb-93fd-4beef2a9294c")
    assert row.altered == "id was '{0C847620-4E7F-4FEB-93FD-4BEEF2A9294C}'"


@pytest.mark.parametrize("missing", [None, "", b""])
def test_a_missing_id_is_made_from_the_content_alone(read: Read, missing: object) -> None:
    first, second, other = (taken(read(id=missing, context=context)) for context in ("a", "a", "b"))
    assert first.id == second.id != other.id
    assert first.altered == "id was missing, made from the content"


def test_the_id_of_a_reject_can_be_read_whatever_it_is(read: Read) -> None:
    ids = [None, 17, "a\0b", b"\xff", "x" * 300]
    shown = [
        row.source_id for row in (read(id=identifier, new_code=None) for identifier in ids) if isinstance(row, Reject)
    ]
    assert shown == [None, "17", "a\ufffdb", "\\xff", f"{'x' * 200}..."]


@pytest.mark.parametrize(
    ("embedding", "problem"),
    [
        (vector_blob(1, DIMENSIONS - 1), "embedding has 1,532 bytes, expected 1,536 (384 dimensions)"),
        (b"", "embedding has 0 bytes, expected 1,536 (384 dimensions)"),
        (bytes(4 * DIMENSIONS), "embedding is all zero"),
        (struct.pack("<f", float("nan")) + vector_blob(1)[4:], "embedding holds values that are not finite"),
        (struct.pack("<f", float("-inf")) + vector_blob(1)[4:], "embedding holds values that are not finite"),
        (struct.pack("<I", 0x7F800001) + vector_blob(1)[4:], "embedding holds values that are not finite"),
        ("[0.1, 0.2]", "embedding is not stored as a blob"),
        (1, "embedding is not stored as a blob"),
    ],
)
def test_an_unusable_vector_costs_no_memory(read: Read, embedding: object, problem: str) -> None:
    row = taken(read(embedding=embedding))
    assert (row.vector, row.vector_problem) == (None, problem)
    assert row.new_code == entry(1)["new_code"]


def test_a_memory_without_a_vector_has_no_vector_problem(read: Read) -> None:
    row = taken(read(embedding=None))
    assert (row.vector, row.vector_problem) == (None, None)


@pytest.mark.parametrize("scale", [1e-44, 0.5, 1.00001, 1e38])
def test_a_vector_of_another_length_is_brought_to_unit_length(read: Read, scale: float) -> None:
    stored = np.ones(DIMENSIONS, "<f4") * np.float32(scale)
    vector = taken(read(embedding=stored.tobytes())).vector
    assert vector is not None
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector.astype(np.float64)) == pytest.approx(1, abs=1e-6)


def test_the_number_of_dimensions_is_the_callers(tmp_path: Path) -> None:
    path = write_ai_afterimage(tmp_path / "source.db", [entry(1, embedding=vector_blob(1, 8))])
    with Reader(path, vector_dimensions=8) as reader:
        (row,) = reader.rows(0, 1)
    vector = taken(row).vector
    assert vector is not None
    assert vector.shape == (8,)
