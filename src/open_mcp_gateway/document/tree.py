"""A document as a tree whose nodes remember their place, before any type is known."""

from __future__ import annotations

import enum
import re
from typing import TypeAlias

from msgspec import Struct, field

from open_mcp_gateway.errors import Problem

MAX_DEPTH = 50
"""Deepest nesting; far more than any file needs, far less than any stack has."""

MAX_NODES = 200_000
"""Most nodes in one document, aliases counted as often as they are used."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.-]{1,80}")


class Kind(enum.Enum):
    """What a scalar is by its notation alone; the value is how people call it in messages."""

    TEXT = "text"
    INT = "a whole number"
    FLOAT = "a number"
    BOOL = "true or false"
    NULL = "empty"


class Node(Struct, eq=False, kw_only=True):
    """One place in a document."""

    file: str
    line: int
    """1 for the first line; 0 where there are no lines, as with a command-line option."""

    parent: Node | None = None
    key: str | int | None = None

    def __repr__(self) -> str:
        """The place alone: the value may be a secret."""
        return f"<{type(self).__name__} {self.where}>"

    @property
    def path(self) -> str:
        """E.g. ``servers[2].runtime.command``; empty for the top level."""
        parts: list[str] = []
        node: Node | None = self
        while node is not None and node.key is not None:
            parts.append(step(node.key))
            node = node.parent
        return "".join(reversed(parts)).removeprefix(".")

    @property
    def where(self) -> str:
        """E.g. ``catalog.yaml:12 servers[2].runtime.command``."""
        return place(self.file, self.line, self.path)


class Scalar(Node, eq=False, kw_only=True):
    """A single value, as written: nothing substituted yet."""

    text: str
    kind: Kind

    @property
    def called(self) -> str:
        return self.kind.value


class Sequence(Node, eq=False, kw_only=True):
    items: list[Tree] = field(default_factory=list)

    @property
    def called(self) -> str:
        return "a list"


class Mapping(Node, eq=False, kw_only=True):
    entries: dict[str, Tree] = field(default_factory=dict)
    key_lines: dict[str, int] = field(default_factory=dict)

    @property
    def called(self) -> str:
        return "a mapping"

    def key_where(self, key: str) -> str:
        """The place of the key itself, also where its value is unusable or shared."""
        return place(
            self.file, self.key_lines.get(key, self.line), (self.path + step(key)).removeprefix(".")
        )


Tree: TypeAlias = Scalar | Sequence | Mapping


class Broken(Exception):
    """The document cannot be read any further; carries the last problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def place(file: str, line: int, path: str = "") -> str:
    """File, line and path in the form every Problem uses."""
    start = f"{file}:{line}" if line else file
    return f"{start} {path}" if path else start


def step(key: str | int) -> str:
    """One step of a path: ``[2]``, ``.name``, or ``["odd name"]``."""
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if _PLAIN_KEY.fullmatch(key) else f'["{printable(key)}"]'


def printable(text: str, limit: int = 80) -> str:
    """``text`` fit for one line of a message: control characters escaped, long ones cut."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut
    )


def duplicate(mapping: Mapping, key: str, line: int) -> Problem:
    """A key that the mapping has already."""
    first = mapping.key_lines[key]
    path = (mapping.path + step(key)).removeprefix(".")
    return Problem(
        place(mapping.file, line, path),
        f"duplicate key '{printable(key)}', first on line {first}; remove one of them",
    )
