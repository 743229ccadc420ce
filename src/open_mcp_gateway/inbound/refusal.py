"""The answer to a request that failed before any server was called. Pure."""

from __future__ import annotations

from open_mcp_gateway.errors import GatewayError, MethodNotAllowed
from open_mcp_gateway.names import RequestId
from open_mcp_gateway.pipeline.reply import Reply, challenge, retry_after
from open_mcp_gateway.protocol.faults import FAULTS, management_body


def refusal(error: GatewayError, request_id: RequestId) -> Reply:
    """What the sender of a request is told that failed with ``error``."""
    headers = challenge(error) + retry_after(error)
    if isinstance(error, MethodNotAllowed):
        headers += ((b"allow", ", ".join(error.allow).encode()),)
    return Reply(FAULTS[type(error)].status, management_body(error, request_id), headers)
