"""Selections: what a pattern means, what is more than what, and that absent is not empty."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_mcp_gateway.auth.scope import (
    EVERYTHING,
    NOTHING,
    UNNARROWED,
    Patterns,
    ScopeText,
    Selection,
    beyond,
    common,
    either,
    matching,
    selection,
    surplus,
    written,
)

TEXTS = st.text(alphabet="ab/", min_size=0, max_size=4)
PATTERNS = st.builds(lambda text, star: text + star, TEXTS, st.sampled_from(["", "*"])).filter(bool)
LISTS = st.lists(PATTERNS, max_size=4)
FAR = "\U0010ffff"
"""A continuation that no pattern of these tests has."""


def naive(patterns: list[str], text: str) -> bool:
    return any(
        pattern == text or (pattern[-1] == "*" and text[: len(pattern) - 1] == pattern[:-1])
        for pattern in patterns
    )


@given(LISTS, TEXTS)
def test_a_selection_is_what_its_patterns_mean(patterns: list[str], text: str) -> None:
    assert (text in selection(patterns)) is naive(patterns, text)
    assert naive(patterns, text) is any(matching(one, text) for one in patterns)


@given(LISTS)
def test_writing_and_reading_is_the_same(patterns: list[str]) -> None:
    chosen = selection(patterns)
    assert selection(written(chosen)) == chosen
    assert written(chosen) == sorted(set(written(chosen)))


@given(LISTS, LISTS)
def test_beyond(inner: list[str], outer: list[str]) -> None:
    """What is named is more than the outer selection, and what is not named is within it."""
    over = beyond(selection(inner), selection(outer))
    for pattern in written(selection(inner)):
        exceeds = pattern in over
        if pattern.endswith("*"):
            assert exceeds is not naive(outer, pattern[:-1] + FAR)
        else:
            assert exceeds is not naive(outer, pattern)
    assert set(over) <= set(written(selection(inner)))


@given(LISTS, LISTS, TEXTS)
def test_a_subset_holds_nothing_more(inner: list[str], outer: list[str], text: str) -> None:
    if not beyond(selection(inner), selection(outer)):
        assert text not in selection(inner) or text in selection(outer)


def test_everything_and_nothing() -> None:
    assert selection(["*"]) is EVERYTHING
    assert selection(["a", "*"]) is EVERYTHING
    assert selection([]) == NOTHING
    assert written(EVERYTHING) == ["*"]
    assert written(NOTHING) == []
    assert "" not in NOTHING
    assert "a" not in NOTHING
    assert 1 not in Patterns(frozenset({"1"}), ("1",))
    assert beyond(EVERYTHING, NOTHING) == ["*"]
    assert beyond(EVERYTHING, EVERYTHING) == []
    assert beyond(NOTHING, NOTHING) == []
    assert repr(EVERYTHING) == '"*"'


@pytest.mark.parametrize("pattern", ["", "**", "a*b", "*a", "a**", "*/*"])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match="must be a name"):
        selection(["fine", pattern])
    with pytest.raises(ValueError, match="must be a name"):
        ScopeText(tools=(pattern,)).compiled()


@pytest.mark.parametrize(
    "text", ["PG/query", "pg/Query", "pg/query ", "pg/que\u0301ry", "xpg/query"]
)
def test_names_have_one_spelling(text: str) -> None:
    assert text not in selection(["pg/query", "pg/quer*"]) or text.startswith("pg/quer")
    assert text not in selection(["pg/query"])


MEMBERS = ("permissions", "namespaces", "servers", "tools", "resources", "prompts")


@pytest.mark.parametrize("member", MEMBERS)
def test_absent_leaves_and_empty_takes_away(member: str) -> None:
    assert ScopeText().compiled() == UNNARROWED
    empty = ScopeText(**{member: ()}).compiled()
    assert getattr(empty, member) == NOTHING
    for other in set(MEMBERS) - {member}:
        with_tools = member == "tools" and other in {"resources", "prompts"}
        assert getattr(empty, other) == (NOTHING if with_tools else EVERYTHING)
    assert empty.deny_tools == NOTHING


def test_denying_nothing_denies_nothing() -> None:
    assert ScopeText(deny_tools=()).compiled() == UNNARROWED


def test_who_names_tools_means_no_more_unless_it_says_so() -> None:
    named = ScopeText(tools=("a/b",), resources=("*",), prompts=("a/*",)).compiled()
    assert named.resources is EVERYTHING
    assert named.prompts == Patterns(prefixes=("a/",))
    everything = ScopeText(tools=("*",)).compiled()
    assert (everything.tools, everything.resources) == (EVERYTHING, NOTHING)


@pytest.mark.parametrize(
    ("text", "narrows"),
    [
        (ScopeText(), False),
        (ScopeText(servers=(), namespaces=(), permissions=()), False),
        (ScopeText(tools=("*",), resources=("*",), prompts=("*",)), False),
        (ScopeText(tools=("*",)), True),
        (ScopeText(tools=()), True),
        (ScopeText(deny_tools=("a/b",)), True),
        (ScopeText(deny_tools=("*",)), True),
        (ScopeText(resources=()), True),
        (ScopeText(prompts=("a/*",)), True),
    ],
)
def test_what_narrows_calls(text: ScopeText, narrows: bool) -> None:
    assert text.compiled().narrows_calls is narrows


def test_as_written_in_a_store() -> None:
    text = ScopeText(tools=(), servers=("a",))
    raw = msgspec.json.encode(text)
    assert msgspec.json.decode(raw) == {"tools": [], "servers": ["a"]}
    assert msgspec.json.decode(raw, type=ScopeText) == text
    for wrong in (b'{"tool":[]}', b'{"tools":"*"}', b'{"tools":[1]}', b"[]", b"null"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(wrong, type=ScopeText)


def test_equal_selections_have_equal_hashes() -> None:
    one: Selection = selection(["b", "a", "c*", "d*"])
    other = selection(["d*", "c*", "a", "b", "a"])
    assert one == other
    assert hash(one) == hash(other)


@given(st.sampled_from(ScopeText.__struct_fields__), LISTS, LISTS, TEXTS)
def test_what_two_selections_have_in_common(
    member: str, one: list[str], other: list[str], text: str
) -> None:
    both = common(member, selection(one), selection(other))
    assert (text in both) is (naive(one, text) and naive(other, text))
    assert common(member, selection(other), selection(one)) == both
    assert (text in either(selection(one), selection(other))) is naive(one + other, text)


def test_what_is_in_common_is_written_once_and_in_order() -> None:
    one, other = selection(["a/x*", "b", "c*", "z"]), selection(["a*", "b", "c*", "d"])
    assert common("tools", one, other) == selection(["a/x*", "b", "c*"])
    assert common("tools", one, other) == common("tools", other, one)
    assert either(one, other) == selection(["a*", "a/x*", "b", "c*", "d", "z"])
    for everything in ((EVERYTHING, one), (one, EVERYTHING)):
        assert common("tools", *everything) is one
        assert either(*everything) is EVERYTHING


def test_a_resource_that_steps_back_is_in_no_beginning_of_its_name() -> None:
    """Whoever names it in full reaches what the beginning does not."""
    named, beginning = selection(["s/a/../b", "s/a/c"]), selection(["s/a/*"])
    assert surplus("resources", named, beginning) == ["s/a/../b"]
    assert surplus("resources", named, named) == []
    assert surplus("resources", named, NOTHING) == ["s/a/../b", "s/a/c"]
    assert surplus("resources", named, EVERYTHING) == []
    assert surplus("resources", EVERYTHING, named) == ["*"]
    assert surplus("resources", beginning, beginning) == []
    assert surplus("tools", named, beginning) == []
    assert common("resources", named, beginning) == selection(["s/a/c"])
    assert common("resources", named, named) == named
    assert common("tools", named, beginning) == named
    over, under = (ScopeText(resources=tuple(one)).compiled() for one in (["s/a/*"], ["s/a/../b"]))
    assert not over.includes(under)
    assert under.includes(under)
    assert over.within(under).resources == under.within(over).resources == NOTHING


@pytest.mark.parametrize("member", ScopeText.__struct_fields__)
def test_what_two_scopes_leave_of_each_member(member: str) -> None:
    """All that both name, and nothing that either denies."""
    one, other = (
        ScopeText(**{member: names}).compiled() for names in (("s/a", "s/b*"), ("s/bc", "s/d"))
    )
    expected = ("s/a", "s/b*", "s/bc", "s/d") if member == "deny_tools" else ("s/bc",)
    for both in (one.within(other), other.within(one)):
        assert getattr(both, member) == selection(expected)
        for kept in ScopeText.__struct_fields__:
            if kept != member:
                assert getattr(both, kept) == getattr(one, kept)
    assert one.within(one) is one
    assert one.within(UNNARROWED) == one == UNNARROWED.within(one)


@pytest.mark.parametrize(("count", "kept"), [(1, True), (100, False)])
def test_what_is_compiled_is_kept_unless_it_is_long(count: int, kept: bool) -> None:
    """What is kept outlives its key, and there is room for thousands."""
    texts = [
        ScopeText(tools=tuple(f"{server}/{n}{'x' * 100}*" for n in range(count))) for server in "st"
    ]
    one, other = (text.compiled() for text in texts)
    assert (texts[0].compiled() is one) is kept
    assert texts[0].compiled() == one
    assert (one.within(other) is one.within(other)) is kept
    assert one.within(other) == other.within(one)


def test_of_many_prefixes_those_that_count_are_found() -> None:
    outer = selection(["a*", "ab*", "abc*", "b*", "bb", "d*"])
    inner = selection(["a*", "ab", "abz*", "b", "c", "cb*", "d", "e*", "bb"])
    assert beyond(inner, outer) == ["c", "cb*", "e*"]
