"""One HTTP request, whichever transport read it: the order of the checks at the door.

Host and Origin, then credentials, then size, media type, syntax, route, permission. Nothing of a
body is looked at, or even read, before the caller is known.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from anyio.abc import TaskGroup
from msgspec import Struct

from open_mcp_gateway.auth.principal import Principal
from open_mcp_gateway.errors import (
    GatewayError,
    InternalError,
    TooLarge,
    Unauthenticated,
    WrongKey,
)
from open_mcp_gateway.inbound.access_log import AccessLog, record
from open_mcp_gateway.inbound.admission import Admitted, Authenticator
from open_mcp_gateway.inbound.arrival import UNKNOWN_SIZE, Arrival
from open_mcp_gateway.inbound.handlers import (
    Abandonable,
    Handler,
    McpPoint,
    McpStream,
    McpVisits,
    Probe,
    check_body,
    check_json,
    most_bytes_of,
)
from open_mcp_gateway.inbound.managed import Managed
from open_mcp_gateway.inbound.origin import OriginPolicy
from open_mcp_gateway.inbound.refusal import refusal
from open_mcp_gateway.inbound.routes import Match, RouteKind, Router
from open_mcp_gateway.names import KeyId
from open_mcp_gateway.pipeline.forward import Forwarder
from open_mcp_gateway.pipeline.reply import Headers, Reply, Responder, failed
from open_mcp_gateway.protocol.messages import Message, call_of, decode_message, raw_id_of
from open_mcp_gateway.telemetry.logs import TRACE

log = logging.getLogger(__name__)


_PRIVATE: Final[Headers] = (
    (b"cache-control", b"no-store"),
    (b"vary", b"Authorization, X-API-Key"),
)


class _Way(Struct, frozen=True):
    """Where a head leads, kept with it: good for the same principal, whom a change of rights
    replaces, as long as the same catalog is in force."""

    edition: int
    """Of the catalog, ``Forwarder.edition``."""

    principal: Principal
    serve: Callable[[Arrival, bytes, Responder], Abandonable | None]


class Dispatcher:
    """Takes requests in. The policies may be replaced at any time; a request keeps those it met."""

    def __init__(
        self,
        router: Router[Handler],
        forwarder: Forwarder,
        tasks: TaskGroup,
        *,
        origin: OriginPolicy,
        authenticator: Authenticator,
        max_body_bytes: int,
        access_log: AccessLog,
        now: Callable[[], float],
    ) -> None:
        self.router = router
        self.forwarder = forwarder
        self.managed = Managed(tasks, lambda: forwarder.snapshot, self.refuse)
        self.origin = origin
        self.authenticator = authenticator
        self.max_body_bytes = max_body_bytes
        self.access_log = access_log
        self.now = now
        """Wall time, in seconds since the epoch."""

        self.used: set[KeyId] = set()
        """The keys that opened since somebody last emptied this."""

    def admit(self, arrival: Arrival, *, http_version: str = "1.1") -> Admitted:
        """Let the sender in, from the head of the request alone.

        Raises:
            GatewayError: it may not come in; ``refuse`` makes the answer.
        """
        headers = arrival.headers
        arrival.origin = self.origin.check(headers, http_version=http_version)
        preflight = self.origin.preflight(arrival.method, headers, arrival.origin)
        if preflight is not None:
            return Admitted(arrival, Reply(204, headers=preflight))
        public = self.router.public(arrival.method, arrival.path)
        if public is not None and isinstance(public.route.handler, Probe):
            return Admitted(arrival, public.route.handler.answer())
        holding = self.authenticator.authenticate(headers, arrival.client)
        principal = holding.principal
        arrival.key_id = principal.key_id
        self.used.add(principal.key_id)
        arrival.check_coding()
        most_bytes = self._most_bytes(arrival)
        if min(self.max_body_bytes, most_bytes) < arrival.pending_bytes() < UNKNOWN_SIZE:
            raise self.too_large(most_bytes)
        expect = arrival.header(b"expect")
        # Not of HTTP/1.0, and of no use where no body follows (RFC 9110 section 10.1.1).
        continues = (
            expect is not None
            and expect.lower() == b"100-continue"
            and http_version != "1.0"
            and arrival.pending_bytes() > 0
        )
        ends_s = holding.closes_at_s
        by = self.authenticator
        return Admitted(arrival, None, principal, continues, ends_s, by, most_bytes)

    def readmit(self, before: Admitted, arrival: Arrival) -> Admitted:
        """What ``admit`` would say of ``arrival``, the next request with the head of ``before``.

        Only as long as ``policies`` are what they were, the answer depends on nothing else; and not
        where the path has a bound of its own, ``before.most_bytes``.

        Raises:
            TooLarge: by what this one declares.
            WrongKey: the key has expired since.
        """
        if before.ends_s <= self.now():
            raise WrongKey("Invalid API key", reason="expired")
        if self.max_body_bytes < arrival.pending_bytes() < UNKNOWN_SIZE:
            raise self.too_large()
        principal = before.principal
        if principal is not None:
            self.used.add(principal.key_id)
        return Admitted(arrival, None, principal, ends_s=before.ends_s, by=before.by)

    @property
    def policies(self) -> tuple[object, object]:
        """What an admission rests on beside the head of a request; replaced as a whole."""
        return self.authenticator, self.origin

    @property
    def leaves_no_trace(self) -> bool:
        """Whether nothing is written down of a request that succeeds."""
        return self.access_log is not AccessLog.ALL and not log.isEnabledFor(TRACE)

    def too_large(self, most_bytes: int = UNKNOWN_SIZE) -> TooLarge:
        """The refusal of a body over the limit, or over ``most_bytes``, the path's own if lower."""
        if most_bytes < self.max_body_bytes:
            return TooLarge(f"the body is over {most_bytes} bytes, the most for this path")
        return TooLarge(f"the body is over {self.max_body_bytes} bytes (max_body_bytes)")

    def _most_bytes(self, arrival: Arrival) -> int:
        """What the path takes by itself; of one that is not there it is said later."""
        try:
            return most_bytes_of(self.router.match(arrival.method, arrival.path).route.handler)
        except GatewayError:
            return UNKNOWN_SIZE

    def handle(self, admitted: Admitted, body: bytes, responder: Responder) -> Abandonable | None:
        """Serve a request that was let in; ``responder`` hears of it, maybe before this returns.

        Returns what to abandon if the client goes away while the outcome is open.
        """
        arrival = admitted.arrival
        try:
            if admitted.ready is not None:
                responder.respond(admitted.ready)
                return None
            principal = admitted.principal
            if principal is None:
                raise Unauthenticated("API key required")
            admitted.check_still_in_force(self.authenticator, self.now())
            way: _Way | None = arrival.readings.get(_Way)
            if (
                way is not None
                and way.edition == self.forwarder.edition
                and way.principal is principal
            ):
                self._trace("request body", arrival, body)
                return way.serve(arrival, body, responder)
            match = self._match(arrival, body)
            handler = match.route.handler
            self._trace("request body", arrival, body)
            if type(handler) is McpPoint:
                return self._call(arrival, principal, handler, body, responder)
            if type(handler) is McpStream or type(handler) is McpVisits:
                return self._stream(arrival, principal, match, body, responder)
            self.managed.serve(arrival, principal, match, body, responder)
        except GatewayError as error:
            responder.respond(self.refuse(arrival, error))
        except Exception:
            log.exception("request failed", extra={"request_id": arrival.request_id})
            responder.respond(self.refuse(arrival, InternalError("internal error")))
        return None

    def _match(self, arrival: Arrival, body: bytes) -> Match[Handler]:
        try:
            return self.router.match(arrival.method, arrival.path)
        except GatewayError:
            check_body(arrival, body)
            raise

    def _call(
        self,
        arrival: Arrival,
        principal: Principal,
        point: McpPoint,
        body: bytes,
        responder: Responder,
    ) -> Abandonable | None:
        """An MCP message for one server."""
        check_json(arrival)
        message: Message | None = None
        try:
            message = decode_message(body)
            server_id = point.server_of(arrival, message)
            call = call_of(message, enveloped=True)
            return self.forwarder.forward(
                principal, server_id, call, request_id=arrival.request_id, responder=responder
            )
        except Exception as error:  # noqa: BLE001 - a boundary: these routes answer in JSON-RPC
            responder.respond(failed(error, raw_id_of(message), arrival.request_id))
            return None

    def _stream(
        self,
        arrival: Arrival,
        principal: Principal,
        match: Match[Handler],
        body: bytes,
        responder: Responder,
    ) -> Abandonable | None:
        """A request to an MCP endpoint of one server."""
        handler, permits = match.route.handler, self.forwarder.permits
        try:
            if arrival.method == b"POST":
                check_json(arrival)
            try:
                permit = permits.get(principal, match.ref or "")
            except GatewayError:
                check_body(arrival, body)
                raise
            if type(handler) is McpStream:
                return handler.serve(arrival, permit, body, responder)
            if type(handler) is not McpVisits:
                raise InternalError(f"route {match.route.path} is wired wrongly")
            serve = handler.enter(arrival, permit).serve
            arrival.readings[_Way] = _Way(self.forwarder.edition, principal, serve)
            return serve(arrival, body, responder)
        except Exception as error:  # noqa: BLE001 - a boundary: these routes answer in JSON-RPC
            raw_id = getattr(error, "request_id", None) or _id_in(body)
            responder.respond(failed(error, raw_id, arrival.request_id))
            return None

    def refuse(self, arrival: Arrival, error: GatewayError) -> Reply:
        """The answer to a request that failed before any server was called."""
        if isinstance(error, WrongKey) and error.key_id is not None:
            arrival.key_id = KeyId(error.key_id)  # which dead key is still tried
        return refusal(error, arrival.request_id)

    def finish(self, arrival: Arrival, reply: Reply) -> Reply:
        """``reply`` with the headers that every answer carries; also writes the access log."""
        if self.access_log is not AccessLog.OFF:
            record(self.access_log, arrival, reply)
        self._trace("answer body", arrival, reply.body)
        request_id = (b"x-request-id", arrival.request_id.encode("ascii"))
        headers = (*_PRIVATE, request_id, *reply.headers)
        if arrival.origin is not None and reply.status != 204:
            headers += self.origin.cors_headers(arrival.origin)
        return Reply(reply.status, reply.body, headers)

    def _trace(self, what: str, arrival: Arrival, body: bytes) -> None:
        """Content of MCP messages, at this level alone; at none what is said of keys."""
        if body and log.isEnabledFor(TRACE) and self.router.kind_of(arrival.path) is RouteKind.MCP:
            content = body.decode("utf-8", "replace")
            log.log(TRACE, what, extra={"request_id": arrival.request_id, "content": content})


def _id_in(body: bytes) -> bytes | None:
    """The id of the message that ``body`` is; None where there is none to be read."""
    try:
        return raw_id_of(decode_message(body))
    except GatewayError:
        return None
