"""The contract of MemoryStore, on every store."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.models import EmbeddingStatus, MemoryKey, Scope
from app.store.protocol import Position, Store
from app.tokens import query_words
from tests.conftest import MODEL
from tests.memories import NOON, memory, minutes, new, vector

EVERYWHERE = Scope()


async def test_a_stored_memory_comes_back_verbatim(store: Store) -> None:
    row = new(
        new_code="x = '\\u00e9'\n\ttab 😀\r\n",
        old_code="",
        context="why: 'quotes' \\ and \"more\"",
        session_id="s",
        agent_id="a",
        project="p",
        import_id=uuid4(),
        timestamp=NOON + minutes(0.12345),
    )
    assert await store.memories.add([row], NOON) == {row.memory.key}
    assert await store.memories.get([row.memory.key]) == {row.memory.key: row.memory}
    assert await store.memories.find(row.memory.id, None) == [row.memory]


async def test_the_first_and_the_last_moment_there_is_are_times_like_any_other(store: Store) -> None:
    first = new(timestamp=datetime.min.replace(tzinfo=UTC), new_code="same")
    last = new(timestamp=datetime.max.replace(tzinfo=UTC), new_code="same")
    await store.memories.add([first, last], NOON)
    assert await store.memories.page(EVERYWHERE, 10, None) == [last.memory, first.memory]
    assert await store.memories.page(Scope(until=last.memory.timestamp), 10, None) == [first.memory]
    stats = await store.memories.stats(None, MODEL)
    assert (stats.oldest_entry, stats.newest_entry) == (first.memory.timestamp, last.memory.timestamp)
    [found] = await store.memories.distinct(EVERYWHERE, {first.memory.key: 1.0}, 1)
    assert (found.memory, found.last_timestamp) == (first.memory, last.memory.timestamp)


async def test_a_key_that_is_there_is_left_as_it_is(store: Store) -> None:
    first = new(new_code="one")
    other = new(id=first.memory.id, new_code="two")
    fresh = new()
    await store.memories.add([first], NOON)
    assert await store.memories.add([other, fresh], NOON) == {fresh.memory.key}
    assert (await store.memories.get([first.memory.key]))[first.memory.key].new_code == "one"


async def test_equal_path_and_time_are_different_memories(store: Store) -> None:
    rows = [new(new_code="one"), new(new_code="two")]
    assert len(await store.memories.add(rows, NOON)) == 2
    assert (await store.memories.stats(None, MODEL)).total_entries == 2


async def test_the_same_id_may_stand_in_two_projects(store: Store) -> None:
    one = new(project="a")
    two = new(project="b", id=one.memory.id)
    await store.memories.add([one, two], NOON)
    assert [found.project for found in await store.memories.find(one.memory.id, None)] == ["a", "b"]
    assert [found.project for found in await store.memories.find(one.memory.id, ["b"])] == ["b"]


async def test_the_best_of_each_code_stands_for_all_that_have_it(store: Store) -> None:
    low, high, older, newer = (
        new(new_code=code, timestamp=NOON + minutes(at), project="here", context=f"{at}")
        for at, code in enumerate(["one", "one", "two", "two"])
    )
    others = [new(new_code="one", project="there"), new(new_code="three", project="here"), new(new_code="four")]
    await store.memories.add([low, high, older, newer, *others], NOON)
    scores = [(older, 0.5), (low, 0.8), (newer, 0.5), (others[1], 0.4), (high, 0.9)]
    asked = {row.memory.key: score for row, score in scores} | {MemoryKey("here", uuid4()): 1.0}
    found = await store.memories.distinct(Scope(projects=["here"]), asked, 2)
    assert [(one.memory, one.copies, one.last_timestamp) for one in found] == [
        (high.memory, 2, high.memory.timestamp),
        (newer.memory, 2, newer.memory.timestamp),
    ]
    assert len({one.code_hash for one in found}) == 2
    left = await store.memories.distinct(Scope(projects=["here"]), asked, 2, [found[0].code_hash])
    assert [one.memory for one in left] == [newer.memory, others[1].memory]
    assert [one.copies for one in await store.memories.distinct(EVERYWHERE, asked, 10)] == [3, 2, 1]
    assert await store.memories.distinct(EVERYWHERE, {MemoryKey("here", uuid4()): 1.0}, 2) == []


async def test_a_deleted_memory_is_gone_from_everywhere(store: Store) -> None:
    row = new(vector(1), new_code="unmistakable")
    await store.memories.add([row], NOON)
    assert await store.memories.search_vectors(EVERYWHERE, vector(1), MODEL, 10)
    assert await store.memories.delete(row.memory.key)
    assert not await store.memories.delete(row.memory.key)
    assert await store.memories.get([row.memory.key]) == {}
    assert await store.memories.search_words(EVERYWHERE, query_words("unmistakable"), 10) == []
    assert await store.memories.search_vectors(EVERYWHERE, vector(1), MODEL, 10) == []
    assert (await store.memories.stats(None, MODEL)).entries_with_embeddings == 0


async def test_a_deleted_id_can_be_stored_again(store: Store) -> None:
    row = new(vector(1))
    await store.memories.add([row], NOON)
    await store.memories.delete(row.memory.key)
    again = replace(row, vector=vector(0, 1))
    assert await store.memories.add([again], NOON) == {row.memory.key}
    [match] = await store.memories.search_vectors(EVERYWHERE, vector(0, 1), MODEL, 10)
    assert match.score == pytest.approx(1, abs=1e-3)


async def test_pages_run_from_new_to_old_without_gaps_or_repeats(store: Store) -> None:
    rows = [new(timestamp=NOON + minutes(index // 3), project=f"p{index % 2}") for index in range(20)]
    await store.memories.add(rows, NOON)
    seen = []
    after = None
    while page := await store.memories.page(EVERYWHERE, 6, after):
        seen += page
        last = page[-1]
        after = Position(last.timestamp, last.project, last.id)
        await store.memories.add([new(timestamp=NOON + minutes(99))], NOON)  # others write meanwhile
    expected = sorted((row.memory for row in rows), key=lambda one: (one.timestamp, one.project, one.id), reverse=True)
    assert seen == expected


FILTERS: dict[str, tuple[Scope, dict[str, Any]]] = {
    "projects": (Scope(projects=["kept"]), {"project": "kept"}),
    "session_id": (Scope(session_id="kept"), {"session_id": "kept"}),
    "agent_id": (Scope(agent_id="kept"), {"agent_id": "kept"}),
    "file_path": (Scope(file_path="a_b%/c.py"), {"file_path": "a_b%/c.py"}),
    "path_prefix": (Scope(path_prefix="a_b%/"), {"file_path": "a_b%/d.py"}),
    "language": (Scope(language="kept"), {"language": "kept"}),
    "since": (Scope(since=NOON + minutes(1)), {"timestamp": NOON + minutes(1)}),
    "until": (Scope(until=NOON), {"timestamp": NOON - minutes(1)}),
}


@pytest.mark.parametrize("name", FILTERS)
async def test_a_filter_holds_in_lists_and_searches(store: Store, name: str) -> None:
    scope, fields = FILTERS[name]
    kept = new(vector(1, 1), **fields)
    others = [new(vector(1), file_path=f"aXbX/{index}.py") for index in range(20)]
    await store.memories.add([*others, kept], NOON)
    keys = [kept.memory.key]
    assert [one.key for one in await store.memories.page(scope, 10, None)] == keys
    assert [one.key for one in await store.memories.search_words(scope, query_words("parse"), 3)] == keys
    assert [one.key for one in await store.memories.search_vectors(scope, vector(1), MODEL, 3)] == keys


async def test_a_project_that_is_named_twice_is_searched_once(store: Store) -> None:
    row = new(vector(1))
    await store.memories.add([row], NOON)
    scope = Scope(projects=[row.memory.project] * 2)
    assert [one.key for one in await store.memories.page(scope, 10, None)] == [row.memory.key]
    assert [one.key for one in await store.memories.search_words(scope, query_words("parse"), 10)] == [row.memory.key]
    assert [one.key for one in await store.memories.search_vectors(scope, vector(1), MODEL, 10)] == [row.memory.key]


async def test_no_project_at_all_finds_nothing(store: Store) -> None:
    await store.memories.add([new(vector(1))], NOON)
    nowhere = Scope(projects=[])
    assert await store.memories.page(nowhere, 10, None) == []
    assert await store.memories.search_words(nowhere, query_words("parse"), 10) == []
    assert await store.memories.search_vectors(nowhere, vector(1), MODEL, 10) == []


async def test_any_word_finds_and_more_words_find_better(store: Store) -> None:
    one = new(new_code="def parse_header(line): pass")
    both = new(new_code="def parse_cookie(header): pass  # header cookie")
    none = new(new_code="import os", file_path="x.py")
    await store.memories.add([one, both, none], NOON)
    found = await store.memories.search_words(EVERYWHERE, query_words("how to read a cookie header"), 10)
    assert [match.key for match in found] == [both.memory.key, one.memory.key]
    assert all(0 < match.score < 1 for match in found)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('"parse header"', ["a"]),
        ("parse -cookie", ["a", "c"]),
        ("parse header -parseHeader", ["b", "c"]),
        ('header "header parse" -cookie', ["c"]),
    ],
)
async def test_phrases_and_excluded_words_hold(store: Store, query: str, found: list[str]) -> None:
    await store.memories.add(
        [
            new(file_path="a", new_code="def parseHeader(line): pass"),
            new(file_path="b", new_code="def parse(cookie, header): pass"),
            new(file_path="c", new_code="header.parse()"),
        ],
        NOON,
    )
    matches = await store.memories.search_words(EVERYWHERE, query_words(query), 10)
    memories = await store.memories.get([match.key for match in matches])
    assert sorted(one.file_path for one in memories.values()) == found


async def test_all_words_can_be_asked_for(store: Store) -> None:
    both, one = new(new_code="parse the cookie"), new(new_code="parse it")
    await store.memories.add([both, one], NOON)
    [match] = await store.memories.search_words(EVERYWHERE, query_words("cookie parse", match_all=True), 10)
    assert match.key == both.memory.key


async def test_a_definition_comes_before_its_uses(store: Store) -> None:
    uses = [new(new_code=f"x = load(load(load({number})))") for number in range(30)]
    definition = new(new_code="def load(path):\n    return open(path).read()")
    await store.memories.add([*uses, definition, new(new_code="def load_all(): load()")], NOON)
    await store.memories.refresh_frequencies()
    found = await store.memories.search_words(EVERYWHERE, query_words("load"), 3)
    assert found[0].key == definition.memory.key


async def test_a_rare_word_counts_more_than_a_common_one(store: Store) -> None:
    common = [new(new_code=f"value = value + {number}") for number in range(100)]
    rare = new(new_code="a long text about many other things, and somewhere in it stands the quaternion once")
    await store.memories.add([*common, rare], NOON)
    await store.memories.refresh_frequencies()
    found = await store.memories.search_words(EVERYWHERE, query_words("quaternion value"), 3)
    assert found[0].key == rare.memory.key


async def test_any_number_of_processes_may_count_words_at_once(store: Store) -> None:
    await store.memories.add([new(new_code=f"value = {number}") for number in range(50)], NOON)
    await asyncio.gather(*(store.memories.refresh_frequencies() for _ in range(4)))
    assert await store.memories.refresh_frequencies() == 0
    assert len(await store.memories.search_words(EVERYWHERE, query_words("value"), 100)) == 50


async def test_new_words_are_found_before_and_after_they_are_merged(store: Store) -> None:
    await store.memories.add([new(new_code=f"value = {number}") for number in range(50)], NOON)
    for _ in range(2):
        assert len(await store.memories.search_words(EVERYWHERE, query_words("value"), 100)) == 50
        await asyncio.gather(*(store.memories.merge_words() for _ in range(4)))
    assert await store.memories.merge_words() == 0


async def test_path_and_context_are_searched(store: Store) -> None:
    by_path = new(file_path="billing/invoice.py", new_code="x")
    by_context = new(context="Round the totals", new_code="y", file_path="z.py")
    await store.memories.add([by_path, by_context], NOON)
    for word, row in (("invoices", by_path), ("totals", by_context)):
        found = await store.memories.search_words(EVERYWHERE, query_words(word), 10)
        assert [match.key for match in found] == [row.memory.key]


async def test_an_identifier_is_found_however_it_is_written(store: Store) -> None:
    row = new(new_code="client.getUserById(7)")
    await store.memories.add([row, new()], NOON)
    for query in ("getUserById", "get_user_by_id", "GETUSERBYID", "user id"):
        found = await store.memories.search_words(EVERYWHERE, query_words(query), 10)
        assert found[0].key == row.memory.key, query


async def test_vectors_are_ordered_by_cosine(store: Store) -> None:
    rows = [new(vector(1, share)) for share in (0.0, 0.5, 1.0, -1.0)]
    await store.memories.add(rows, NOON)
    found = await store.memories.search_vectors(EVERYWHERE, vector(1, 1), MODEL, 3)
    assert [match.key for match in found] == [rows[2].memory.key, rows[1].memory.key, rows[0].memory.key]
    assert [match.score for match in found] == pytest.approx([1.0, 0.9487, 0.7071], abs=1e-3)


@pytest.mark.parametrize("limit", [1, 10, 90])
async def test_the_nearest_of_many_vectors_are_found_wherever_they_stand(store: Store, limit: int) -> None:
    shares = [number // 5 for number in range(1500)]  # each five times
    rows = [new(vector(share / 150 - 1, 1), id=UUID(int=at)) for at, share in enumerate(shares)]  # the nearest last
    await store.memories.add(rows, NOON)
    found = await store.memories.search_vectors(EVERYWHERE, vector(1), MODEL, limit)
    share_of = {row.memory.key: share for row, share in zip(rows, shares, strict=True)}
    assert [share_of[match.key] for match in found] == sorted(shares, reverse=True)[:limit]


async def test_vectors_of_another_model_are_never_mixed_in(store: Store) -> None:
    await store.memories.add([new(vector(1))], NOON)
    assert await store.memories.search_vectors(EVERYWHERE, vector(1), "another", 10) == []


LONG_WORDS = " ".join(
    "".join(chr(0x10400 + (index * 7919 + place * 31) % 40) for place in range(16)) + str(index)
    for index in range(9000)
)
SHORT_WORDS = " ".join(chr(0x4E00 + index % 20000) + str(index) for index in range(130_000))
MIXED_WORDS = " ".join(f"a{index:x}Z" for index in range(60_000))


@pytest.mark.parametrize("words", [LONG_WORDS, SHORT_WORDS, MIXED_WORDS])
async def test_a_huge_memory_of_distinct_words_is_stored_and_found(store: Store, words: str) -> None:
    row = new(new_code=f"needle {words[: 1024 * 256]}", context=words[::-1][:20000])
    await store.memories.add([row], NOON)
    [match] = await store.memories.search_words(EVERYWHERE, query_words("needle"), 10)
    assert match.key == row.memory.key


async def test_stats_count_exactly(store: Store) -> None:
    rows = [
        new(vector(1), file_path="a.py", session_id="s"),
        new(file_path="a.py", session_id="t", timestamp=NOON + minutes(5)),
        new(file_path="b.py", project="other", timestamp=NOON - minutes(5)),
    ]
    await store.memories.add(rows, NOON)
    stats = await store.memories.stats(None, MODEL)
    assert (stats.total_entries, stats.entries_with_embeddings, stats.unique_files, stats.unique_sessions) == (
        3,
        1,
        2,
        2,
    )
    assert (stats.oldest_entry, stats.newest_entry) == (NOON - minutes(5), NOON + minutes(5))
    assert (stats.embedding.pending, stats.embedding.failed, stats.embedding.dimensions) == (2, 0, 384)
    assert stats.backend_type == store.backend
    assert stats.db_size_bytes > 0
    only = await store.memories.stats(["other"], MODEL)
    assert (only.total_entries, only.embedding.pending) == (1, 1)


async def test_status_says_whether_a_vector_is_there(store: Store) -> None:
    ready, pending = new(vector(1)), new()
    await store.memories.add([ready, pending], NOON)
    found = await store.memories.get([ready.memory.key, pending.memory.key, MemoryKey("default", uuid4())])
    assert found[ready.memory.key].embedding_status is EmbeddingStatus.READY
    assert found[pending.memory.key].embedding_status is EmbeddingStatus.PENDING
    assert len(found) == 2
    assert memory().embedding_status is EmbeddingStatus.PENDING


async def test_more_memories_than_a_statement_takes_are_stored_whole_or_not_at_all(store: Store) -> None:
    rows = sorted((new(new_code=str(number)) for number in range(600)), key=lambda row: row.memory.id.int)
    last = replace(rows[-1], memory=replace(rows[-1].memory, new_code=""))
    with pytest.raises(Exception, match=r"(?i)check"):
        await store.memories.add([*rows[:-1], last], NOON)
    assert (await store.memories.stats(None, MODEL)).total_entries == 0
    assert await store.memories.add(rows, NOON) == {row.memory.key for row in rows}
    there = await store.memories.get([row.memory.key for row in rows])
    assert [there[row.memory.key].new_code for row in rows] == [row.memory.new_code for row in rows]
