"""Tool arguments that callers repeat in ``Mcp-Param-*`` headers: reading, sending and checking.

Spec: 2026-07-28 server/tools#x-mcp-header and basic/transports#request-headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Raw, Struct

from open_mcp_gateway.protocol.headers import decode_value, encode_value
from open_mcp_gateway.protocol.members import values_of
from open_mcp_gateway.protocol.surrogates import Lenient

PREFIX: Final = "Mcp-Param-"
ANNOTATION: Final = "x-mcp-header"

_PREFIX_LOWER: Final = PREFIX.lower().encode()
_TYPES: Final = frozenset({"string", "integer", "boolean"})
_SAFE_INTEGER: Final = 2**53 - 1
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_DECIMAL: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_OWS: Final = b" \t"

# Where a JSON Schema holds further schemas (2020-12 core, section 10 and 11). All other members
# hold data, in which the annotation's name means nothing.
_ONE_SCHEMA: Final = frozenset(
    {
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_LISTED_SCHEMAS: Final = frozenset({"allOf", "anyOf", "items", "oneOf", "prefixItems"})
_NAMED_SCHEMAS: Final = frozenset(
    {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
)

_members = Lenient(dict[str, Raw])
_any = Lenient(Any)
_text = msgspec.json.Decoder(str)


class Mirrored(Struct, frozen=True):
    """One argument that is to be repeated in a header."""

    path: tuple[str, ...]
    """The names of the properties that lead to it from the root of the arguments."""

    header: str
    """Without the prefix, as the server spells it."""

    type: str
    """``string``, ``integer`` or ``boolean``."""

    @property
    def name(self) -> str:
        return PREFIX + self.header


class Invalid(Struct, frozen=True):
    """The annotations break a rule: whoever calls over HTTP must pass the tool over."""

    reason: str


Fields: TypeAlias = tuple[Mirrored, ...]
NOTHING: Final[Fields] = ()


def mirrored_fields(input_schema: bytes | Raw) -> Fields | Invalid:
    """What ``input_schema``, the raw JSON of a tool's schema, wants repeated."""
    schema = bytes(input_schema)
    # A name can hide behind \u escapes; hardly any schema has either.
    if ANNOTATION.encode() not in schema and b"\\u" not in schema:
        return NOTHING
    try:
        root = _any.decode(schema)
    except (msgspec.DecodeError, RecursionError):
        return Invalid("its input schema cannot be read")
    found: dict[str, Mirrored] = {}
    for path, node in _schemas(root):
        if ANNOTATION not in node:
            continue
        field = _field(path, node)
        if isinstance(field, Invalid):
            return field
        if field.header.lower() in found:
            return Invalid(f"{ANNOTATION} {field.header!r} appears twice")
        found[field.header.lower()] = field
    return tuple(found.values())


_Path: TypeAlias = tuple[str, ...] | None


def _schemas(root: object) -> Iterator[tuple[_Path, dict[str, Any]]]:
    """Every schema in ``root`` with its path of ``properties``, None off such a path."""
    waiting: list[tuple[_Path, object]] = [((), root)]
    for path, node in waiting:  # grows on the way
        if not isinstance(node, dict):
            continue
        yield path, node
        for keyword, value in node.items():
            waiting.extend(_below(path, keyword, value))


def _below(path: _Path, keyword: str, value: object) -> Iterator[tuple[_Path, object]]:
    if keyword in _NAMED_SCHEMAS and isinstance(value, dict):
        for name, schema in value.items():
            on_path = keyword == "properties" and path is not None
            yield (*(path or ()), name) if on_path else None, schema
    elif keyword in _LISTED_SCHEMAS and isinstance(value, list):
        for schema in value:
            yield None, schema
    elif keyword in _ONE_SCHEMA:
        yield None, value


def _field(path: _Path, node: dict[str, Any]) -> Mirrored | Invalid:
    if not path:
        return Invalid(f"{ANNOTATION} stands where no chain of properties leads")
    where = ".".join(path)[:100]
    header, type_ = node[ANNOTATION], node.get("type")
    if not isinstance(header, str) or not _TOKEN.fullmatch(header):
        return Invalid(f"{ANNOTATION} of {where!r} is not a header name")
    if not isinstance(type_, str) or type_ not in _TYPES:
        return Invalid(f"{ANNOTATION} of {where!r} is not on a string, integer or boolean")
    return Mirrored(path, header, type_)


def headers_for(fields: Fields, arguments: Raw | None) -> bytes:
    """The header lines that a call with ``arguments`` carries."""
    lines = []
    for field in fields:
        try:
            value = _rendered(field, _value_at(arguments, field.path))
        except _Twice:
            continue  # whichever it named, the server could take the other
        if value is not None:
            lines.append(b"%b: %b\r\n" % (field.name.encode("ascii"), encode_value(value)))
    return b"".join(lines)


def check(
    fields: Fields, arguments: Raw | None, headers: Iterable[tuple[bytes, bytes]]
) -> str | None:
    """What of a received call's headers does not fit its arguments; None when all fit.

    ``headers`` have their names in lower case.
    """
    if not fields:
        return None
    sent: dict[bytes, bytes] = {}
    twice: set[bytes] = set()
    for name, value in headers:
        if name.startswith(_PREFIX_LOWER):
            if name in sent:
                twice.add(name)
            sent[name] = value.strip(_OWS)
    for field in fields:
        name = field.name.lower().encode("ascii")
        if name in twice:
            return f"{field.name} is there twice"
        try:
            raw = _value_at(arguments, field.path)
        except _Twice:
            return f"{field.name} has an argument that is there twice"
        problem = _mismatch(field, raw, sent.get(name))
        if problem is not None:
            return f"{field.name} {problem}"
    return None


def _mismatch(field: Mirrored, raw: bytes | None, header: bytes | None) -> str | None:
    expected = _rendered(field, raw)
    if header is None:
        return None if expected is None else "is required, because the argument is there"
    if raw is None:
        return "is there, but its argument is not"
    try:
        value = decode_value(header.decode("latin-1"))
    except ValueError as error:
        return f"is {error}"
    if expected is None or not _same(field, value, expected):
        return "does not match the argument"
    return None


def _same(field: Mirrored, value: str, expected: str) -> bool:
    if field.type == "integer" and _DECIMAL.fullmatch(value) and _DECIMAL.fullmatch(expected):
        return Decimal(value) == Decimal(expected)
    return value == expected


class _Twice(Exception):
    """Parsers differ on which of two members counts."""


def _value_at(arguments: Raw | None, path: tuple[str, ...]) -> bytes | None:
    """The raw JSON at ``path``; None where there is nothing, or null.

    Raises:
        _Twice: a member on the way is there more than once.
    """
    raw = arguments
    for name in path:
        if raw is None:
            return None
        try:
            found = values_of(raw, name)
        except msgspec.DecodeError:
            return None
        if len(found) > 1:
            raise _Twice
        raw = found[0] if found else None
    value = None if raw is None else bytes(raw).strip()
    return None if value == b"null" else value


def _rendered(field: Mirrored, raw: bytes | None) -> str | None:
    """The value as a header says it; None where it cannot be said."""
    if raw is None or raw[:1] in (b"{", b"["):
        return None
    if raw[:1] == b'"':
        try:
            return _text.decode(raw)
        except msgspec.DecodeError:
            return None
    text = raw.decode("ascii")
    return _integer(text) if field.type == "integer" else text


def _integer(text: str) -> str:
    """``42`` for each way to write 42; anything that is no safe integer as it was written."""
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent beyond all bounds
        return text
    safe = -_SAFE_INTEGER <= number <= _SAFE_INTEGER
    return str(int(number)) if safe and number == number.to_integral_value() else text
