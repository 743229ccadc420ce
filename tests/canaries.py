"""Secrets that can be recognised wherever they turn up, in whatever spelling."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterable
from urllib.parse import quote


def canary(slot: str) -> str:
    """A secret for one place; its last characters look different in a URL, and in base64."""
    return f"canary-{slot}-{secrets.token_hex(12)}+/=~"


def _base64(raw: bytes) -> Iterable[bytes]:
    """What stays the same of ``raw`` in base64, wherever in a longer text it began."""
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(b"\0" * before + raw).rstrip(b"=")
            yield text[4 if before else 0 : len(text) - len(text) % 4]


def spellings(raw: bytes) -> set[bytes]:
    """``raw`` itself, as hex, as base64, as a part of a URL."""
    quoted = {quote(raw, safe=safe).encode() for safe in ("", "/", "/+=~", "~")}
    lower = {text.lower() for text in quoted}
    return {raw, raw.hex().encode(), raw.hex().upper().encode(), *_base64(raw), *quoted, *lower}


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def found(secret: str, where: bytes, *, digests: bool = True) -> list[bytes]:
    """The spellings of ``secret``, and of its digest, that ``where`` holds, once for each time."""
    wanted = spellings(secret.encode()) | (spellings(digest(secret)) if digests else set())
    return [one for one in sorted(wanted) for _ in range(where.count(one))]
