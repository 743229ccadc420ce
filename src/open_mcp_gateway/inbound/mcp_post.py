"""POST to the MCP endpoint of one server, of both eras.

Spec: 2026-07-28 basic/transports#streamable-http and 2025-11-25 basic/transports#streamable-http.
Which era a message belongs to is decided once, here; what follows knows only its own.
"""

from __future__ import annotations

from msgspec import UNSET

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.errors import InvalidRequest
from open_mcp_gateway.inbound.arrival import Arrival
from open_mcp_gateway.inbound.batch import Batch, check_batch, elements_of, is_batch
from open_mcp_gateway.inbound.handlers import Abandonable
from open_mcp_gateway.inbound.mcp_head import (
    EVENTS,
    JSON,
    SESSION_HEADER,
    McpHead,
    not_acceptable,
)
from open_mcp_gateway.inbound.session_sink import SessionSink
from open_mcp_gateway.pipeline.errand import Errand
from open_mcp_gateway.pipeline.modern import HttpSink, ModernFace
from open_mcp_gateway.pipeline.precedent import Precedent, precedent
from open_mcp_gateway.pipeline.reply import ACCEPTED, Responder, failed
from open_mcp_gateway.pipeline.sessions import HttpSession, Sessions
from open_mcp_gateway.protocol.classify import era_of
from open_mcp_gateway.protocol.eras import LEGACY_VERSIONS, Era
from open_mcp_gateway.protocol.jsonrpc import Call, decode_incoming
from open_mcp_gateway.protocol.messages import Message, call_of, decode_message, raw_id_of
from open_mcp_gateway.supervisor.lease import Lease


class Posts:
    """The POSTs with one head, by one permit: what those two decide is decided once."""

    __slots__ = (
        "_head",
        "_lease",
        "_modern",
        "_permit",
        "_precedent",
        "_repeats",
        "_session",
        "_sessions",
    )

    def __init__(
        self, sessions: Sessions, modern: ModernFace, permit: Permit, head: McpHead
    ) -> None:
        self._sessions = sessions
        self._modern = modern
        self._permit = permit
        self._head = head
        self._session: HttpSession | None = None
        """The one that the head names, once it was found; it may have ended since, or have another
        permit."""
        self._precedent: Precedent | None = None
        self._repeats = False
        """A request of no session came before: what a precedent costs may pay."""

        self._lease: Lease | None = None
        """What served the last request of no session; it may not serve any more."""

    def serve(self, arrival: Arrival, body: bytes, responder: Responder) -> Abandonable | None:
        """See ``Visits``."""
        message: Message | None = None
        head = self._head
        try:
            batch = not body.startswith(b"{") and is_batch(body)
            message = None if batch else decode_message(body)
            if not head.takes_both:
                raise not_acceptable(JSON, EVENTS)
            if message is None or message.method is UNSET:
                return self._no_call(arrival, message, body, responder)
            alike = None if self._precedent is None else self._precedent.followed_by(message)
            if alike is not None:
                return self._begin(alike, responder, arrival.request_id)
            call = call_of(message)
            if (message.id is UNSET) is not (call.id is None):
                wrong = "a request needs an id" if call.id else "a notification has no id"
                raise InvalidRequest(wrong)
            params, outside = call.params, head.outside_sessions
            # A claim can only be in ``_meta``, and most messages of sessions have none.
            may_be_modern = outside or (params is not None and "_meta" in params)
            if may_be_modern and era_of(call.method, params, outside=outside) is Era.MODERN:
                return self._stateless(message, call, responder, arrival.request_id)
            if call.method == "initialize" and not head.names_session:
                return self._open(arrival, call, responder)
            session = self._session
            if session is None or session.core.closed or session.core.permit is not self._permit:
                session = self._found()
            if call.id is None:
                session.core.notification(call)
                responder.respond(ACCEPTED)
                return None
            sink = SessionSink(session, responder, arrival.request_id)
            session.core.take(call, sink, arrival.request_id)
            return sink  # a disconnect is no cancellation here: the call goes on without its stream
        except Exception as error:  # noqa: BLE001 - a boundary: the answer names the request
            responder.respond(failed(error, raw_id_of(message), arrival.request_id))
            return None

    def _stateless(
        self, message: Message, call: Call, responder: Responder, request_id: str
    ) -> Abandonable | None:
        if call.id is None:
            # Over HTTP a client has no notification to send: leaving is how it cancels.
            responder.respond(ACCEPTED)
            return None
        checked = self._modern.check(self._permit, call, self._head.routing)
        if self._repeats:
            self._precedent = precedent(message, checked)
        self._repeats = True
        return self._begin(checked, responder, request_id)

    def _begin(self, call: Call, responder: Responder, request_id: str) -> Abandonable | None:
        sink, lease = HttpSink(responder, request_id), self._lease
        if lease is not None and not lease.serving:
            lease = None
        exchange = self._modern.begin(
            self._permit, call, self._head.routing, sink, request_id, lease=lease
        )
        if lease is None:
            self._lease = exchange.lease
        return None if exchange.over else exchange

    def _no_call(
        self, arrival: Arrival, message: Message | None, body: bytes, responder: Responder
    ) -> Abandonable | None:
        """A batch, or the client's response to a question of the server, or no message at all."""
        if message is None:
            return self._batch(arrival, body, responder)
        if message.id is UNSET or (message.result is UNSET) is (message.error is UNSET):
            raise InvalidRequest("the body is neither a request, a notification nor a response")
        self._found().core.answer(decode_incoming(body))
        responder.respond(ACCEPTED)
        return None

    def _open(self, arrival: Arrival, call: Call, responder: Responder) -> Abandonable:
        session = self._sessions.open(self._permit)
        opening = _Opening(self._sessions, session)
        sink = SessionSink(
            session,
            responder,
            arrival.request_id,
            on_outcome=opening.over,
            headers=((SESSION_HEADER, session.session_id.encode("ascii")),),
        )
        try:
            opening.errand = session.core.take(call, sink, arrival.request_id)
        except BaseException:
            self._sessions.end(session)
            raise
        return opening

    def _batch(self, arrival: Arrival, body: bytes, responder: Responder) -> Abandonable:
        elements = elements_of(body)
        session = self._found()
        check_batch(elements, session.core.version)
        return Batch(session, responder, arrival.request_id).take(elements)

    def _found(self) -> HttpSession:
        """Raises as ``named_session``."""
        self._session = named_session(self._sessions, self._permit, self._head)
        return self._session


def named_session(sessions: Sessions, permit: Permit, head: McpHead) -> HttpSession:
    """The session that a request names.

    Raises:
        InvalidRequest: it names none, or an unknown revision.
        NotFound: there is no such session for this caller.
    """
    if head.session_id is None:
        raise InvalidRequest("send one Mcp-Session-Id header; 'initialize' gives it out")
    session = sessions.find(permit, head.session_id)
    if head.outside_sessions:
        raise InvalidRequest(
            f"MCP-Protocol-Version must be one of {', '.join(LEGACY_VERSIONS)} in a session"
        )
    return session


class _Opening:
    """A client that waits for its session."""

    __slots__ = ("_session", "_sessions", "errand")

    def __init__(self, sessions: Sessions, session: HttpSession) -> None:
        self._sessions = sessions
        self._session = session
        self.errand: Errand | None = None

    def over(self, session: HttpSession) -> None:
        """There is an answer, whatever it is."""
        if session.core.handshake is None:
            self._sessions.end(session)
        else:
            self._sessions.register(session)

    def abandon(self) -> None:
        """It left before it could hear of the session, which is of no use then."""
        if self.errand is not None:
            self.errand.abandon()
        self._sessions.end(self._session)
