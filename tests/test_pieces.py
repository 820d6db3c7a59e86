"""How long code is cut into pieces."""

import time
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.models import MAX_PIECES, MAX_WHOLE_CHARACTERS
from app.pieces import cut

LINES = st.one_of(
    st.sampled_from(["", "", "    ", "def f(x):", "    return x", "}", "class A:", "\t\tfoo();\r", "é😀"]),
    st.text(st.characters(exclude_characters="\n"), max_size=3000),
)
CODE = st.lists(LINES, min_size=1, max_size=80).map("\n".join)


@given(CODE)
def test_pieces_hold_every_line_that_is_not_blank_and_each_fits(code: str) -> None:
    pieces = cut(code)
    lines = code.split("\n")
    held: set[int] = set()
    for piece in pieces:
        first, last = piece.piece.first_line, piece.piece.last_line
        assert 1 <= first <= last <= len(lines)
        assert 0 < len(piece.text) <= MAX_WHOLE_CHARACTERS
        assert piece.text in "\n".join(lines[first - 1 : last])
        held.update(range(first, last + 1))
    assert len(pieces) <= MAX_PIECES
    if 0 < len(pieces) < MAX_PIECES:
        assert {number for number, line in enumerate(lines, 1) if line.strip()} <= held


@given(CODE)
def test_pieces_are_in_order(code: str) -> None:
    lines = [piece.piece.first_line for piece in cut(code)]
    assert lines == sorted(lines)


def test_short_code_is_not_cut() -> None:
    assert cut("x" * MAX_WHOLE_CHARACTERS) == []
    assert len(cut("x" * (MAX_WHOLE_CHARACTERS + 1))) > 1


def test_functions_are_pieces() -> None:
    functions = [f"def f{number}(x):\n" + f"    value = x + {number}\n" * 20 for number in range(4)]
    code = "import os\n\n\n" + "\n\n".join(functions)
    assert [piece.text.split("(")[0] for piece in cut(code)][1:] == ["def f0", "def f1", "def f2", "def f3"]


def test_methods_of_a_long_class_are_pieces() -> None:
    methods = [f"    def m{number}(self):\n" + "        do_something_long()\n\n" * 15 for number in range(3)]
    found = cut("class A:\n    x = 1\n\n" + "\n".join(methods))
    assert [piece.text.split("(")[0].strip() for piece in found][1:] == ["def m0", "def m1", "def m2"]


def test_what_has_no_blank_line_is_cut_into_overlapping_windows() -> None:
    code = "\n".join(f"statement_number_{number}();" for number in range(200))
    pieces = [piece.piece for piece in cut(code)]
    assert len(pieces) > 4
    for before, after in pairwise(pieces):
        assert before.first_line < after.first_line <= before.last_line < after.last_line


def test_one_endless_line_is_cut_within() -> None:
    pieces = cut("".join(f"{number:05}" for number in range(1000)))
    assert {(piece.piece.first_line, piece.piece.last_line) for piece in pieces} == {(1, 1)}
    assert pieces[0].text[-200:] == pieces[1].text[:200]


def test_many_small_functions_share_pieces() -> None:
    code = "\n\n".join(f"def f{number}():\n" + "    pass  # nothing\n" * 12 for number in range(150))
    pieces = cut(code)
    assert 40 < len(pieces) <= MAX_PIECES
    assert pieces[-1].piece.last_line == len(code.splitlines())


def test_the_largest_memory_is_cut_quickly() -> None:
    for code in ("x = 1\n" * 170_000, "x\n\n" * 340_000, "a" * 1024 * 1024, " \n" * 500_000):
        started = time.perf_counter()
        assert len(cut(code)) <= MAX_PIECES
        assert time.perf_counter() - started < 60
