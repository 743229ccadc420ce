"""The answer to a request that failed before any server was called. Pure."""

from __future__ import annotations

from typing import Final

from open_mcp_gateway.errors import (
    Denied,
    GatewayError,
    MethodNotAllowed,
    Unauthenticated,
    WrongKey,
)
from open_mcp_gateway.names import RequestId
from open_mcp_gateway.pipeline.reply import Headers, Reply, retry_after
from open_mcp_gateway.protocol.faults import FAULTS, management_body

_CHALLENGES: Final[dict[type[GatewayError], Headers]] = {
    Unauthenticated: ((b"www-authenticate", b'Bearer realm="mcp-gateway"'),),
    WrongKey: ((b"www-authenticate", b'Bearer realm="mcp-gateway", error="invalid_token"'),),
}
"""RFC 6750 section 3: no ``error`` where no key was sent."""

_INSUFFICIENT: Final = b'Bearer realm="mcp-gateway", error="insufficient_scope", scope="%b"'
"""RFC 6750 section 3.1."""


def refusal(error: GatewayError, request_id: RequestId) -> Reply:
    """What the sender of a request is told that failed with ``error``."""
    headers = _CHALLENGES.get(type(error), ()) + retry_after(error)
    if isinstance(error, WrongKey) and error.reason is not None:
        headers += ((b"x-auth-reason", error.reason.encode("ascii")),)
    if isinstance(error, Denied):
        headers += ((b"www-authenticate", _INSUFFICIENT % error.permission.encode("ascii")),)
    if isinstance(error, MethodNotAllowed):
        headers += ((b"allow", ", ".join(error.allow).encode()),)
    return Reply(FAULTS[type(error)].status, management_body(error, request_id), headers)
