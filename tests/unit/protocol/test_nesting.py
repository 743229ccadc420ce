"""How deep a text is nested, told without recursion."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_mcp_gateway.protocol.nesting import nested_deeper

TEXTS = st.text(alphabet='[]{}"\\aä', max_size=6)
JSON = st.recursive(
    st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=40,
)


def depth_of(value: Any) -> int:
    if not isinstance(value, list | dict):
        return 0
    inside = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth_of, inside), default=0)


@given(JSON, st.sampled_from([None, 1]), st.booleans())
def test_it_is_exact_whatever_stands_in_the_strings(
    value: Any, indent: int | None, escaped: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=escaped).encode()
    depth = depth_of(value)
    assert not nested_deeper(text, depth)
    if depth:
        assert nested_deeper(text, depth - 1)


@pytest.mark.parametrize(
    ("text", "deeper"),
    [
        (b"[" * 512 + b"]" * 512, False),
        (b"[" * 513 + b"]" * 513, True),
        (b'{"a":' * 512 + b"1" + b"}" * 512, False),
        (b'{"a":' * 513 + b"1" + b"}" * 513, True),
        (b"[" + b",".join([b"[" * 511 + b"]" * 511] * 50) + b"]", False),
        (b"[" + b",".join([b"[" * 511 + b"]" * 511] * 50 + [b"[" * 512 + b"]" * 512]) + b"]", True),
        (b"[" + b",".join([b"[[]]"] * 5_000) + b"]", False),
        (b'["' + b"[" * 5_000 + b'"]', False),
        (b'["' + b"]" * 5_000 + b'",' + b"[" * 512 + b"]" * 512 + b"]", True),
        (b'["' + b'\\"]' * 5_000 + b'",' + b"[" * 512 + b"]" * 512 + b"]", True),
        (b'["' + b"\\\\" * 5_000 + b'",' + b"[" * 512 + b"]" * 512 + b"]", True),
    ],
    ids=range(11),
)
def test_many_brackets(text: bytes, *, deeper: bool) -> None:
    assert nested_deeper(text, 512) is deeper
