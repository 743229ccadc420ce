"""What the MCP endpoint reads in the head of a request, whatever its body says.

Values only, found once for all the requests of a connection that have the same head
(``Arrival.read``). What is decided of them depends on more and is decided each time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from msgspec import Struct

from open_mcp_gateway.errors import NotAcceptable
from open_mcp_gateway.inbound.arrival import Arrival
from open_mcp_gateway.protocol.classify import outside_sessions
from open_mcp_gateway.protocol.routing import Routing, routing_of

SESSION_HEADER: Final = b"mcp-session-id"
_VERSION_HEADER: Final = b"mcp-protocol-version"

MAX_ACCEPT_BYTES: Final = 1024
"""Of an ``Accept`` header; what comes after is not looked at."""

JSON: Final = b"application/json"
EVENTS: Final = b"text/event-stream"


class McpHead(Struct, frozen=True, kw_only=True):
    """One head as read."""

    takes_events: bool
    """Whether the client takes an event stream."""

    takes_both: bool
    """And JSON as well."""

    session_id: str | None
    """None unless there is one ``Mcp-Session-Id``, and only one."""

    names_session: bool
    """There is one or more."""

    version: str | None
    """``MCP-Protocol-Version``, the first if there are several."""

    outside_sessions: bool
    """That is none of the session era."""

    routing: Routing


def mcp_head(arrival: Arrival) -> McpHead:
    """What the head of ``arrival`` says; for ``Arrival.read``."""
    sessions = [value for name, value in arrival.headers if name == SESSION_HEADER]
    sent = arrival.header(_VERSION_HEADER)
    version = None if sent is None else sent.strip().decode("latin-1")
    takes_events = _takes(arrival, EVENTS)
    return McpHead(
        takes_events=takes_events,
        takes_both=takes_events and _takes(arrival, JSON),
        session_id=sessions[0].strip().decode("latin-1") if len(sessions) == 1 else None,
        names_session=bool(sessions),
        version=version,
        outside_sessions=outside_sessions(version),
        routing=routing_of(arrival.headers),
    )


def not_acceptable(*needed: bytes) -> NotAcceptable:
    """The client does not take every media type that the answer may come in."""
    kinds = ", ".join(kind.decode() for kind in needed)
    return NotAcceptable(f"the Accept header must list {kinds}")


def _takes(arrival: Arrival, media: bytes) -> bool:
    accept = arrival.header(b"accept")
    if accept is None or _accepts(accept[:MAX_ACCEPT_BYTES], media):
        return True
    lines = [value for name, value in arrival.headers if name == b"accept"]
    return _accepts(b",".join(lines)[:MAX_ACCEPT_BYTES], media)


@lru_cache(256)  # clients repeat theirs, also on other connections
def _accepts(accept: bytes, media: bytes) -> bool:
    """Source: RFC 9110 section 12.5.1; weights are not looked at."""
    taken = {part.partition(b";")[0].strip().lower() for part in accept.split(b",")}
    return not taken.isdisjoint({media, media.partition(b"/")[0] + b"/*", b"*/*"})
