"""YAML text to a tree, from the parser's events.

Events instead of ``yaml.compose``: composing recurses in C and a few kilobytes of ``[[[[`` end the
process with a segmentation fault. The parser that makes the events does not recurse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from msgspec import Struct, field

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
    printable,
)
from open_mcp_gateway.errors import Problem

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = re.compile(
    r"(?:true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF)"
)
_INT = re.compile(r"[-+]?(?:0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*)")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_TAGGED = {
    "!": Kind.TEXT,
    "tag:yaml.org,2002:str": Kind.TEXT,
    "tag:yaml.org,2002:int": Kind.INT,
    "tag:yaml.org,2002:float": Kind.FLOAT,
    "tag:yaml.org,2002:bool": Kind.BOOL,
    "tag:yaml.org,2002:null": Kind.NULL,
}
_SEQUENCE_TAGS = {None, "!", "tag:yaml.org,2002:seq"}
_MAPPING_TAGS = {None, "!", "tag:yaml.org,2002:map"}
_MERGE = "<<"


class _Open(Struct):
    """A collection whose end has not come yet."""

    node: Sequence | Mapping
    anchor: str | None
    key: str | None = None
    """In a mapping, the key whose value comes next."""

    repeated: bool = False
    """That key has a value already."""

    merges: list[Tree] = field(default_factory=list)
    weight: int = 1


class _Builder:
    """Takes the events of one document in turn and grows the tree."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self._file = file
        self._problems = problems
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Tree, int]] = {}
        self._documents = 0
        self.root: Tree | None = None

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._open(event)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._close()
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise self._broken(
                        event, "a second document starts here; keep one document in the file"
                    )
            case _:
                pass

    def _broken(self, event: yaml.Event, message: str) -> Broken:
        return Broken(Problem(place(self._file, _line(event)), message))

    def _spot(self, event: yaml.Event) -> dict[str, Any]:
        """Where a node that starts with ``event`` belongs."""
        spot: dict[str, Any] = {"file": self._file, "line": _line(event)}
        if self._stack:
            top = self._stack[-1]
            spot["parent"] = top.node
            spot["key"] = top.key if isinstance(top.node, Mapping) else len(top.node.items)
        return spot

    def _awaits_key(self) -> bool:
        return (
            bool(self._stack)
            and isinstance(self._stack[-1].node, Mapping)
            and self._stack[-1].key is None
        )

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        if self._awaits_key():
            self._key(event)
            return
        kind = _TAGGED.get(event.tag) if event.tag else _kind(event)
        if kind is Kind.NULL and event.tag and event.value not in _NULL:
            kind = None  # text that a tag would make disappear
        node = Scalar(**self._spot(event), text=event.value, kind=kind or Kind.TEXT)
        if kind is None:
            self._problems.append(Problem(node.where, _unknown_tag(event.tag)))
        self._place(node, 1)
        if event.anchor:
            self._anchors[event.anchor] = (node, 1)

    def _key(self, event: yaml.ScalarEvent) -> None:
        top = self._stack[-1]
        mapping = top.node
        assert isinstance(mapping, Mapping)  # noqa: S101  _awaits_key said so
        key = event.value
        top.key = key
        top.repeated = key in mapping.key_lines
        if top.repeated:
            self._problems.append(duplicate(mapping, key, _line(event)))
        else:
            mapping.key_lines[key] = _line(event)
        if event.anchor or event.tag:
            raise self._broken(event, "anchors and tags on keys are not supported; remove it")

    def _open(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent) -> None:
        if self._awaits_key():
            raise self._broken(event, "a key must be plain text; a list or mapping cannot be one")
        if len(self._stack) >= MAX_DEPTH:
            raise self._broken(event, f"nested too deeply; at most {MAX_DEPTH} levels")
        spot = self._spot(event)
        sequence = isinstance(event, yaml.SequenceStartEvent)
        node = Sequence(**spot) if sequence else Mapping(**spot)
        if event.tag not in (_SEQUENCE_TAGS if sequence else _MAPPING_TAGS):
            self._problems.append(Problem(node.where, _unknown_tag(event.tag)))
        self._stack.append(_Open(node, event.anchor))

    def _close(self) -> None:
        done = self._stack.pop()
        if isinstance(done.node, Mapping):
            self._merge(done.node, done.merges)
        # Registered only now, so that a collection cannot contain itself.
        if done.anchor:
            self._anchors[done.anchor] = (done.node, done.weight)
        self._place(done.node, done.weight)

    def _alias(self, event: yaml.AliasEvent) -> None:
        if self._awaits_key():
            raise self._broken(event, "an alias cannot be a key; write the key out")
        anchor = event.anchor or ""
        found = self._anchors.get(anchor)
        if found is None:
            name = printable(anchor)
            raise self._broken(event, f"'*{name}' has no '&{name}' that ends before it; add one")
        self._place(*found)

    def _place(self, node: Tree, weight: int) -> None:
        if not self._stack:
            self.root = node
            return
        top = self._stack[-1]
        top.weight += weight
        if top.weight > MAX_NODES:
            raise Broken(
                Problem(
                    node.where, f"too much in one file; at most {MAX_NODES} values with aliases"
                )
            )
        if isinstance(top.node, Sequence):
            top.node.items.append(node)
            return
        assert top.key is not None  # noqa: S101  a value comes after its key
        if top.key == _MERGE:
            top.merges.extend(node.items if isinstance(node, Sequence) else [node])
        elif not top.repeated:
            top.node.entries[top.key] = node
        top.key = None

    def _merge(self, mapping: Mapping, merges: list[Tree]) -> None:
        """``<<``: what the mapping has itself goes first, then the earlier of the merged ones."""
        mapping.key_lines.pop(_MERGE, None)
        for other in merges:
            if not isinstance(other, Mapping):
                self._problems.append(
                    Problem(other.where, f"'<<' takes mappings only, and this is {other.called}")
                )
                continue
            for key, node in other.entries.items():
                if key not in mapping.entries:
                    mapping.entries[key] = node
                    mapping.key_lines[key] = other.key_lines[key]


def parse_yaml(text: str, file: str, problems: list[Problem]) -> Tree | None:
    """The tree of ``text``, None when it holds nothing. Mistakes that allow going on are appended.

    Raises:
        Broken: at the first mistake that does not.
    """
    builder = _Builder(file, problems)
    try:
        for event in _events(text):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        message = f"not valid YAML: {_said(error)}{_flow_hint(text, line)}"
        raise Broken(Problem(place(file, line), message)) from error
    except yaml.YAMLError as error:
        raise Broken(
            Problem(file, "not valid YAML: holds control characters; remove them")
        ) from error
    return builder.root


def _events(text: str) -> Iterator[yaml.Event]:
    return iter(yaml.parse(text, Loader=yaml.CSafeLoader))


def _line(event: yaml.Event) -> int:
    mark = event.start_mark
    return mark.line + 1 if mark else 0


def _said(error: yaml.MarkedYAMLError) -> str:
    """The parser's own words, which never quote the document."""
    mark = error.problem_mark or error.context_mark
    column = f" (column {mark.column + 1})" if mark else ""
    words = ", ".join(filter(None, (error.context, error.problem)))
    return f"{words}{column}; check indentation, quotes and brackets"


def _flow_hint(text: str, line: int) -> str:
    """For the one mistake that substitution invites."""
    written = text.split("\n")[line - 1 : line]
    if any("${" in one and ("{" in one.replace("${", "") or "[" in one) for one in written):
        return "; a ${…} between brackets needs quotes"
    return ""


def _kind(event: yaml.ScalarEvent) -> Kind:
    """YAML 1.1 words and YAML 1.2 numbers, so that neither reading surprises; ``1:30`` is text."""
    if not event.implicit[0]:
        return Kind.TEXT
    value = event.value
    if value in _NULL:
        return Kind.NULL
    if value[0] in "0123456789+-.":
        if _INT.fullmatch(value):
            return Kind.INT
        return Kind.FLOAT if _FLOAT.fullmatch(value) else Kind.TEXT
    return Kind.BOOL if _BOOL.fullmatch(value) else Kind.TEXT


def _unknown_tag(tag: str | None) -> str:
    return f"unknown tag '{printable(tag or '')}'; remove it"
