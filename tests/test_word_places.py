"""Where texts hold the words of a query: the quick look finds what a look at each run of word characters does."""

import re

import Stemmer
from hypothesis import given
from hypothesis import strategies as st

from app.models import QueryWords
from app.tokens import clues_of, counts_as, in_small_letters, query_words
from app.word_places import Place, WordPlaces

SUFFIXES = (
    "s es ies ied ed ing edly ingly y ly tional enci anci abli entli izer ization ational ator alism aliti alli "
    "fulness ousli ousness iveness iviti biliti ogi fulli lessli alize icate iciti ical ful ness ative able ility ogist"
).split()
PARTS = st.one_of(
    st.sampled_from([*SUFFIXES, *"a get User HTTP name dying skies _ __ 2 id é \u0130 \u03a3 \u03c2 ß ş 漢".split()]),
    st.text("abeiltyAB_1", min_size=1, max_size=4),
)
RUNS = st.lists(PARTS, min_size=1, max_size=4).map("".join)
TEXTS = st.lists(st.one_of(RUNS, st.sampled_from(["(", "\n", ".", "\u3000"])), max_size=12).map(" ".join)


def each_looked_up(text: str, query: QueryWords) -> list[Place]:
    """As `WordPlaces`, without clues."""
    bits = {word: 1 << number for number, word in enumerate({*query.words, *query.identifiers})}
    runs = [(*match.span(), counts_as(match.group())) for match in re.finditer(r"\w+", text)]
    return [(begin, end, sum(bits.get(word, 0) for word in words)) for begin, end, words in runs if words & bits.keys()]


@given(st.lists(TEXTS, max_size=3), TEXTS)
def test_the_quick_look_finds_all(texts: list[str], asked: str) -> None:
    for query in map(query_words, [asked, *asked.split(), *texts]):
        words, prepared = WordPlaces(query), WordPlaces(query)
        prepared.of(" ".join(query.words))
        for text in texts:
            assert words.of(text) == prepared.of(text) == each_looked_up(text, query)


def test_a_word_is_found_where_its_run_has_underscores() -> None:
    text = "userid = user_id + other_id + u__serid + _userI_d_"
    places = WordPlaces(query_words("userid")).of(text)
    assert [text[begin:end] for begin, end, _ in places] == ["userid", "user_id", "u__serid", "_userI_d_"]


def test_letters_that_grow_or_change_as_they_become_small_are_found() -> None:
    text = "\u0130ş ΟΣ漢 ΟΣ iş ος"
    for word in text.split():
        places = WordPlaces(query_words(word)).of(text)
        assert word in [text[begin:end] for begin, end, _ in places]


def test_every_word_holds_a_clue_to_its_stem() -> None:
    stem = Stemmer.Stemmer("english").stemWord
    begins = [begin + middle for begin in ("", "b", "ab", "yl", "stab", "hop") for middle in ("", "e", "i", "at", "tt")]
    made = [begin + one + other for begin in begins for one in SUFFIXES for other in ["", *SUFFIXES]]
    for word in [*made, *"dying lying tying skies skis idly gently ugly early only singly".split()]:
        assert any(clue in word for clue in clues_of(QueryWords((stem(word),), ()))), word


def test_small_letters_are_in_the_same_places() -> None:
    letters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    small = in_small_letters("".join(letters))
    assert len(small) == len(letters)
    assert [in_small_letters(letter) for letter in letters] == list(small)
    assert in_small_letters("a\u03a3 b") == "a\u03c3 b"
