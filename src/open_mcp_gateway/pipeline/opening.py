"""What the gateway answers to ``initialize``: it has already shaken hands with the server."""

from __future__ import annotations

from msgspec import Raw

from open_mcp_gateway.outbound.peer import Handshake
from open_mcp_gateway.protocol.eras import LATEST_LEGACY, LEGACY_VERSIONS, Era
from open_mcp_gateway.protocol.jsonrpc import Params, encode
from open_mcp_gateway.protocol.meta import SERVER_INFO
from open_mcp_gateway.protocol.surrogates import Lenient

_members = Lenient(dict[str, Raw])


def initialize_result(handshake: Handshake, params: Params | None) -> bytes:
    """The raw InitializeResult for a client, from the server's own handshake.

    A session-era server's result passes as it is. A stateless server has no such result: it is put
    together from its DiscoverResult, at the revision the client asked for if that is one of the
    session era, else the newest one (2025-11-25 basic/lifecycle#version-negotiation).
    """
    if handshake.era is Era.LEGACY:
        return handshake.result
    discovered = _members.decode(handshake.result)
    meta = _members.decode(discovered.get("_meta", Raw(b"{}")))
    result: dict[str, object] = {
        "protocolVersion": _version_for(params),
        "capabilities": discovered.get("capabilities", Raw(b"{}")),
        "serverInfo": meta.get(SERVER_INFO, Raw(b'{"name":"unknown","version":"unknown"}')),
    }
    if "instructions" in discovered:
        result["instructions"] = discovered["instructions"]
    return encode(result)


def _version_for(params: Params | None) -> str:
    wanted = None if params is None else params.get("protocolVersion")
    if wanted is not None:
        for version in LEGACY_VERSIONS:
            if bytes(wanted) == encode(version):
                return version
    return LATEST_LEGACY
