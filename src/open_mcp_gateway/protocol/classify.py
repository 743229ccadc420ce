"""Which era a message from a client belongs to: by its body first, by its headers last.

Spec: 2026-07-28 basic/versioning. A wrong guess the one way would refuse old clients, the other way
would run a stateless request without its checks, so what claims to be modern is held to that.
"""

from __future__ import annotations

from open_mcp_gateway.errors import InvalidRequest
from open_mcp_gateway.protocol.eras import LEGACY_VERSIONS, Era
from open_mcp_gateway.protocol.jsonrpc import Params
from open_mcp_gateway.protocol.meta import PROTOCOL_VERSION, members_of
from open_mcp_gateway.protocol.repeated import remembered


def claims_modern(params: Params | None) -> bool:
    """Whether the request names its own protocol revision, as every stateless one does."""
    return params is not None and "_meta" in params and _names_revision(bytes(params["_meta"]))


@remembered
def _names_revision(meta: bytes) -> bool:
    try:
        return PROTOCOL_VERSION in members_of(meta)
    except InvalidRequest:
        return False  # the era that is found another way says what is wrong with it


def outside_sessions(version_header: str | None) -> bool:
    """Whether ``MCP-Protocol-Version`` has a revision that is not of the session era."""
    return version_header is not None and version_header not in LEGACY_VERSIONS


def era_of(method: str, params: Params | None, *, outside: bool) -> Era:
    """The era of one message over HTTP, ``outside_sessions`` by its header or not.

    1. A claim in ``_meta`` makes it modern, whatever the header says; the ladder compares them.
    2. ``initialize`` without one opens a session.
    3. A header with a revision that is not of the session era makes it modern, without its claim:
       the ladder refuses it.
    4. Everything else belongs to a session, or to the revision that knew no header (2025-03-26).
    """
    # What the header decides comes out the same whatever is claimed, and is quicker to see.
    if outside and method != "initialize":
        return Era.MODERN
    return Era.MODERN if claims_modern(params) else Era.LEGACY
