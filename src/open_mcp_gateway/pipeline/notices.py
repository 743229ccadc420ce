"""Which notifications of a session's client its server hears of.

Spec: 2025-11-25 basic#notifications.
"""

from __future__ import annotations

from typing import Final

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.pipeline import narrowing
from open_mcp_gateway.pipeline.handles import Handles
from open_mcp_gateway.protocol.jsonrpc import Call
from open_mcp_gateway.protocol.spelling import folded, spellings

_PREFIX: Final = "notifications/"
_OWN: Final = spellings({"notifications/initialized", "notifications/cancelled"})
"""The gateway says these itself; ``cancelled`` names an id the caller chose, which upstream could
be somebody else's request."""

_OF_ONE_CLIENT: Final = spellings(
    {
        "notifications/progress",
        "notifications/roots/list_changed",
        "notifications/tasks/status",
    }
)
"""Mean nothing on a connection that belongs to several."""


def ends_here(method: str, *, shared: bool) -> bool:
    """Whether a notification is about a connection that is the gateway's own, in any spelling that
    some server takes for it. ``shared`` says that the connection belongs to several."""
    plain = folded(method)
    return plain in _OWN or (shared and plain in _OF_ONE_CLIENT)


def passes(permit: Permit, handles: Handles, call: Call, *, shared: bool) -> bool:
    """Whether to pass it on; nobody is told what comes of a notification.

    A request whose id was left out is none: nothing would be checked of it, and a server may do
    what it says all the same. ``shared`` says that the connection belongs to several.
    """
    method = call.method
    if not method.startswith(_PREFIX) or ends_here(method, shared=shared):
        return False
    try:
        handles.check(permit.principal.key_id, permit.entry.spec.id, call)
        narrowing.check(permit, call)
    except GatewayError:
        return False
    return True
