"""API keys at rest and in comparison: SHA-256 digests, never the key itself.

A key of 112 or more random bits needs no slow hash (NIST SP 800-63B section 5.1.2.2); a slow one
would let anybody without a key spend our processor time.
"""

from __future__ import annotations

import hashlib
from typing import Final

from open_mcp_gateway.names import KeyId
from open_mcp_gateway.secrecy import Secretive

MAX_KEY_BYTES: Final = 512
DIGEST_BYTES: Final = 32

_VISIBLE_ASCII: Final = bytes(range(0x21, 0x7F))


class KeyDigest(Secretive, frozen=True):
    """One configured key: its SHA-256 digest (32 bytes) and the name it goes by in logs."""

    key_id: KeyId
    digest: bytes

    def __repr__(self) -> str:
        # A weak key can be found from its digest by trying, so the digest is not shown either.
        return f"KeyDigest(key_id={self.key_id!r}, digest=***)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("key_id", self.key_id), ("digest", "***")]


def is_well_formed(key: bytes) -> bool:
    """Whether ``key`` can be a key at all: 1 to 512 bytes, each visible ASCII (0x21-0x7E)."""
    return 0 < len(key) <= MAX_KEY_BYTES and not key.translate(None, _VISIBLE_ASCII)


def digest_of(key: bytes) -> bytes:
    """What is kept and compared in place of ``key``."""
    return hashlib.sha256(key).digest()
