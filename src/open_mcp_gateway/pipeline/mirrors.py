"""Headers that repeat arguments of a call, against the schema of the tool that is called.

Spec: 2026-07-28 server/tools#x-mcp-header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from msgspec import Raw

from open_mcp_gateway.outbound.peer import Peer
from open_mcp_gateway.protocol.jsonrpc import Params
from open_mcp_gateway.protocol.mirrored import Invalid, check, mirrored_fields

_text = msgspec.json.Decoder(str)


def must_wait(peer: Peer, params: Params, then: Callable[[], None]) -> bool:
    """Whether the schema of the tool is yet to be asked for; ``then`` is called, later, once what
    there is to know is known. Whoever calls a tool without having listed the tools must not get
    around the check by that."""
    return peer.tool_schema(_tool(params)) is None and peer.wait_for_tools(then)


def mismatch(peer: Peer, params: Params, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """What of the headers does not fit the arguments. Checked for every server whose schema is
    known, over whatever transport, for its clients have seen the schema too."""
    schema = peer.tool_schema(_tool(params))
    fields = () if schema is None else mirrored_fields(schema)
    if isinstance(fields, Invalid):
        return None
    return check(fields, params.get("arguments"), headers)


def _tool(params: Params) -> str:
    return _text.decode(params.get("name", Raw(b'""')))  # rung 2 has seen that it is a string
