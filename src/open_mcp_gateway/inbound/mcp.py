"""The MCP endpoint of one server, ``/servers/{id}/mcp``: POST, and GET and DELETE for sessions.

Spec: 2026-07-28 basic/transports#streamable-http and 2025-11-25 basic/transports#streamable-http.
"""

from __future__ import annotations

from typing import Final

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.errors import InvalidRequest
from open_mcp_gateway.inbound.arrival import Arrival
from open_mcp_gateway.inbound.handlers import Abandonable, Handler, McpStream, McpVisits
from open_mcp_gateway.inbound.mcp_head import EVENTS, mcp_head, not_acceptable
from open_mcp_gateway.inbound.mcp_post import Posts, named_session
from open_mcp_gateway.inbound.routes import Route, RouteKind
from open_mcp_gateway.pipeline.modern import ModernFace
from open_mcp_gateway.pipeline.reply import Outlet, Reply, Responder
from open_mcp_gateway.pipeline.sessions import HttpSession, Sessions
from open_mcp_gateway.pipeline.streamlog import StreamLog, parse_event_id
from open_mcp_gateway.protocol.eras import MODERN_VERSIONS
from open_mcp_gateway.protocol.faults import INVALID_REQUEST
from open_mcp_gateway.protocol.jsonrpc import error_response

_POST_ONLY: Final = Reply(
    405,
    error_response(None, INVALID_REQUEST, "this revision has no method but POST here"),
    ((b"allow", b"POST"),),
)
"""GET and DELETE belong to sessions, which the stateless era does not have."""


class McpEndpoint:
    """Serves every method of the endpoint for a caller who may call the server."""

    def __init__(self, sessions: Sessions, modern: ModernFace) -> None:
        self.sessions = sessions
        self.modern = modern

    def routes(self) -> list[Route[Handler]]:
        """The endpoint of each server."""
        return [
            _route("POST", McpVisits(self.post)),
            _route("GET", McpStream(self.listen)),
            _route("DELETE", McpStream(self.end)),
        ]

    def post(self, arrival: Arrival, permit: Permit) -> Posts:
        """Send messages to a server, or answer what it asked."""
        return Posts(self.sessions, self.modern, permit, mcp_head(arrival))

    def end(self, arrival: Arrival, permit: Permit, _body: bytes, responder: Responder) -> None:
        """End a session."""
        head = arrival.read(mcp_head)
        if head.version in MODERN_VERSIONS:
            responder.respond(_POST_ONLY)
            return
        self.sessions.end(named_session(self.sessions, permit, head))
        responder.respond(Reply(204))

    def listen(
        self, arrival: Arrival, permit: Permit, _body: bytes, responder: Responder
    ) -> Abandonable | None:
        """Open the stream for what belongs to no request, or pick one up again."""
        head = arrival.read(mcp_head)
        if head.version in MODERN_VERSIONS:
            responder.respond(_POST_ONLY)
            return None
        session = named_session(self.sessions, permit, head)
        if not head.takes_events:
            raise not_acceptable(EVENTS)
        core, log, after = session.core, session.standalone, None
        last = arrival.header(b"last-event-id")
        if last is not None:
            place = parse_event_id(last.strip().decode("latin-1"))
            found = None if place is None else session.stream(place[0])
            if place is None or found is None or not found.gave(place[1]):
                raise InvalidRequest("Last-Event-ID names no event of this session")
            log, after = found, place[1]
        outlet = responder.open_stream()
        log.attach(outlet, after=after, primed=core.version >= "2025-11-25")
        if log is session.standalone:
            core.open_channel(log.send)
        return _Reading(session, log, outlet)


def _route(method: str, handler: Handler) -> Route[Handler]:
    return Route(
        methods=(method,),
        path="/servers/{id}/mcp",
        permission=Permission.MCP_CALL,
        handler=handler,
        kind=RouteKind.MCP,
    )


class _Reading:
    """A client reading a stream of its session."""

    __slots__ = ("_outlet", "_session", "_stream")

    def __init__(self, session: HttpSession, stream: StreamLog, outlet: Outlet) -> None:
        self._session = session
        self._stream = stream
        self._outlet = outlet

    def abandon(self) -> None:
        self._session.drop_reader(self._stream, self._outlet)
