"""Headers that repeat arguments of a call, against the schema of the tool that is called.

Spec: 2026-07-28 server/tools#x-mcp-header.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Raw

from open_mcp_gateway.outbound.peer import Peer
from open_mcp_gateway.protocol.jsonrpc import Params
from open_mcp_gateway.protocol.mirrored import Invalid, check, mirrored_fields

_text = msgspec.json.Decoder(str)


def schema_of(peer: Peer, params: Params) -> bytes | None:
    """The schema of the tool that is called; None while it is not known."""
    name = _text.decode(params.get("name", Raw(b'""')))  # rung 2 has seen that it is a string
    return peer.tool_schema(name)


def mismatch(
    schema: bytes | None, params: Params, headers: Iterable[tuple[bytes, bytes]]
) -> str | None:
    """What of the headers does not fit the arguments. Checked for every server whose schema is
    known, over whatever transport, for its clients have seen the schema too."""
    fields = () if schema is None else mirrored_fields(schema)
    if isinstance(fields, Invalid):
        return None
    return check(fields, params.get("arguments"), headers)
