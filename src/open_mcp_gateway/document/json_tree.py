"""JSON text to a tree: ``json.loads`` forgets lines, and of two equal keys it takes the last."""

from __future__ import annotations

import bisect
import re
from json import JSONDecodeError, JSONDecoder
from typing import Any

from open_mcp_gateway.document.tree import (
    MAX_DEPTH,
    MAX_NODES,
    Broken,
    Kind,
    Mapping,
    Scalar,
    Sequence,
    Tree,
    duplicate,
    place,
)
from open_mcp_gateway.errors import Problem

_STRINGS = JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORD = re.compile(r"true|false|null")
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Parser:
    """RFC 8259, by recursive descent; the depth is bounded."""

    def __init__(self, text: str, file: str, problems: list[Problem]) -> None:
        self._text = text
        self._file = file
        self._problems = problems
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._nodes = 0
        self._at = 0

    def document(self) -> Tree:
        tree = self._value({"parent": None, "key": None}, 0)
        if self._peek():
            raise self._broken("something follows after the end of the document; remove it")
        return tree

    def _line(self) -> int:
        return bisect.bisect_left(self._newlines, self._at) + 1

    def _broken(self, message: str) -> Broken:
        return Broken(Problem(place(self._file, self._line()), f"not valid JSON: {message}"))

    def _peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._text[self._at : self._at + 1]

    def _expect(self, char: str) -> None:
        if self._peek() != char:
            raise self._broken(f"'{char}' is missing here")
        self._at += 1

    def _value(self, spot: dict[str, Any], depth: int) -> Tree:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._broken(f"too much in one file; at most {MAX_NODES} values")
        char = self._peek()
        spot |= {"file": self._file, "line": self._line()}
        if char == "{":
            return self._object(Mapping(**spot), depth + 1)
        if char == "[":
            return self._array(Sequence(**spot), depth + 1)
        if char == '"':
            return Scalar(**spot, text=self._string(), kind=Kind.TEXT)
        return self._plain(spot)

    def _plain(self, spot: dict[str, Any]) -> Scalar:
        if word := _WORD.match(self._text, self._at):
            kind = Kind.NULL if word[0] == "null" else Kind.BOOL
            self._at = word.end()
            return Scalar(**spot, text=word[0], kind=kind)
        if number := _NUMBER.match(self._text, self._at):
            kind = Kind.FLOAT if number[1] or number[2] else Kind.INT
            self._at = number.end()
            return Scalar(**spot, text=number[0], kind=kind)
        raise self._broken("a value is missing here; text needs double quotes")

    def _string(self) -> str:
        try:
            value, end = _STRINGS.raw_decode(self._text, self._at)
        except JSONDecodeError as error:
            raise self._broken(f"{error.msg}; check the double quotes") from error
        if _SURROGATE.search(value):
            raise self._broken("a \\u escape is half of a character; write both halves")
        self._at = end
        return str(value)

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self._broken(f"nested too deeply; at most {MAX_DEPTH} levels")
        self._at += 1

    def _array(self, sequence: Sequence, depth: int) -> Sequence:
        self._check_depth(depth)
        if self._peek() == "]":
            self._at += 1
            return sequence
        while True:
            spot = {"parent": sequence, "key": len(sequence.items)}
            sequence.items.append(self._value(spot, depth))
            if self._peek() != ",":
                self._expect("]")
                return sequence
            self._at += 1

    def _object(self, mapping: Mapping, depth: int) -> Mapping:
        self._check_depth(depth)
        if self._peek() == "}":
            self._at += 1
            return mapping
        while True:
            self._member(mapping, depth)
            if self._peek() != ",":
                self._expect("}")
                return mapping
            self._at += 1

    def _member(self, mapping: Mapping, depth: int) -> None:
        if self._peek() != '"':
            raise self._broken("a key in double quotes is missing here")
        line = self._line()
        key = self._string()
        self._expect(":")
        value = self._value({"parent": mapping, "key": key}, depth)
        if key in mapping.key_lines:
            self._problems.append(duplicate(mapping, key, line))
        else:
            mapping.key_lines[key] = line
            mapping.entries[key] = value


def parse_json(text: str, file: str, problems: list[Problem]) -> Tree:
    """The tree of ``text``. Mistakes that allow going on are appended to ``problems``.

    Raises:
        Broken: at the first mistake that does not.
    """
    return _Parser(text, file, problems).document()
