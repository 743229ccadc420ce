"""A key's shape, and its digest that never shows itself."""

from __future__ import annotations

import hashlib

import pytest

from open_mcp_gateway.auth.apikeys import MAX_KEY_BYTES, KeyDigest, digest_of, is_well_formed
from open_mcp_gateway.names import KeyId


@pytest.mark.parametrize("byte", range(256))
def test_only_visible_ascii_is_well_formed(byte: int) -> None:
    assert is_well_formed(b"ab" + bytes([byte]) + b"cd") == (0x21 <= byte <= 0x7E)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(0, False), (1, True), (MAX_KEY_BYTES, True), (MAX_KEY_BYTES + 1, False), (70_000, False)],
)
def test_length(length: int, expected: bool) -> None:
    assert is_well_formed(b"k" * length) is expected


def test_512_bytes_is_the_limit() -> None:
    assert MAX_KEY_BYTES == 512


def test_digest_is_sha256() -> None:
    assert digest_of(b"test-key-a") == hashlib.sha256(b"test-key-a").digest()


def test_a_digest_is_not_shown() -> None:
    key = KeyDigest(KeyId("config"), digest_of(b"test-key-a"))
    shown = f"{key!r} {key} {key.__rich_repr__()}"
    assert key.__rich_repr__() == [("key_id", "config"), ("digest", "***")]
    assert "config" in shown
    assert key.digest.hex() not in shown
    assert repr(key.digest) not in shown
