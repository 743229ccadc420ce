"""The HTTP+SSE transport of 2024-11-05: ``/servers/{id}/sse`` and ``/servers/{id}/messages``.

Spec: 2024-11-05 basic/transports#http-with-sse. One stream carries everything to the client, and is
the session: it ends with the connection.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Container
from typing import Final
from urllib.parse import parse_qs

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Permission, Principal
from open_mcp_gateway.errors import Busy, GatewayError, InvalidRequest, NotFound
from open_mcp_gateway.inbound.arrival import Arrival
from open_mcp_gateway.inbound.batch import is_response
from open_mcp_gateway.inbound.handlers import Handler, McpStream
from open_mcp_gateway.inbound.routes import Route, RouteKind
from open_mcp_gateway.names import KeyId, ServerId
from open_mcp_gateway.pipeline.channel_sink import ChannelSink
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.reply import ACCEPTED, Outlet, Responder
from open_mcp_gateway.pipeline.session import ClientSession
from open_mcp_gateway.protocol.jsonrpc import Call, decode_incoming
from open_mcp_gateway.protocol.messages import call_of, decode_message, raw_id_of
from open_mcp_gateway.protocol.sse import encode_event

MAX_SESSIONS_PER_KEY: Final = 1000


class SseSession:
    """One open stream and the session it is."""

    __slots__ = ("_forget", "core", "outlet", "principal")

    def __init__(
        self,
        core: ClientSession,
        principal: Principal,
        outlet: Outlet,
        forget: Callable[[SseSession], None],
    ) -> None:
        self.core = core
        self.principal = principal
        self.outlet = outlet
        self._forget = forget

    def send(self, data: bytes) -> None:
        """One message for the client."""
        self.outlet.send(encode_event(data, event="message"))

    def abandon(self) -> None:
        """The connection is gone, and with it the session."""
        self.close("its stream is gone")

    def end(self) -> None:
        """End the session at rest, and its connection."""
        self.close("nothing more is taken")

    def close(self, why: str) -> None:
        """End the session, and its connection if that is still there."""
        if not self.core.closed:
            self._forget(self)
            self.core.close(why)
        self.outlet.close()


class SseEndpoint:
    """Opens streams and takes what is posted to them. ``prefix`` goes before every path."""

    def __init__(self, means: Means, prefix: str) -> None:
        self._means = means
        self._prefix = prefix
        self._sessions: dict[str, SseSession] = {}
        self._counts: Counter[KeyId] = Counter()

    def routes(self) -> list[Route[Handler]]:
        """The two endpoints of each server."""
        return [
            _route("GET", "/servers/{id}/sse", McpStream(self.open)),
            _route("POST", "/servers/{id}/messages", McpStream(self.take)),
        ]

    def open(
        self, arrival: Arrival, permit: Permit, _body: bytes, responder: Responder
    ) -> SseSession:
        """Begin a session; its first event says where to post."""
        del arrival
        key_id = permit.principal.key_id
        if self._counts[key_id] >= MAX_SESSIONS_PER_KEY:
            raise Busy("too many sessions are open with this key; end some", retry_after_s=60)
        core = ClientSession(self._means, permit, secrets.token_urlsafe(24))
        session = SseSession(core, permit.principal, responder.open_stream(), self._forget)
        self._sessions[core.session_id] = session
        self._counts[key_id] += 1
        path = f"{self._prefix}/servers/{permit.entry.spec.id}/messages"
        place = f"{path}?sessionId={core.session_id}".encode("ascii")
        session.outlet.send(encode_event(place, event="endpoint"))
        core.open_channel(session.send)
        return session

    def take(self, arrival: Arrival, permit: Permit, body: bytes, responder: Responder) -> None:
        """One message for a session; its answer comes on the stream.

        Raises:
            NotFound: no such session for this caller.
            MalformedMessage, InvalidRequest: the body is no message.
        """
        session = self._find(arrival, permit)
        core = session.core
        message = decode_message(body)
        if is_response(message):
            core.answer(decode_incoming(body))
            responder.respond(ACCEPTED)
            return
        try:
            call = call_of(message)
        except InvalidRequest as error:
            error.request_id = raw_id_of(message)
            raise
        responder.respond(ACCEPTED)
        if call.id is None or raw_id_of(message) is None:
            core.notification(Call(call.method, None, call.params))
        else:
            core.take(call, ChannelSink(core, session.send, arrival.request_id), arrival.request_id)

    def _find(self, arrival: Arrival, permit: Permit) -> SseSession:
        named = parse_qs(arrival.query.decode("ascii", "replace")).get("sessionId", [])
        session = self._sessions.get(named[0]) if len(named) == 1 else None
        if (
            session is None
            or not session.principal.is_same_caller(permit.principal)
            or session.core.permit.entry.spec.id != permit.entry.spec.id
            or not permit.principal.includes(session.core.permit.principal)
        ):
            raise NotFound("Session not found")
        session.core.permit = permit  # by the definition and the rights that hold now
        return session

    def lock_out(self, loss: Callable[[Permit], GatewayError | None]) -> None:
        """End every session where ``loss`` says why its caller may not have it any more."""
        for session in tuple(self._sessions.values()):
            error = loss(session.core.permit)
            if error is not None:
                session.close(error.public)

    def rejoin(self, server_id: ServerId) -> None:
        """A connection to a server has opened."""
        for session in self._sessions.values():
            if session.core.permit.entry.spec.id == server_id:
                session.core.rejoin()

    def hang_up(self, removed: Container[ServerId]) -> None:
        """The servers have left the catalog: nothing can be posted to their sessions any more."""
        for session in tuple(self._sessions.values()):
            if session.core.permit.entry.spec.id in removed:
                session.core.hang_up(tell=True)
                _end_at_rest(session)

    def drain(self) -> None:
        """End every session as soon as all its requests are answered."""
        for session in tuple(self._sessions.values()):
            _end_at_rest(session)

    def sweep(self) -> None:
        """Called now and then: give up questions that nobody answered."""
        for session in self._sessions.values():
            session.core.sweep(0.0)

    def _forget(self, session: SseSession) -> None:
        del self._sessions[session.core.session_id]
        key_id = session.principal.key_id
        self._counts[key_id] -= 1
        if self._counts[key_id] <= 0:
            del self._counts[key_id]


def _end_at_rest(session: SseSession) -> None:
    if session.core.inflight:
        session.core.on_rest = session.end
    else:
        session.end()


def _route(method: str, path: str, handler: McpStream) -> Route[Handler]:
    return Route(
        methods=(method,),
        path=path,
        permission=Permission.MCP_CALL,
        handler=handler,
        kind=RouteKind.MCP,
    )
