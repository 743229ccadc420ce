"""``server/discover`` over HTTP: what is asked, and which answers say nothing about the era.

Spec: 2026-07-28 basic/versioning and basic/transports#request-headers.
"""

from __future__ import annotations

from typing import Final

import anyio

from open_mcp_gateway.errors import Busy, UpstreamError
from open_mcp_gateway.outbound.answer import Reply
from open_mcp_gateway.outbound.handshake import (
    DISCOVER,
    NotModern,
    NoWay,
    discover_params,
    judge_discovery,
)
from open_mcp_gateway.outbound.http import version_header
from open_mcp_gateway.outbound.link import Link
from open_mcp_gateway.protocol.headers import encode_value, mirrored_name
from open_mcp_gateway.protocol.jsonrpc import Params, encode_params, request

INQUIRY_S: Final = 10.0
"""How long a server may take to say again what it speaks."""

_NOT_IMPLEMENTED: Final = 501
_PASSING: Final = frozenset({408, 429})
"""Statuses below 500 that are about the moment, not about the request."""


def modern_headers(version_line: bytes, method: str, params: Params | None) -> bytes:
    """The header lines of a modern request (2026-07-28 basic/transports#request-headers)."""
    name = mirrored_name(method, params)
    if name is None:
        return b"%bMcp-Method: %b\r\n" % (version_line, encode_value(method))
    return b"%bMcp-Method: %b\r\nMcp-Name: %b\r\n" % (version_line, encode_value(method), name)


async def discover(link: Link, version: str) -> Reply:
    """Ask what the server speaks, in ``version``.

    Raises:
        UpstreamUnavailable: nothing reached the server.
        UpstreamBroken: no complete response came.
        Busy: too much waits for this server.
    """
    params = discover_params(version)
    headers = modern_headers(version_header(version), DISCOVER, params)
    return await link.ask(headers, request(1, DISCOVER, encode_params(params)), 1, replayable=True)


def is_outage(reply: Reply) -> bool:
    """The server, or something before it, is not well: that says nothing about what it speaks."""
    if reply.status in _PASSING:
        return True
    return reply.status >= 500 and reply.status != _NOT_IMPLEMENTED


async def denies_modern(link: Link, version: str) -> bool:
    """Whether a server that spoke ``version`` now answers that it is not modern. Silence, outages
    and refused credentials are no such answer."""
    try:
        with anyio.fail_after(INQUIRY_S):
            reply = await discover(link, version)
    except (UpstreamError, Busy, TimeoutError):
        return False
    if is_outage(reply):
        return False
    if reply.message is None:
        return reply.status >= 400 and reply.status not in {401, 403}
    return isinstance(judge_discovery(reply.body), NotModern | NoWay)
