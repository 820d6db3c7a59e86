"""Excerpts around what a query asks for."""

import re

from app.excerpts import MAX_CODE_CHARACTERS, MAX_LINE_CHARACTERS, excerpt_of
from app.tokens import query_words
from app.word_places import WordPlaces

LONG = "".join(f"line_{number} = {number}\n" for number in range(1, 5001))


def test_the_lines_with_most_of_the_words_are_shown() -> None:
    code = f"{'pass' * 20}\n" * 20 + "parse()\n" + "\n" * 10 + "parse(cookie)\n"
    excerpt = excerpt_of(code, 1, WordPlaces(query_words("parse cookies")))
    assert (excerpt.first_line, excerpt.text) == (32, "parse(cookie)")
    assert [excerpt.text[begin:end] for begin, end in excerpt.highlights] == ["parse", "cookie"]


def test_without_any_of_the_words_the_piece_that_matched_is_shown() -> None:
    assert excerpt_of(LONG, 7, WordPlaces(query_words("unheard"))).text.startswith("line_7 = 7\n")


def test_a_piece_far_behind_the_beginning_is_shown_with_its_words() -> None:
    assert len(LONG) > 2 * MAX_CODE_CHARACTERS
    excerpt = excerpt_of(LONG, 4000, WordPlaces(query_words("4103")))
    assert (excerpt.first_line, excerpt.text.splitlines()[0]) == (4103, "line_4103 = 4103")
    assert excerpt_of(LONG, 4000, WordPlaces(query_words("unheard"))).first_line == 4000


def test_a_line_without_end_is_cut() -> None:
    assert len(excerpt_of("x" * 100_000, 1, WordPlaces(query_words("y"))).text) == MAX_LINE_CHARACTERS


def test_whole_words_are_marked_wherever_they_stand_and_no_parts_of_others() -> None:
    code = "cookie = xcookie + cookiex(ycookies) or _cookie(cookie_, écookie)\nCookie cookie.cookie; cookie"
    excerpt = excerpt_of(code, 1, WordPlaces(query_words("cookie")))
    runs = [match.span() for match in re.finditer(r"\w+", code)]
    others = {"xcookie", "cookiex", "ycookies", "or"}
    assert excerpt.text == code
    assert excerpt.highlights == [(begin, end) for begin, end in runs if code[begin:end] not in others]


def test_each_hit_has_its_own_places() -> None:
    codes = ["parse_cookie(a)", "b = parsed", "cookies = é_parse\tcookie", "nothing"]
    words = WordPlaces(query_words("parse cookie"))
    excerpts = [excerpt_of(code, 1, words) for code in codes]
    marked = [[one.text[begin:end] for begin, end in one.highlights] for one in excerpts]
    assert marked == [["parse_cookie"], ["parsed"], ["cookies", "é_parse", "cookie"], []]
