"""Bytes to a tree: notation, places, and everything that is refused before any type is known."""

# ruff: noqa: E501  a row of a table is one line

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from open_mcp_gateway.document.paths import unreadable
from open_mcp_gateway.document.source import MAX_FILE_BYTES, parse_document, read_document
from open_mcp_gateway.document.tree import MAX_DEPTH, MAX_NODES, Kind, Mapping, Scalar, Sequence
from open_mcp_gateway.errors import InvalidConfig
from tests.unprivileged import unprivileged


def refusal(data: bytes | str) -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        parse_document(data.encode() if isinstance(data, str) else data, "f")
    return [str(problem) for problem in caught.value.problems]


def tree(text: str) -> Mapping:
    root, problems = parse_document(text.encode(), "f")
    assert problems == []
    return root


def scalar(text: str, key: str = "a") -> Scalar:
    node = tree(text).entries[key]
    assert isinstance(node, Scalar)
    return node


def test_places_in_yaml() -> None:
    root = tree("# head\nservers:\n- id: x\n  args: [a,\n   b]\nodd name: 1\n")
    servers = root.entries["servers"]
    assert isinstance(servers, Sequence)
    first = servers.items[0]
    assert isinstance(first, Mapping)
    args = first.entries["args"]
    assert isinstance(args, Sequence)
    assert args.items[1].where == "f:5 servers[0].args[1]"
    assert first.where == "f:3 servers[0]"
    assert root.where == "f:2"
    assert root.entries["odd name"].where == 'f:6 ["odd name"]'
    assert first.key_where("id") == "f:3 servers[0].id"


def test_a_tag_makes_no_text_disappear() -> None:
    [problem] = refusal_of_tag("api_key: !!null test-key-0123456789")
    assert "test-key" not in problem


def refusal_of_tag(text: str) -> list[str]:
    _, problems = parse_document(text.encode(), "f")
    return [str(problem) for problem in problems]


def test_places_in_json() -> None:
    root = tree('{\n "a": [\n  1,\n  {"b c": null}\n ],\n "d": {}, "e": []}')
    a = root.entries["a"]
    assert isinstance(a, Sequence)
    inner = a.items[1]
    assert isinstance(inner, Mapping)
    assert inner.entries["b c"].where == 'f:4 a[1]["b c"]'
    assert inner.key_where("b c") == 'f:4 a[1]["b c"]'
    assert [type(root.entries[key]) for key in "de"] == [Mapping, Sequence]


def test_a_repr_never_holds_the_value() -> None:
    node = scalar("a: test-key-hidden")
    assert "hidden" not in repr(node)
    assert "hidden" not in repr(tree("a: test-key-hidden"))


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("x", Kind.TEXT), ('"1"', Kind.TEXT), ("'true'", Kind.TEXT), ("|\n  12", Kind.TEXT),
        ("2026-01-01", Kind.TEXT), ("1:30", Kind.TEXT), ("1.2.3", Kind.TEXT), ("-x", Kind.TEXT),
        ("yesterday", Kind.TEXT), ("${X}", Kind.TEXT), ("! 12", Kind.TEXT), ("!!str 12", Kind.TEXT),
        ("12", Kind.INT), ("-12", Kind.INT), ("+1", Kind.INT), ("0x1F", Kind.INT),
        ("017", Kind.INT), ("0o17", Kind.INT), ("1_000", Kind.INT), ("0b11", Kind.INT),
        ("!!int '5'", Kind.INT),
        ("1.5", Kind.FLOAT), ("1e3", Kind.FLOAT), (".5", Kind.FLOAT), (".inf", Kind.FLOAT),
        ("-.INF", Kind.FLOAT), (".nan", Kind.FLOAT), ("!!float 1", Kind.FLOAT),
        ("true", Kind.BOOL), ("No", Kind.BOOL), ("ON", Kind.BOOL), ("!!bool x", Kind.BOOL),
        ("null", Kind.NULL), ("~", Kind.NULL), ("", Kind.NULL), ("!!null ~", Kind.NULL),
    ],
)  # fmt: skip
def test_kinds_in_yaml(written: str, kind: Kind) -> None:
    assert scalar(f"a: {written}\n").kind is kind


@pytest.mark.parametrize(
    ("written", "kind", "text"),
    [
        ('"x\\u00e9\\ud83d\\ude00\\/"', Kind.TEXT, "xé😀/"), ("12", Kind.INT, "12"),
        ("-0", Kind.INT, "-0"), ("1.0", Kind.FLOAT, "1.0"), ("1E+2", Kind.FLOAT, "1E+2"),
        ("true", Kind.BOOL, "true"), ("false", Kind.BOOL, "false"), ("null", Kind.NULL, "null"),
    ],
)  # fmt: skip
def test_kinds_in_json(written: str, kind: Kind, text: str) -> None:
    node = scalar('{"a":' + written + "}")
    assert (node.kind, node.text) == (kind, text)


def test_json_may_be_indented_with_tabs_and_start_with_a_bom() -> None:
    root, problems = parse_document(b'\xef\xbb\xbf{\r\n\t"a": "b"\r\n}\n', "f")
    assert list(root.entries) == ["a"]
    assert problems == []


def test_yaml_flow_that_is_not_json() -> None:
    assert scalar("{a: b}").text == "b"
    _, problems = parse_document(b"{a: b, a: c}", "f")
    assert [str(problem) for problem in problems] == [
        "f:1 a: duplicate key 'a', first on line 1; remove one of them"
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "f: is empty"),
        ("# only a comment\n", "f: is empty"),
        ("---\n...\n", "f:2: the top level must be a mapping, but is empty"),
        ("- a", "f:1: the top level must be a mapping, but is a list"),
        ("[1]", "f:1: the top level must be a mapping, but is a list"),
        ("just text", "f:1: the top level must be a mapping, but is text"),
        (b"a: \xff\nb", "f:1: is not UTF-8 text"),
        (b"a: 1\nb: \xe9\n", "f:2: is not UTF-8 text"),
        ("a: 1\n---\nb: 2\n", "f:2: a second document starts here"),
        ("a: [1\nb: 2\n", "f:2: not valid YAML: while parsing a flow sequence"),
        ("a:\n\t- b", "f:2: not valid YAML"),
        ('a: "x', "f:1: not valid YAML"),
        ("a: b: c", "f:1: not valid YAML"),
        ("a: \x01", "f: not valid YAML: holds control characters"),
        ("%YAML 3.0\n---\na: 1", "f:1: not valid YAML"),
        ("a: *x", "f:1: '*x' has no '&x' that ends before it"),
        ("a: &x [1, *x]", "f:1: '*x' has no '&x' that ends before it"),
        ("a: &x 1\n*x : 2", "f:2: an alias cannot be a key"),
        ("&x a: 1", "f:1: anchors and tags on keys are not supported"),
        ("!!str a: 1", "f:1: anchors and tags on keys are not supported"),
        ("? [a]\n: 1", "f:1: a key must be plain text"),
        ("? {a: 1}\n: 1", "f:1: a key must be plain text"),
        ("a: " + "[" * 60, f"f:1: nested too deeply; at most {MAX_DEPTH} levels"),
        ("a: " + "[" * 500_000, "f:1: nested too deeply"),
        ("- " * 200_000, "f:1: nested too deeply"),
        ('{"a":' * 200_000, "f:1: not valid JSON: nested too deeply"),
        ("[" * 200_000, "f:1: not valid JSON: nested too deeply"),
        ('{"a": 1,}x', "f:1: not valid JSON: a key in double quotes is missing here"),
        ('{"a": 1\n "b": 2}', "f:2: not valid JSON: '}' is missing here"),
        ('{"a" 1}', "f:1: not valid JSON: ':' is missing here"),
        ('{"a": [1 2}', "f:1: not valid JSON: ']' is missing here"),
        ('{"a":', "f:1: not valid JSON: a value is missing here"),
        ('{"a": "x', "f:1: not valid JSON: Unterminated string starting at"),
        ('{"a": "\\x"}', "f:1: not valid JSON: Invalid \\escape"),
        ('{"a": "\\ud800"}', "f:1: not valid JSON: a \\u escape is half of a character"),
        ('{"a": 1}\n{"b": 2}', "f:2: not valid JSON: something follows after the end"),
        ("{a: [}", "f:1: not valid YAML"),
    ],
)  # fmt: skip
def test_what_cannot_be_read(data: bytes | str, message: str) -> None:
    assert refusal(data)[-1].startswith(message)


def test_a_substitution_without_quotes_between_brackets() -> None:
    assert refusal("a: x\nb: {c: ${D}}")[-1].endswith("; a ${…} between brackets needs quotes")
    assert not refusal("a: ${B}\n\t- c")[-1].endswith("needs quotes")


def test_earlier_mistakes_are_told_with_the_last_one() -> None:
    problems = refusal("a: 1\na: 2\nb: [")
    assert problems[0] == "f:2 a: duplicate key 'a', first on line 1; remove one of them"
    assert "not valid YAML" in problems[1]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("a:\n  b: 1\n  b: 2\n", ["f:3 a.b: duplicate key 'b', first on line 2; remove one of them"]),
        ("a: {<<: 1}", ["f:1 a[\"<<\"]: '<<' takes mappings only, and this is a whole number"]),
        ("a: !!python/name:os.system x", ["f:1 a: unknown tag 'tag:yaml.org,2002:python/name:os.system'; remove it"]),
        ("a: !mine [1]", ["f:1 a: unknown tag '!mine'; remove it"]),
        ("a: !!set {x}", ["f:1 a: unknown tag 'tag:yaml.org,2002:set'; remove it"]),
        ('{"a": 1,\n"a": 2}', ["f:2 a: duplicate key 'a', first on line 1; remove one of them"]),
    ],
)  # fmt: skip
def test_mistakes_that_allow_going_on(text: str, messages: list[str]) -> None:
    _, problems = parse_document(text.encode(), "f")
    assert [str(problem) for problem in problems] == messages


def test_aliases_and_merges() -> None:
    root = tree("""
base: &base {x: 1, y: 2}
more: &more {y: 3, z: 4}
one: {<<: *base, y: 9}
two: {<<: [*base, *more], w: *base}
""")
    one, two = root.entries["one"], root.entries["two"]
    assert isinstance(one, Mapping)
    assert isinstance(two, Mapping)
    assert {key: node.text for key, node in one.entries.items() if isinstance(node, Scalar)} == {
        "y": "9",
        "x": "1",
    }
    assert sorted(two.entries) == ["w", "x", "y", "z"]
    y = two.entries["y"]
    assert isinstance(y, Scalar)
    assert y.text == "2"
    assert y.where == "f:2 base.y"
    assert two.key_where("y") == "f:2 two.y"


def test_an_alias_bomb_is_refused_quickly() -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 40)]
    assert refusal("\n".join(lines))[-1].endswith(
        f"too much in one file; at most {MAX_NODES} values with aliases"
    )


def test_too_many_json_values() -> None:
    assert "too much in one file" in refusal("[" + "1," * MAX_NODES + "1]")[-1]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    with huge.open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, message in [
        (tmp_path / "none", "does not exist; create it, or mend the path"),
        (tmp_path / "none" / "x", "does not exist"),
        (huge / "x", "cannot be read (Not a directory)"),
        (tmp_path, "is a folder; name the file in it"),
        (huge, f"is larger than {MAX_FILE_BYTES} bytes"),
        (loop, "cannot be read ("),
        (tmp_path / "nul\0", "cannot be read ("),
    ]:
        with pytest.raises(InvalidConfig) as caught:
            read_document(path)
        assert str(caught.value.problems[0]).startswith(f"{path}: {message}")


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("a: 1")
    path.chmod(0)
    unprivileged(check_that_it_is_not_read, tmp_path)


def check_that_it_is_not_read(folder: Path) -> None:
    with pytest.raises(InvalidConfig, match="Permission denied"):
        read_document(folder / "secret")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd"
    with socket.socket(socket.AF_UNIX) as listener:
        match kind:
            case "pipe":
                os.mkfifo(path)
            case "socket":
                listener.bind(str(path))
            case _:
                path = Path("/dev/zero")
        with pytest.raises(InvalidConfig, match="is a pipe, a device or a socket"):
            read_document(path)
        assert unreadable(path) == "cannot be read (not a regular file)"
