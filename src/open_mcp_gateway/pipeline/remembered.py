"""Requests by which a server remembers something of a client until the session with it ends.

Spec: 2025-11-25 server/resources#subscriptions and server/utilities/logging.
"""

from __future__ import annotations

from typing import Final

from open_mcp_gateway.errors import UnknownMethod

SUBSCRIBE: Final = "resources/subscribe"
UNSUBSCRIBE: Final = "resources/unsubscribe"
SET_LEVEL: Final = "logging/setLevel"

REMEMBERED: Final = frozenset({SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE})
"""In another spelling they reach no server, see ``handles``."""


def without_session(method: str, server_id: str) -> UnknownMethod:
    """The answer to one of them from who has no session: the connection is that of others too, who
    would hear more or less by it, and nothing of what it is about comes back to the caller."""
    how = f"open one with 'initialize' (over HTTP at /servers/{server_id}/mcp)"
    return UnknownMethod(f"'{method}' needs a session: {how}")
