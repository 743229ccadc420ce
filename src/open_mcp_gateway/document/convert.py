"""A tree to msgspec structs, going on after each mistake so that all of them are found.

``msgspec.convert`` stops at the first mistake and knows no lines; only its types are used.
Every value comes twice: as it is, and as it may be shown.
"""

from __future__ import annotations

import difflib
import enum
import functools
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from msgspec import Struct, inspect

from open_mcp_gateway.document.substitute import Text
from open_mcp_gateway.document.texts import Pair, Texts
from open_mcp_gateway.document.tree import Kind, Mapping, Scalar, Sequence, Tree, printable
from open_mcp_gateway.errors import Problem

_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})")
_TRUE = {"true", "yes", "on"}
_FALSE = {"false", "no", "off"}


class _Hidden(enum.Enum):
    """Stands in ``Pair.shown`` for a substituted value that is not text: the default is shown."""

    HIDDEN = enum.auto()


HIDDEN = _Hidden.HIDDEN

Special: TypeAlias = Callable[[Tree | None, Mapping], "Pair | None"]
"""Reads one field in its own way; gets None when the field is absent, and the mapping around it."""


class Reader(Texts):
    """Reads trees into structs."""

    def struct(
        self, node: Tree, wanted: type[Struct], special: dict[str, Special] | None = None
    ) -> Pair | None:
        """An instance of ``wanted``; ``special`` reads the fields it names in its own way."""
        if not isinstance(node, Mapping):
            self.wrong(node, "a mapping")
            return None
        fields = _fields(wanted)
        special = special or {}
        self.unknown(node, [*fields, *special])
        real: dict[str, Any] = {}
        shown: dict[str, Any] = {}
        whole = True
        for name, field in fields.items():
            read = special.get(name)
            child = node.entries.get(name)
            if read is not None:
                pair = read(child, node)
            elif child is not None:
                pair = self._field(child, field)
            elif field.required:
                pair = self.missing(node, name)
            else:
                continue
            if pair is None:
                whole = False
                continue
            real[name] = pair.real
            if pair.shown is not HIDDEN:
                shown[name] = pair.shown
            elif field.required:
                shown[name] = 0
        if not whole:
            return None
        made = wanted(**real)
        return Pair(made, made if real == shown else wanted(**shown))

    def unknown(self, node: Mapping, known: Iterable[str]) -> None:
        """A problem for every key that is not known."""
        names = list(dict.fromkeys(known))
        for key in node.key_lines:
            if key not in names:
                message = f"unknown field '{printable(key)}'; {suggest(key, names)}"
                self.problems.append(Problem(node.key_where(key), message))

    def _field(self, node: Tree, field: inspect.Field) -> Pair | None:
        """A field's value; an empty collection may be written as nothing at all."""
        nothing = is_null(node)
        collection = isinstance(field.type, inspect.VarTupleType | inspect.DictType)
        if nothing and collection and not field.required:
            empty: Any = () if isinstance(field.type, inspect.VarTupleType) else {}
            return Pair(empty, empty)
        return self.value(node, field.type)

    def value(self, node: Tree, wanted: inspect.Type) -> Pair | None:
        match wanted:
            case inspect.StrType():
                found = self.text(node)
                return Pair(found.real, found.shown) if found else None
            case inspect.IntType() | inspect.FloatType():
                return self._number(node, wanted)
            case inspect.BoolType():
                return self._bool(node)
            case inspect.EnumType(cls=cls):
                return self._enum(node, cls)
            case inspect.VarTupleType(item_type=item_type):
                return self._tuple(node, item_type)
            case inspect.DictType(value_type=value_type):
                return self._dict(node, value_type)
            case inspect.StructType(cls=cls):
                return self.struct(node, cls)
            case inspect.UnionType():
                return self._optional(node, wanted)
            case _:
                raise TypeError(wanted)

    def missing(self, node: Mapping, name: str) -> Pair | None:
        """Reports a required field that is not there."""
        self.problem(node, f"missing required field '{name}'; add it")
        return None

    def _optional(self, node: Tree, wanted: inspect.UnionType) -> Pair | None:
        if is_null(node):
            return Pair(None, None)
        (inner,) = (one for one in wanted.types if not isinstance(one, inspect.NoneType))
        return self.value(node, inner)

    def _literal(self, node: Tree, kinds: set[Kind], wanted: str) -> Text | None:
        """A scalar of one of ``kinds``, or a text that was substituted and so may stand for it."""
        if not isinstance(node, Scalar):
            self.wrong(node, wanted)
            return None
        if node.kind in kinds:
            return Text(node.text, node.text)
        if node.kind is not Kind.TEXT:
            self.wrong(node, wanted)
            return None
        before = len(self.problems)
        found = self.substituted(node)
        if found is not None and not found.substituted:
            self.wrong(node, wanted)
            return None
        return found if len(self.problems) == before else None

    def _number(self, node: Tree, wanted: inspect.IntType | inspect.FloatType) -> Pair | None:
        whole = isinstance(wanted, inspect.IntType)
        called = Kind.INT.value if whole else Kind.FLOAT.value
        kinds = {Kind.INT} if whole else {Kind.INT, Kind.FLOAT}
        found = self._literal(node, kinds, called)
        if found is None:
            return None
        number = _parsed(found.real.strip(), whole)
        if number is None:
            self.refuse(node, found, f"is not {called} in plain decimal; write e.g. 30")
            return None
        low, high = wanted.ge, wanted.le
        if (low is not None and number < low) or (high is not None and number > high):
            self.refuse(node, found, f"must be {_range(low, high)}")
            return None
        return Pair(number, HIDDEN if found.substituted else number)

    def _bool(self, node: Tree) -> Pair | None:
        found = self._literal(node, {Kind.BOOL}, Kind.BOOL.value)
        if found is None:
            return None
        word = found.real.strip().lower()
        if word not in _TRUE | _FALSE:
            self.refuse(node, found, "must be true or false")
            return None
        answer = word in _TRUE
        return Pair(answer, HIDDEN if found.substituted else answer)

    def _enum(self, node: Tree, cls: type[enum.Enum]) -> Pair | None:
        names = [str(member.value) for member in cls]
        # A plain ``off`` is a boolean to YAML, and a word here.
        if isinstance(node, Scalar) and node.kind is Kind.BOOL and node.text in names:
            return Pair(cls(node.text), cls(node.text))
        found = self.text(node)
        if found is None:
            return None
        if found.real in names:
            return Pair(cls(found.real), HIDDEN if found.substituted else cls(found.real))
        mend = "" if found.substituted else suggestion(found.real, names)
        self.refuse(node, found, f"must be one of {', '.join(names)}{mend}")
        return None

    def _tuple(self, node: Tree, item_type: inspect.Type) -> Pair | None:
        if not isinstance(node, Sequence):
            self.wrong(node, "a list")
            return None
        pairs = [self.value(item, item_type) for item in node.items]
        good = [pair for pair in pairs if pair is not None]
        if len(good) < len(pairs):
            return None
        return Pair(tuple(pair.real for pair in good), tuple(pair.shown for pair in good))

    def _dict(self, node: Tree, value_type: inspect.Type) -> Pair | None:
        if not isinstance(node, Mapping):
            self.wrong(node, "a mapping")
            return None
        real: dict[str, Any] = {}
        shown: dict[str, Any] = {}
        for key, child in node.entries.items():
            pair = self.value(child, value_type)
            if pair is not None:
                real[key], shown[key] = pair.real, pair.shown
        return Pair(real, shown) if len(real) == len(node.entries) else None


def is_null(node: Tree | None) -> bool:
    """Written as nothing: ``null``, ``~`` or empty. An absent node is not."""
    return isinstance(node, Scalar) and node.kind is Kind.NULL


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` when something known is close to ``word``, else nothing."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def suggest(word: str, known: list[str]) -> str:
    """What to write instead of ``word``."""
    return suggestion(word, known).removeprefix("; ") or f"known are {', '.join(known)}"


@functools.cache
def _fields(wanted: type[Struct]) -> dict[str, inspect.Field]:
    info = inspect.type_info(wanted)
    assert isinstance(info, inspect.StructType)  # noqa: S101  by the signature
    return {field.encode_name: field for field in info.fields}


def _parsed(text: str, whole: bool) -> int | float | None:
    if whole:
        return int(text) if _DECIMAL.fullmatch(text) else None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"from {low} to {high}"
