"""Sessions over Streamable HTTP: how one is opened and ended.

Spec: 2025-11-25 basic/lifecycle and basic/transports#session-management; the same back to
2025-03-26.
"""

from __future__ import annotations

import re
from typing import Final

import anyio
from msgspec import Struct

from open_mcp_gateway.errors import Busy, UpstreamError
from open_mcp_gateway.outbound.answer import Reply
from open_mcp_gateway.outbound.handshake import (
    INITIALIZE,
    INITIALIZED,
    NoWay,
    initialize_params,
    read_initialize,
)
from open_mcp_gateway.outbound.http import GOODBYE_S, version_header
from open_mcp_gateway.outbound.link import Link
from open_mcp_gateway.outbound.peer import Handshake, Manner
from open_mcp_gateway.protocol.eras import LATEST_LEGACY
from open_mcp_gateway.protocol.jsonrpc import encode_params, notification, request

_INITIALIZE_ID: Final = 0
_SESSION_ID: Final = re.compile(rb"[\x21-\x7e]{1,1024}")
_HEADER_SINCE: Final = "2025-06-18"
"""The first revision with ``MCP-Protocol-Version``."""


class Session(Struct, frozen=True):
    """One session as opened; of a server without session ids, the agreement alone."""

    handshake: Handshake
    headers: bytes
    """Lines for everything after ``initialize``."""

    has_id: bool


class Refused(Struct, frozen=True):
    """``initialize`` got no result; ``reply`` says whether another flavour is worth asking for."""

    reply: Reply
    reason: str
    """Reads on after ``Server 'x'``."""


async def open_session(link: Link, manner: Manner) -> Session | Refused:
    """``initialize`` and ``notifications/initialized``, as ``manner`` says.

    Raises:
        UpstreamUnavailable: nothing reached the server.
        UpstreamBroken: no complete response came.
    """
    version = manner.version or LATEST_LEGACY
    params = encode_params(initialize_params(manner.capabilities, version))
    reply = await link.ask(b"", request(_INITIALIZE_ID, INITIALIZE, params), _INITIALIZE_ID)
    if reply.message is None:
        return Refused(reply, link.refusal(reply))
    agreed = read_initialize(reply.body)
    if isinstance(agreed, NoWay):
        return Refused(reply, agreed.reason)
    if reply.session_id and not _SESSION_ID.fullmatch(reply.session_id):
        return Refused(reply, "sent a session id that no header can carry")
    session = _session(agreed, reply.session_id)
    try:
        told = await link.ask(session.headers, notification(INITIALIZED, None), None)
    except BaseException:
        await end_session(link, session)
        raise
    if told.status >= 300:
        await end_session(link, session)
        return Refused(told, f"refused {INITIALIZED} (HTTP {told.status})")
    return session


async def end_session(link: Link, session: Session) -> None:
    """Tell the server that nobody needs it any more. Bounded; completes under cancellation."""
    if not session.has_id:
        return
    with anyio.move_on_after(GOODBYE_S, shield=True):
        try:
            await link.exchange(link.head(b"DELETE") + session.headers + b"\r\n")
        except (UpstreamError, Busy):
            return  # it ends by itself, or has already


def _session(handshake: Handshake, session_id: bytes) -> Session:
    lines = b"Mcp-Session-Id: %b\r\n" % session_id if session_id else b""
    if handshake.version >= _HEADER_SINCE:
        lines += version_header(handshake.version)
    return Session(handshake, lines, bool(session_id))
