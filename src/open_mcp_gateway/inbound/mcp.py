"""The MCP endpoint of one server, ``/servers/{id}/mcp``: POST of both eras, GET and DELETE.

Spec: 2026-07-28 basic/transports#streamable-http and 2025-11-25 basic/transports#streamable-http.
Which era a POST belongs to is decided once, here; what follows knows only its own.
"""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.errors import (
    GatewayError,
    InvalidRequest,
    NotAcceptable,
)
from open_mcp_gateway.inbound.arrival import Arrival
from open_mcp_gateway.inbound.batch import Batch, check_batch, elements_of, is_batch
from open_mcp_gateway.inbound.handlers import Abandonable, Handler, McpPost, McpStream
from open_mcp_gateway.inbound.mcp_head import EVENTS, JSON, SESSION_HEADER, McpHead, mcp_head
from open_mcp_gateway.inbound.routes import Route, RouteKind
from open_mcp_gateway.inbound.session_sink import SessionSink
from open_mcp_gateway.pipeline.errand import Errand
from open_mcp_gateway.pipeline.modern import HttpSink, ModernFace
from open_mcp_gateway.pipeline.reply import ACCEPTED, Outlet, Reply, Responder, failed
from open_mcp_gateway.pipeline.sessions import HttpSession, Sessions
from open_mcp_gateway.pipeline.streamlog import StreamLog, parse_event_id
from open_mcp_gateway.protocol.classify import era_of
from open_mcp_gateway.protocol.eras import LEGACY_VERSIONS, MODERN_VERSIONS, Era
from open_mcp_gateway.protocol.faults import INVALID_REQUEST
from open_mcp_gateway.protocol.jsonrpc import (
    Call,
    Message,
    call_of,
    decode_incoming,
    decode_message,
    error_response,
    raw_id_of,
)
from open_mcp_gateway.supervisor.lease import Lease

_POST_ONLY: Final = Reply(
    405,
    error_response(None, INVALID_REQUEST, "this revision has no method but POST here"),
    ((b"allow", b"POST"),),
)

_NEEDS_ID: Final = "a request needs an id"
_HAS_NO_ID: Final = "a notification has no id"


class McpEndpoint:
    """Serves every method of the endpoint for a caller who may call the server."""

    def __init__(self, sessions: Sessions, modern: ModernFace) -> None:
        self.sessions = sessions
        self.modern = modern

    def routes(self) -> list[Route[Handler]]:
        """The endpoint of each server."""
        return [
            _route(("POST",), McpPost(self.post)),
            _route(("GET", "DELETE"), McpStream(self.serve)),
        ]

    def serve(
        self, arrival: Arrival, permit: Permit, _body: bytes, responder: Responder
    ) -> Abandonable | None:
        """Listen to a session, or end it.

        Raises:
            GatewayError: it cannot be served; no answer was given yet.
        """
        head = arrival.read(mcp_head)
        if head.version in MODERN_VERSIONS:
            # GET and DELETE belong to sessions, which this revision does not have.
            responder.respond(_POST_ONLY)
            return None
        session = self._session(head, permit)
        if arrival.method == b"DELETE":
            self.sessions.end(session)
            responder.respond(Reply(204))
            return None
        return self._listen(arrival, head, session, responder)

    # ── POST ─────────────────────────────────────────────────────────────────────────────────────

    def post(
        self, arrival: Arrival, permit: Permit, body: bytes, responder: Responder
    ) -> Abandonable | None:
        """Serve a message; ``responder`` hears of the outcome, maybe before this returns."""
        message: Message | None = None
        try:
            head = arrival.read(mcp_head)
            if not body.startswith(b"{") and is_batch(body):
                return self._batch(arrival, head, permit, body, responder)
            message = decode_message(body)
            if not head.takes_both:
                raise _not_acceptable(JSON, EVENTS)
            if message.method is UNSET:
                self._answer(head, permit, message, body, responder)
                return None
            call = call_of(message)
            if (message.id is UNSET) is not (call.id is None):
                raise InvalidRequest(_NEEDS_ID if call.id is not None else _HAS_NO_ID)
            told = not head.of_session or (call.params is not None and "_meta" in call.params)
            if told and era_of(call.method, call.params, head.version) is Era.MODERN:
                return self._stateless(arrival, head, permit, call, responder)
            if call.method == "initialize" and not head.names_session:
                return self._open(arrival, permit, call, responder)
            # Once it was found for this head, it is the same until one of them ends or changes.
            session: HttpSession | None = arrival.readings.get(HttpSession)
            if session is None or session.core.permit is not permit or session.core.closed:
                session = arrival.readings[HttpSession] = self._session(head, permit)
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
        self, arrival: Arrival, head: McpHead, permit: Permit, call: Call, responder: Responder
    ) -> Abandonable | None:
        if call.id is None:
            # Over HTTP a client has no notification to send: leaving is how it cancels.
            responder.respond(ACCEPTED)
            return None
        # What served the last request with this head serves this one too, whose sender is the same.
        lease: Lease | None = arrival.readings.get(Lease)
        if lease is not None and not lease.serving:
            lease = None
        sink = HttpSink(responder, arrival.request_id)
        exchange = self.modern.take(
            permit, call, head.routing, sink, arrival.request_id, lease=lease
        )
        if lease is None and exchange.lease is not None:
            arrival.readings[Lease] = exchange.lease
        return None if exchange.over else exchange

    def _answer(
        self, head: McpHead, permit: Permit, message: Message, body: bytes, responder: Responder
    ) -> None:
        """The client's response to a question of the server."""
        if message.id is UNSET or (message.result is UNSET) is (message.error is UNSET):
            raise InvalidRequest("the body is neither a request, a notification nor a response")
        self._session(head, permit).core.answer(decode_incoming(body))
        responder.respond(ACCEPTED)

    def _open(
        self, arrival: Arrival, permit: Permit, call: Call, responder: Responder
    ) -> Abandonable:
        opening = _Opening(self.sessions, permit, responder, arrival.request_id)
        opening.take(call)
        return opening

    def _batch(
        self, arrival: Arrival, head: McpHead, permit: Permit, body: bytes, responder: Responder
    ) -> Abandonable:
        if not head.takes_both:
            raise _not_acceptable(JSON, EVENTS)
        elements = elements_of(body)
        session = self._session(head, permit)
        check_batch(elements, session.core.version)
        return Batch(session, responder, arrival.request_id).take(elements)

    # ── GET ──────────────────────────────────────────────────────────────────────────────────────

    def _listen(
        self, arrival: Arrival, head: McpHead, session: HttpSession, responder: Responder
    ) -> Abandonable:
        """The stream for what belongs to no request, or one to be picked up again."""
        if not head.takes_events:
            raise _not_acceptable(EVENTS)
        core, log, after = session.core, session.standalone, None
        last = arrival.header(b"last-event-id")
        if last is not None:
            place = parse_event_id(last.strip().decode("latin-1"))
            found = None if place is None else session.stream(place[0])
            if place is None or found is None:
                raise InvalidRequest("Last-Event-ID names no event of this session")
            log, after = found, place[1]
        outlet = responder.open_stream()
        log.attach(outlet, after=after, primed=core.version >= "2025-11-25")
        if log is session.standalone:
            core.open_channel(log.send)
        return _Reading(session, log, outlet)

    def _session(self, head: McpHead, permit: Permit) -> HttpSession:
        """The session that the request names.

        Raises:
            InvalidRequest: it names none, or an unknown revision.
            NotFound: there is no such session for this caller.
        """
        if head.session_id is None:
            raise InvalidRequest("send one Mcp-Session-Id header; 'initialize' gives it out")
        session = self.sessions.find(permit, head.session_id)
        if head.version is not None and head.version not in LEGACY_VERSIONS:
            raise InvalidRequest(
                f"MCP-Protocol-Version must be one of {', '.join(LEGACY_VERSIONS)} in a session"
            )
        return session


class _Opening(SessionSink):
    """A client that waits for its session."""

    __slots__ = ("_errand", "_sessions", "headers")

    def __init__(
        self, sessions: Sessions, permit: Permit, responder: Responder, request_id: str
    ) -> None:
        super().__init__(sessions.open(permit), responder, request_id)
        self.headers = ((SESSION_HEADER, self._session.session_id.encode("ascii")),)
        self._sessions = sessions
        self._errand: Errand | None = None

    def take(self, call: Call) -> None:
        """Put it to the server."""
        try:
            self._errand = self._session.core.take(call, self, self._request_id)
        except BaseException:
            self._sessions.end(self._session)
            raise

    def answer(self, data: bytes) -> None:
        self._over()
        super().answer(data)

    def fail(self, error: GatewayError) -> None:
        self._over()
        super().fail(error)

    def _over(self) -> None:
        """There is an answer, whatever it is."""
        if self._session.core.handshake is None:
            self._sessions.end(self._session)
        else:
            self._sessions.register(self._session)

    def abandon(self) -> None:
        """It left before it could hear of the session, which is of no use then."""
        if self._errand is not None:
            self._errand.abandon()
        self._sessions.end(self._session)


class _Reading:
    """A client reading a stream of its session."""

    __slots__ = ("_outlet", "_session", "_stream")

    def __init__(self, session: HttpSession, stream: StreamLog, outlet: Outlet) -> None:
        self._session = session
        self._stream = stream
        self._outlet = outlet

    def abandon(self) -> None:
        self._session.drop_reader(self._stream, self._outlet)


def _route(methods: tuple[str, ...], handler: McpPost | McpStream) -> Route[Handler]:
    return Route(
        methods=methods,
        path="/servers/{id}/mcp",
        permission=Permission.MCP_CALL,
        handler=handler,
        kind=RouteKind.MCP,
    )


def _not_acceptable(*needed: bytes) -> NotAcceptable:
    """The client does not take every media type that the answer may come in."""
    kinds = ", ".join(kind.decode() for kind in needed)
    return NotAcceptable(f"the Accept header must list {kinds}")
