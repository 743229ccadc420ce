"""Which call a message that cannot be read was meant to answer, as far as that can be known."""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw

from open_mcp_gateway.protocol.surrogates import Lenient

KEPT_BYTES = 256
"""How much of the front and of the end of an overlong message is enough to look for its id."""

_FRONT = re.compile(
    rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*([0-9]{1,18})\s*,\s*'
    rb'(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"(?:result|error)"\s*:'
)
_ANSWERS = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"(?:result|error)"\s*:')
_BACK = re.compile(rb',\s*"id"\s*:\s*([0-9]{1,18})\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')

_BATCH = re.compile(rb"\s*\[")
_ID = re.compile(rb"[0-9]{1,18}")

_members = Lenient(dict[str, Raw])
_batch = Lenient(list[Raw])


def id_of_odd_message(message: bytes) -> int | None:
    """The id of a response that is JSON but not of JSON-RPC's shape, or is not even JSON."""
    try:
        members = _members.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return id_from_ends(message[:KEPT_BYTES], message[-KEPT_BYTES:])
    raw = bytes(members.get("id", b""))
    return int(raw) if "method" not in members and _ID.fullmatch(raw) else None


def id_from_ends(front: bytes, back: bytes) -> int | None:
    """The id of a response of which only the two ends are known."""
    found = _FRONT.match(front)
    if found is None and _ANSWERS.match(front):
        found = _BACK.search(back)
    return None if found is None else int(found[1])


def members_of_batch(message: bytes) -> list[bytes]:
    """The messages of a JSON-RPC batch, which 2025-03-26 has; empty when it is none."""
    if not _BATCH.match(message):
        return []
    try:
        members = _batch.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return [text for text in map(bytes, members) if text.startswith(b"{")]
