"""Words of documents and queries."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.tokens import (
    _DEFINITION,
    _PART,
    MAX_PARTS,
    MAX_QUERY_WORDS,
    MAX_WORD_CHARACTERS,
    NAME_MARK,
    _definitions,
    _split,
    document_words,
    identifier_of,
    is_code,
    query_words,
)


def test_identifiers_count_whole_and_in_parts() -> None:
    words = document_words("a.py", "parseHTTPHeader get_user_by_id utf8", None)
    assert words.code == ["pars", "http", "header", "get", "user", "by", "id", "utf", "8"]
    assert words.identifiers == ["parsehttpheader", "getuserbyid", "utf8"]


def test_paths_and_context_are_split_like_code() -> None:
    words = document_words("src/userAccounts/views.py", "x", "Running the migrations")
    assert words.path == ["src", "user", "account", "view", "py"]
    assert words.context == ["run", "the", "migrat"]


def test_a_question_is_left_with_its_telling_words() -> None:
    assert query_words("How do I parse the headers?").words == ("pars", "header")


def test_a_query_of_common_words_alone_keeps_them() -> None:
    assert query_words("what is it").words == ("what", "is", "it")


def test_operators_alone_ask_for_nothing() -> None:
    assert not query_words("&& || ( <-> ) ! *")


def test_encoded_data_is_not_indexed() -> None:
    words = document_words("a.py", "x = " + "A1b2" * 50, None)
    assert words.code == ["x"]


@given(st.text(max_size=500))
def test_words_hold_letters_and_digits_only_and_are_bounded(text: str) -> None:
    words = document_words(text or "x", text, text)
    for word in [*words.code, *words.identifiers, *words.path, *words.context]:
        assert re.fullmatch(r"[^\W_]+", word), word
        assert len(word) <= MAX_WORD_CHARACTERS


@given(st.text(max_size=300).filter(lambda text: "-" not in text))
def test_a_document_is_found_by_its_own_text(text: str) -> None:
    asked = query_words(text)
    words = document_words("x", text, None)
    assert {*asked.words} - {*asked.excluded} <= set(words.code)
    assert set(words.identifiers) <= set(asked.identifiers) or len(asked.words) >= MAX_QUERY_WORDS


@given(st.text(alphabet=st.characters(), min_size=1, max_size=2000))
def test_a_long_query_is_cut(text: str) -> None:
    asked = query_words(text)
    assert len(asked.words) <= MAX_QUERY_WORDS
    assert len(set(asked.words)) == len(asked.words)


@given(st.lists(st.sampled_from(["user", "name", "http", "parse"]), min_size=2, max_size=4))
def test_snake_case_and_camel_case_are_the_same_identifier(parts: list[str]) -> None:
    camel = parts[0] + "".join(part.title() for part in parts[1:])
    assert query_words("_".join(parts)) == query_words(camel)


DEFINITIONS = {
    "def get_user(self): ...": "=getuser",
    "class UserStore(Base):": "=userstore",
    "func (s *Server) HandlePush(w Writer) error {": "=handlepush",
    "export const fetchAll = async () => 1": "=fetchall",
    "public static int maxDepth(Node root) {": "=maxdepth",
    "pub fn from_str(s: &str) -> Self {": "=fromstr",
}


@pytest.mark.parametrize("code", DEFINITIONS)
def test_what_code_defines_is_a_name(code: str) -> None:
    assert DEFINITIONS[code] in document_words("x", code, None).names


@pytest.mark.parametrize("code", ["if (ready) { go() }", "get_user()", "for (;;) {"])
def test_what_code_only_uses_is_no_name(code: str) -> None:
    assert not [name for name in document_words("x", code, None).names if name.startswith(NAME_MARK)]


@pytest.mark.parametrize(
    "query", ["load_page", "Store.load_page", "self.loadPage(x, 1)", "Queue::loadPage", "loadPage();"]
)
def test_a_dotted_name_or_call_is_an_identifier(query: str) -> None:
    assert identifier_of(query) == "loadpage"


@pytest.mark.parametrize("query", ["how to load a page", "load page", "x = load(page)\ny = 2", "", "()"])
def test_other_texts_are_no_identifier(query: str) -> None:
    assert identifier_of(query) is None


def test_code_is_told_from_questions() -> None:
    assert is_code("def f(x):\n    return x")
    assert is_code("x = 1\r\ny = 2")
    assert not is_code("how to call f(x)?")
    assert not is_code("a question\nof two lines")
    assert not is_code("f(x)\n")


def test_quotes_ask_for_a_phrase_and_a_minus_excludes() -> None:
    asked = query_words('"parse header" fast -cookie -setCookie')
    assert asked.phrases == (("pars", "header"),)
    assert asked.excluded == ("cooki", "setcookie")
    assert asked.words == ("pars", "header", "fast")


@pytest.mark.parametrize("query", ['print("two words")', "a = b -c", "-only", '"', "x-y"])
def test_code_and_lone_operators_demand_nothing(query: str) -> None:
    asked = query_words(query)
    assert (asked.required, asked.excluded) == ((), ())


@given(st.text(max_size=2000))
def test_any_query_asks_for_words_without_quotes(text: str) -> None:
    asked = query_words(text)
    for word in [*asked.words, *asked.identifiers, *asked.excluded, *(w for phrase in asked.phrases for w in phrase)]:
        assert re.fullmatch(r"=?[^\W_]+", word), word


KEYWORDS = "def class func function fn undef defmodule module const let async type".split()
FRAGMENTS = [*KEYWORDS, "(r)", "(r *T)", "*", "=", "=>", "\t", "x2", "get_user", "\n", ","]


@given(st.lists(st.sampled_from([*FRAGMENTS, " ", " ", "("]), max_size=30).map("".join))
def test_definitions_are_found_sooner_but_are_the_same(code: str) -> None:
    found = [match.span() for match in _definitions(code)]
    assert found == [match.span() for match in _DEFINITION.finditer(code)]


@given(st.text("aàbZÉ09_٣中", min_size=1, max_size=20))
def test_runs_without_capitals_are_parted_sooner_but_the_same(run: str) -> None:
    parts = _PART.findall(run)
    stems, whole = _split(run)
    if len(parts) > MAX_PARTS:
        assert len(stems) <= 1
    else:
        assert len(stems) == len(parts)
        assert all(part.lower().startswith(stem[:1]) for part, stem in zip(parts, stems, strict=True))
        assert whole == (run.replace("_", "").lower() if len(parts) > 1 else None)
