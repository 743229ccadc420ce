"""The header value codec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from open_mcp_gateway.protocol.headers import decode_value, encode_value, mirrored_name


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("tools/call", b"tools/call"),
        ("two words", b"two words"),
        ("", b""),
        ("é", b"=?base64?w6k=?="),
        (" edge", b"=?base64?IGVkZ2U=?="),
        ("edge ", b"=?base64?ZWRnZSA=?="),
        ("a\r\nX-Evil: 1", b"=?base64?YQ0KWC1FdmlsOiAx?="),
        ("tab\tinside", b"=?base64?dGFiCWluc2lkZQ==?="),
        ("=?base64?aGk=?=", b"=?base64?PT9iYXNlNjQ/YUdrPT89?="),
        ("=?base64?=", b"=?base64?="),
    ],
)
def test_encodes(value: str, encoded: bytes) -> None:
    assert encode_value(value) == encoded
    assert decode_value(encoded.decode()) == value


@given(st.text())
def test_round_trip_is_always_safe_for_a_header(value: str) -> None:
    encoded = encode_value(value)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert encoded == encoded.strip()
    assert decode_value(encoded.decode()) == value


@pytest.mark.parametrize(
    "value", ["=?base64?%%?=", "=?base64?w6k?=", "=?base64?w6l=?=", "=?base64?/w==?="]
)
def test_refuses_what_is_not_canonical(value: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_value(value)


@pytest.mark.parametrize("value", ["=?BASE64?aGk=?=", "=?base64?aGk=", "plain"])
def test_without_the_whole_sentinel_a_value_is_literal(value: str) -> None:
    assert decode_value(value) == value


@pytest.mark.parametrize(
    ("method", "params", "name"),
    [
        ("tools/call", {"name": Raw(b'"add"')}, b"add"),
        ("prompts/get", {"name": Raw(b'"\\u00e9"')}, b"=?base64?w6k=?="),
        ("resources/read", {"uri": Raw(b'"file:///a"')}, b"file:///a"),
        ("tasks/get", {"taskId": Raw(b'"t"')}, b"t"),
        ("tools/list", {"name": Raw(b'"add"')}, None),
        ("tools/call", {"name": Raw(b"1")}, None),
        ("tools/call", {}, None),
        ("tools/call", None, None),
    ],
)
def test_mirrors_the_name(method: str, params: dict[str, Raw] | None, name: bytes | None) -> None:
    assert mirrored_name(method, params) == name
