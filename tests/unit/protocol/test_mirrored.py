"""Arguments repeated in headers: which may be, how they are written, and what fits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from open_mcp_gateway.protocol.mirrored import (
    NOTHING,
    Fields,
    Invalid,
    Mirrored,
    check,
    headers_for,
    mirrored_fields,
)


def schema(**properties: Any) -> bytes:
    return json.dumps({"type": "object", "properties": properties}).encode()


def annotated(kind: object = "string", header: object = "Region") -> dict[str, object]:
    return {"type": kind, "x-mcp-header": header}


def fields_of(raw: bytes) -> Fields:
    fields = mirrored_fields(raw)
    assert not isinstance(fields, Invalid)
    return fields


# Which annotations are valid


def test_fields_at_any_depth_of_properties() -> None:
    raw = schema(
        region=annotated(),
        inner={"type": "object", "properties": {"deep": annotated("integer", "Deep-1")}},
        flag=annotated("boolean", "FLAG"),
    )
    assert set(fields_of(raw)) == {
        Mirrored(("region",), "Region", "string"),
        Mirrored(("inner", "deep"), "Deep-1", "integer"),
        Mirrored(("flag",), "FLAG", "boolean"),
    }


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b'{"type":"object"}',
        schema(a={"type": "string"}),
        schema(a={"type": "string", "description": "x-mcp-header is a word here"}),
        schema(a={"type": "string", "default": {"x-mcp-header": "Data"}}),
        schema(a={"enum": [{"x-mcp-header": "Data"}], "examples": [{"x-mcp-header": ""}]}),
        b'{"properties":{"\\u0061":{"type":"string"}}}',
        b"true",
    ],
)
def test_schemas_without_annotations(raw: bytes) -> None:
    assert mirrored_fields(raw) == NOTHING


def test_an_annotation_cannot_hide_behind_escapes() -> None:
    raw = b'{"properties":{"a":{"type":"string","x\\u002dmcp-header":"A"}}}'
    assert fields_of(raw) == (Mirrored(("a",), "A", "string"),)


@pytest.mark.parametrize(
    "header", ["", "My Region", "A:B", "R\u00e9gion", "A\t1", "a\r\nb", 1, None, []]
)
def test_what_is_no_header_name(header: object) -> None:
    assert isinstance(mirrored_fields(schema(a=annotated("string", header))), Invalid)


@pytest.mark.parametrize(
    "kind", ["number", "object", "array", "null", None, ["string"], ["string", "null"]]
)
def test_types_that_cannot_be_repeated(kind: object) -> None:
    assert isinstance(mirrored_fields(schema(a=annotated(kind))), Invalid)


@pytest.mark.parametrize("other", ["Region", "region", "REGION"])
def test_names_are_unique_in_any_case(other: str) -> None:
    raw = schema(a=annotated(), b={"properties": {"c": annotated("integer", other)}})
    assert isinstance(mirrored_fields(raw), Invalid)


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps({"properties": {"a": {"type": "array", "items": annotated()}}}).encode(),
        json.dumps({"properties": {"a": {"type": "array", "items": [annotated()]}}}).encode(),
        json.dumps({"properties": {"a": {"anyOf": [annotated()]}}}).encode(),
        json.dumps({"$defs": {"a": annotated()}}).encode(),
        json.dumps({"$defs": {"a": {"properties": {"b": annotated()}}}}).encode(),
        json.dumps({"if": {"properties": {"b": annotated()}}}).encode(),
        json.dumps({"additionalProperties": annotated()}).encode(),
        json.dumps({"patternProperties": {".": annotated()}}).encode(),
        json.dumps(annotated()).encode(),
    ],
)
def test_only_chains_of_properties_lead_to_a_field(raw: bytes) -> None:
    assert isinstance(mirrored_fields(raw), Invalid)


def test_a_schema_that_cannot_be_read() -> None:
    assert isinstance(mirrored_fields(b'{"x-mcp-header":'), Invalid)
    deep = b'{"x-mcp-header":' + b"[" * 100_000
    assert isinstance(mirrored_fields(deep), Invalid)


# What is sent

TEXT = fields_of(schema(a=annotated("string", "A")))
INTEGER = fields_of(schema(a=annotated("integer", "A")))
FLAG = fields_of(schema(a=annotated("boolean", "A")))


@pytest.mark.parametrize(
    ("fields", "value", "header"),
    [
        (TEXT, b'"eu west"', b"eu west"),
        (TEXT, b'""', b""),
        (TEXT, b'" eu"', b"=?base64?IGV1?="),
        (TEXT, b'"eu\\n"', b"=?base64?ZXUK?="),
        (TEXT, '"é"'.encode(), b"=?base64?w6k=?="),
        (TEXT, b'"\\u00e9"', b"=?base64?w6k=?="),
        (TEXT, b'"=?base64?IGV1?="', b"=?base64?PT9iYXNlNjQ/SUdWMT89?="),
        (INTEGER, b"42", b"42"),
        (INTEGER, b"-7", b"-7"),
        (INTEGER, b"42.0", b"42"),
        (INTEGER, b"4.2e1", b"42"),
        (INTEGER, b"9007199254740991", b"9007199254740991"),
        (INTEGER, b"9007199254740993", b"9007199254740993"),
        (INTEGER, b"1e999999999999999999999", b"1e999999999999999999999"),
        (FLAG, b"true", b"true"),
        (FLAG, b"false", b"false"),
    ],
)
def test_values_in_headers(fields: Fields, value: bytes, header: bytes) -> None:
    arguments = Raw(b'{"b":1,"a":%b}' % value)
    assert headers_for(fields, arguments) == b"Mcp-Param-A: %b\r\n" % header


@pytest.mark.parametrize(
    "arguments", [b"{}", b'{"a":null}', b'{"a":{}}', b'{"a":["x"]}', b"null", b"[]", b'"a"']
)
def test_what_is_left_out(arguments: bytes) -> None:
    assert headers_for(TEXT, Raw(arguments)) == b""
    assert headers_for(TEXT, None) == b""


def test_values_further_in() -> None:
    raw = schema(o={"properties": {"a": annotated("string", "A")}})
    assert headers_for(fields_of(raw), Raw(b'{"o":{"a":"x"}}')) == b"Mcp-Param-A: x\r\n"
    assert headers_for(fields_of(raw), Raw(b'{"o":"x","a":"y"}')) == b""


# What is taken


@pytest.mark.parametrize(
    ("fields", "arguments", "header"),
    [
        (TEXT, b'{"a":"eu"}', b" eu\t"),
        (TEXT, b'{"a":" eu"}', b"=?base64?IGV1?="),
        (TEXT, b'{"a":"eu"}', b"=?base64?ZXU=?="),
        (TEXT, b"{}", None),
        (TEXT, b'{"a":null}', None),
        (TEXT, b'{"a":[1]}', None),
        (INTEGER, b'{"a":42}', b"42.0"),
        (INTEGER, b'{"a":42.0}', b"42"),
        (INTEGER, b'{"a":9007199254740993}', b"9007199254740993"),
        (FLAG, b'{"a":true}', b"true"),
    ],
)
def test_headers_that_fit(fields: Fields, arguments: bytes, header: bytes | None) -> None:
    headers = [] if header is None else [(b"mcp-param-a", header)]
    assert check(fields, Raw(arguments), [*headers, (b"mcp-param-other", b"1")]) is None


@pytest.mark.parametrize(
    ("fields", "arguments", "header"),
    [
        (TEXT, b'{"a":"eu"}', None),
        (TEXT, b'{"a":"eu"}', b"EU"),
        (TEXT, b"{}", b"eu"),
        (TEXT, b'{"a":null}', b"null"),
        (TEXT, b'{"a":{}}', b"{}"),
        (TEXT, b'{"a":"eu"}', b"=?base64?ZXU?="),
        (TEXT, b'{"a":"eu"}', b"=?base64?ZXV=?="),
        (TEXT, b'{"a":"1"}', b"1.0"),
        (INTEGER, b'{"a":9007199254740993}', b"9007199254740992"),
        (INTEGER, b'{"a":42}', b"0x2a"),
        (INTEGER, b'{"a":42}', b"4.2e1"),
        (FLAG, b'{"a":true}', b"True"),
    ],
)
def test_headers_that_do_not_fit(fields: Fields, arguments: bytes, header: bytes | None) -> None:
    headers = [] if header is None else [(b"mcp-param-a", header)]
    problem = check(fields, Raw(arguments), headers)
    assert problem is not None
    assert problem.startswith("Mcp-Param-A ")


def test_a_header_twice_does_not_fit() -> None:
    headers = [(b"mcp-param-a", b"eu"), (b"mcp-param-a", b"eu")]
    assert check(TEXT, Raw(b'{"a":"eu"}'), headers) == "Mcp-Param-A is there twice"


@pytest.mark.parametrize(
    "arguments",
    [
        b'{"o":{"a":"us","a":"eu"}}',
        b'{"o":{"a":"eu","a":"eu"}}',
        b'{"o":{"a":null,"\\u0061":"eu"}}',
        b'{"o":{"a":"us"},"o":{"a":"eu"}}',
        b'{"o":{"a":"us"},"b":1,"o":{}}',
    ],
)
def test_an_argument_twice_does_not_fit_and_is_not_sent(arguments: bytes) -> None:
    fields = fields_of(schema(o={"properties": {"a": annotated("string", "A")}}))
    for headers in ([], [(b"mcp-param-a", b"us")], [(b"mcp-param-a", b"eu")]):
        problem = check(fields, Raw(arguments), headers)
        assert problem == "Mcp-Param-A has an argument that is there twice"
    assert headers_for(fields, Raw(arguments)) == b""


def test_other_arguments_may_be_there_twice() -> None:
    arguments = Raw(b'{"b":1,"a":"eu","b":{"a":1,"a":2}}')
    assert check(TEXT, arguments, [(b"mcp-param-a", b"eu")]) is None


def test_without_fields_nothing_is_looked_at() -> None:
    assert check(NOTHING, None, [(b"mcp-param-a", b"x"), (b"mcp-param-a", b"y")]) is None
