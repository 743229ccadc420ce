"""The HTTP headers of MCP and the codec for values that a header cannot carry as they are.

Spec: 2026-07-28 basic/transports#request-headers; 2025-11-25 basic/transports#session-management.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache

import msgspec
from msgspec import Raw

from open_mcp_gateway.protocol.jsonrpc import Params

PROTOCOL_VERSION = "MCP-Protocol-Version"
METHOD = "Mcp-Method"
NAME = "Mcp-Name"
SESSION_ID = "Mcp-Session-Id"

NAMED_BY = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""Which member of ``params`` the ``Mcp-Name`` header mirrors, by method."""

_SENTINEL = re.compile(r"=\?base64\?(.*)\?=")
# Visible ASCII, blanks only inside: RFC 9110 section 5.5 strips them at the edges.
_PLAIN = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?")

_text = msgspec.json.Decoder(str)


@lru_cache(1024)  # the names of methods and tools
def encode_value(value: str) -> bytes:
    """``value`` for a header: as it is where that is safe, else inside the base64 sentinel."""
    if _PLAIN.fullmatch(value) and not _SENTINEL.fullmatch(value):
        return value.encode("ascii")
    return b"=?base64?%b?=" % base64.b64encode(value.encode("utf-8", "surrogatepass"))


def decode_value(value: str) -> str:
    """What a header value stands for; one without the whole sentinel is literal.

    Raises:
        ValueError: inside the sentinel is not canonical base64 of UTF-8 text.
    """
    match = _SENTINEL.fullmatch(value)
    if match is None:
        return value
    packed = match[1]
    try:
        data = base64.b64decode(packed, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    if base64.b64encode(data).decode() != packed:
        raise ValueError("not canonical base64")
    return data.decode()


def mirrored_name(method: str, params: Params | None) -> bytes | None:
    """The value of ``Mcp-Name`` for a request, None where the method has none.

    None as well where ``params`` lacks the member or it is no text: the server says what is wrong.
    """
    member = NAMED_BY.get(method)
    if member is None or params is None:
        return None
    raw = params.get(member)
    return None if raw is None else _encoded_text(raw)


def _encoded_text(raw: Raw) -> bytes | None:
    try:
        return encode_value(_text.decode(raw))
    except msgspec.DecodeError:
        return None
