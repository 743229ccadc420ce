"""Trees to structs: every type, every mistake at once, and what may be shown."""

# ruff: noqa: E501  a row of a table is one line

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct, field, inspect

from open_mcp_gateway.document.convert import Reader, suggest, suggestion
from open_mcp_gateway.document.source import parse_document
from open_mcp_gateway.document.texts import Pair
from open_mcp_gateway.errors import Problem


class Colour(enum.StrEnum):
    RED = "red"
    OFF = "off"


class Inner(Struct, frozen=True, kw_only=True):
    name: str
    size: int = 1


class Outer(Struct, frozen=True, kw_only=True):
    text: str
    count: Annotated[int, Meta(ge=1, le=10)] = 3
    least: Annotated[int, Meta(ge=5)] = 5
    most: Annotated[int, Meta(le=5)] = 5
    ratio: float = 1.0
    flag: bool = False
    colour: Colour = Colour.RED
    maybe: str | None = None
    many: tuple[str, ...] = ()
    table: dict[str, dict[str, str]] = field(default_factory=dict)
    inner: Inner | None = None


ENVIRON = {"N": "7", "YES": "Yes", "T": "hidden", "COLOUR": "off", "F": "2.5", "BAD": "hidden"}


def read(text: str) -> tuple[Pair | None, list[str]]:
    root, problems = parse_document(text.encode(), "f")
    pair = Reader(ENVIRON, problems).struct(root, Outer)
    return pair, [str(problem) for problem in problems]


def good(text: str) -> tuple[Any, Any]:
    pair, problems = read(text)
    assert problems == []
    assert pair is not None
    return pair.real, pair.shown


def test_defaults_and_sameness() -> None:
    real, shown = good("text: x")
    assert real == Outer(text="x")
    assert shown is real


def test_every_type() -> None:
    real, shown = good("""
text: 'x'
count: 10
ratio: 2
flag: yes
colour: off
maybe: ~
many: [a, "1"]
table: {a: {b: c}}
inner: {name: n, size: 2}
""")
    assert real == Outer(
        text="x", count=10, ratio=2.0, flag=True, colour=Colour.OFF, many=("a", "1"),
        table={"a": {"b": "c"}}, inner=Inner(name="n", size=2),
    )  # fmt: skip
    assert shown is real


def test_a_collection_may_be_written_as_nothing() -> None:
    assert good("text: x\nmany:\ntable:\n")[0] == Outer(text="x")


def test_substitution_converts_and_hides() -> None:
    real, shown = good("""
text: a-${T}
count: ${N}
ratio: "${F}"
flag: ${YES}
colour: ${COLOUR}
many: [a, "${T}"]
inner: {name: "${T}", size: "${N}"}
""")
    assert real == Outer(
        text="a-hidden", count=7, ratio=2.5, flag=True, colour=Colour.OFF, many=("a", "hidden"),
        inner=Inner(name="hidden", size=7),
    )  # fmt: skip
    assert shown == Outer(text="a-***", many=("a", "***"), inner=Inner(name="***"))


def test_a_default_converts_too() -> None:
    assert good("text: x\ncount: ${NONE:-9}")[0].count == 9


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("text: 5", "f:1 text: is a whole number, not text; quote it"),
        ("text: yes", "f:1 text: is true or false, not text; quote it"),
        ("text: 1.5", "f:1 text: is a number, not text; quote it"),
        ("text:", "f:1 text: is empty; write a value or remove the line"),
        ("text: [a]", "f:1 text: must be text, but is a list; write text"),
        ('text: "a\\0"', "f:1 text: holds a NUL character; remove it"),
        ("text: ${NONE}", "f:1 text: environment variable NONE is not set; set it"),
        ("count: 0", "f:1 count: must be from 1 to 10"),
        ("count: 11", "f:1 count: must be from 1 to 10"),
        ("least: 4", "f:1 least: must be at least 5"),
        ("most: 6", "f:1 most: must be at most 5"),
        ("count: ${NONE:-0}", "f:1 count: must be from 1 to 10 (the value comes from NONE)"),
        ("count: ${BAD}", "f:1 count: is not a whole number in plain decimal; write e.g. 30 (the value comes from BAD)"),
        ("count: ${F}", "f:1 count: is not a whole number in plain decimal; write e.g. 30 (the value comes from F)"),
        ("count: 010", "f:1 count: is not a whole number in plain decimal; write e.g. 30"),
        ("count: 1_0", "f:1 count: is not a whole number in plain decimal; write e.g. 30"),
        ("count: 5.0", "f:1 count: must be a whole number, but is a number; write a whole number"),
        ("count: '5'", "f:1 count: must be a whole number, but is text; write a whole number"),
        ("count: true", "f:1 count: must be a whole number, but is true or false; write a whole number"),
        ("count:", "f:1 count: must be a whole number, but is empty; write a value or remove the line"),
        ("count: [5]", "f:1 count: must be a whole number, but is a list; write a whole number"),
        ("count: ${NONE}", "f:1 count: environment variable NONE is not set; set it"),
        ("ratio: .nan", "f:1 ratio: is not a number in plain decimal; write e.g. 30"),
        ("ratio: ${BAD}", "f:1 ratio: is not a number in plain decimal; write e.g. 30 (the value comes from BAD)"),
        ("ratio: x", "f:1 ratio: must be a number, but is text; write a number"),
        ("flag: 1", "f:1 flag: must be true or false, but is a whole number; write true or false"),
        ("flag: 'true'", "f:1 flag: must be true or false, but is text; write true or false"),
        ("flag: ${BAD}", "f:1 flag: must be true or false (the value comes from BAD)"),
        ("flag: !!bool x", "f:1 flag: must be true or false"),
        ("colour: rad", "f:1 colour: must be one of red, off; did you mean 'red'?"),
        ("colour: ${BAD}", "f:1 colour: must be one of red, off (the value comes from BAD)"),
        ("colour: on", "f:1 colour: is true or false, not text; quote it"),
        ("colour: [red]", "f:1 colour: must be text, but is a list; write text"),
        ("maybe: 5", "f:1 maybe: is a whole number, not text; quote it"),
        ("many: a", "f:1 many: must be a list, but is text; write a list"),
        ("many: [a, 1]", "f:1 many[1]: is a whole number, not text; quote it"),
        ("many: {a: b}", "f:1 many: must be a list, but is a mapping; write a list"),
        ("table: [a]", "f:1 table: must be a mapping, but is a list; write a mapping"),
        ("table: {a: {b: 1}}", "f:1 table.a.b: is a whole number, not text; quote it"),
        ("table: {a: 1}", "f:1 table.a: must be a mapping, but is a whole number; write a mapping"),
        ("inner: x", "f:1 inner: must be a mapping, but is text; write a mapping"),
        ("inner: {}", "f:1 inner: missing required field 'name'; add it"),
        ("txet: x", "f:1 txet: unknown field 'txet'; did you mean 'text'?"),
        ("zzz: x", "f:1 zzz: unknown field 'zzz'; known are text, count, least, most, ratio, flag, colour, maybe, many, table, inner"),
    ],
)  # fmt: skip
def test_each_mistake(line: str, message: str) -> None:
    text = line if line.startswith("text") else f"{line}\ntext: x"
    assert read(text)[1] == [message]


def test_all_mistakes_at_once() -> None:
    _, problems = read("count: x\nflag: 3\nmany: [1, 2]\ninner: {size: x}\nother: 1\n")
    assert [problem.split(":", 2)[1].split(" ", 1)[-1] for problem in problems] == [
        "other", "1", "count", "flag", "many[0]", "many[1]", "inner", "inner.size",
    ]  # fmt: skip


def test_no_message_holds_a_value_from_the_environment() -> None:
    _, problems = read("text: [a]\ncount: ${T}\nflag: ${T}\ncolour: ${T}\nratio: ${T}")
    assert len(problems) == 5
    assert "hidden" not in "\n".join(problems)


def test_parts_are_gathered() -> None:
    root, problems = parse_document(b"text: a-${T}\ncount: ${N}", "f")
    reader = Reader(ENVIRON, problems)
    reader.struct(root, Outer)
    assert reader.parts == ["hidden", "7"]


def test_a_top_level_of_the_wrong_kind() -> None:
    root, problems = parse_document(b"a: [1]", "f")
    assert Reader({}, problems).struct(root.entries["a"], Outer) is None
    assert problems == [Problem("f:1 a", "must be a mapping, but is a list; write a mapping")]


def test_a_type_the_reader_does_not_know_is_a_defect_of_ours() -> None:
    root, problems = parse_document(b"a: 1", "f")
    with pytest.raises(TypeError):
        Reader({}, problems).value(root.entries["a"], inspect.DateTimeType())


@pytest.mark.parametrize(
    ("text", "path", "shown"),
    [
        ("x/y", "/base/x/y", "/base/x/y"),
        ("/x", "/x", "/x"),
        ("./x", "/base/x", "/base/x"),
        ("~/x", "/home/me/x", "/home/me/x"),
        ("'~'", "/home/me", "/home/me"),
        ("~root", str(Path("~root").expanduser()), str(Path("~root").expanduser())),
        ("${T}/x", "/base/hidden/x", "***/x"),
    ],
)
def test_paths(text: str, path: str, shown: str) -> None:
    root, problems = parse_document(f"a: {text}".encode(), "f")
    pair = Reader(ENVIRON | {"HOME": "/home/me"}, problems).path(root.entries["a"], Path("/base"))
    assert pair == Pair(path, shown)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("~/x", "'~' leads to no home folder; write the whole path"),
        ("~nobody-of-that-name/x", "'~' leads to no home folder; write the whole path"),
        ("' '", "is an empty path; write the whole path"),
        ("${E}", "is an empty path; write the whole path (the value comes from E)"),
        ("5", "is a whole number, not text; quote it"),
    ],
)
def test_paths_that_are_none(text: str, message: str) -> None:
    root, problems = parse_document(f"a: {text}".encode(), "f")
    assert Reader({"E": ""}, problems).path(root.entries["a"], Path("/base")) is None
    assert [problem.message for problem in problems] == [message]


def test_suggestions() -> None:
    assert suggestion("INFO", ["info", "warn"]) == "; did you mean 'info'?"
    assert suggestion("zzz", ["info"]) == ""
    assert suggest("zzz", ["a", "b"]) == "known are a, b"
    assert repr(Pair("hidden", "***")) == "<Pair '***'>"
