"""Members that appear twice."""

from __future__ import annotations

import msgspec
import pytest

from open_mcp_gateway.protocol.members import repeated, values_of


def test_every_value_of_a_name_is_found() -> None:
    text = b'{"a":1,"b":{"a":2},"\\u0061":[3],"a":"4"}'
    assert [bytes(value) for value in values_of(text, "a")] == [b"1", b"[3]", b'"4"']
    assert values_of(text, "c") == []


def test_only_names_that_are_asked_for_count() -> None:
    text = b'{"a":1,"b":2,"a":3,"\\u0062":4}'
    assert repeated(text) == "a"
    assert repeated(text, {"b", "c"}) == "b"
    assert repeated(text, {"c"}) is None
    assert repeated(b"{}") is None


@pytest.mark.parametrize("text", [b"[]", b"1", b"null", b'"a"'])
def test_what_is_no_object_has_no_members(text: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        repeated(text)
