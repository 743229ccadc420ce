"""Requests of the stateless era to a server of that era.

Spec: 2026-07-28. Nothing is kept between requests but who was given which handle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from msgspec import Raw, Struct

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Principal
from open_mcp_gateway.errors import (
    EraNotSpoken,
    GatewayError,
    HeaderMismatch,
    MissingCapability,
    UnsupportedVersion,
    WrongKey,
)
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner
from open_mcp_gateway.outbound.relation import LISTEN, SUBSCRIPTION_ID
from open_mcp_gateway.pipeline import mirrors
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.exchange import Exchange
from open_mcp_gateway.pipeline.handles import Handles, needs_tasks
from open_mcp_gateway.pipeline.reply import ACCEPTED, Responder
from open_mcp_gateway.pipeline.sink import HOLD_OPEN_S, DeferredSink, Sink, Waiting
from open_mcp_gateway.pipeline.states import StateSeal
from open_mcp_gateway.protocol.eras import LATEST_MODERN, Era
from open_mcp_gateway.protocol.faults import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    METHOD_NOT_FOUND,
    MISSING_CLIENT_CAPABILITY,
    UNSUPPORTED_VERSION,
)
from open_mcp_gateway.protocol.jsonrpc import Call, encode, error_response, response
from open_mcp_gateway.protocol.ladder import climb
from open_mcp_gateway.supervisor.lease import Lease

MODERN: Final = Manner(era=Era.MODERN)

TASKS_EXTENSION: Final = "io.modelcontextprotocol/tasks"

_STATUS: Final = {MISSING_CLIENT_CAPABILITY: 400, METHOD_NOT_FOUND: 404}
"""HTTP status of errors that come from the server, where it is not 200 (basic/transports)."""

_BETWEEN_HOPS: Final = frozenset({HEADER_MISMATCH, UNSUPPORTED_VERSION})
"""What a server says of the gateway's own headers and revision. Passed on, the client would take it
for a word about its own."""

_CALL: Final = "tools/call"


class _Error(Struct):
    code: int = 0


class _Response(Struct):
    error: _Error | None = None


class _Failed(Struct):
    id: Raw
    error: Raw


class _Capabilities(Struct):
    extensions: dict[str, Raw] = msgspec.field(default_factory=dict)


_response = msgspec.json.Decoder(_Response)
_failed = msgspec.json.Decoder(_Failed)
_capabilities = msgspec.json.Decoder(_Capabilities)


def declares_tasks(capabilities: Raw | None) -> bool:
    """Whether a caller with these capabilities knows the tasks extension."""
    try:
        return TASKS_EXTENSION in _capabilities.decode(capabilities or b"{}").extensions
    except msgspec.DecodeError:
        return False


class ModernFace:
    """Serves stateless requests, over HTTP and stdio alike."""

    def __init__(self, means: Means, handles: Handles, seal: StateSeal) -> None:
        self._means = means
        self._handles = handles
        self._seal = seal
        self._running: set[_ModernExchange] = set()

    def end_if(self, unwanted: Callable[[Principal], bool]) -> None:
        """End what is in flight for certain callers: they may not hear of it any more."""
        for exchange in tuple(self._running):
            if unwanted(exchange.permit.principal):
                exchange.end(WrongKey("Invalid API key"))

    def sweep(self) -> None:
        """Called now and then: keep the connections of those alive that wait for long."""
        oldest_s = self._means.clock.monotonic() - HOLD_OPEN_S
        for exchange in self._running:
            if exchange.began_s < oldest_s and isinstance(exchange.sink, Waiting):
                exchange.sink.hold_open()

    def end_listening(self) -> None:
        """End every subscription in the orderly way (basic/utilities/subscriptions)."""
        for exchange in tuple(self._running):
            if exchange.call.method == LISTEN:
                exchange.complete()

    def serve(
        self,
        permit: Permit,
        call: Call,
        headers: Iterable[tuple[bytes, bytes]],
        responder: Responder,
        request_id: str,
    ) -> Exchange | None:
        """One POST. Returns what to abandon if the client leaves while the outcome is open.

        Raises:
            GatewayError: the request is at fault; nothing was sent or answered.
        """
        if call.id is None:
            # Over HTTP a client has no notification to send: leaving is how it cancels.
            responder.respond(ACCEPTED)
            return None
        return self.take(permit, call, headers, _HttpSink(responder, request_id), request_id)

    def take(
        self,
        permit: Permit,
        call: Call,
        headers: Iterable[tuple[bytes, bytes]] | None,
        sink: Sink,
        request_id: str,
    ) -> Exchange | None:
        """One request, with its outcome to ``sink``. ``headers`` is None where there are none.

        Raises:
            GatewayError: the request is at fault; nothing was sent or answered.
        """
        checked = climb(call, headers).call
        if needs_tasks(checked) and not declares_tasks(checked.capabilities):
            # Before anything is said about whose task it is.
            raise MissingCapability(
                f"this {call.method} needs the tasks extension",
                required={"extensions": {TASKS_EXTENSION: {}}},
            )
        caller, spec = permit.principal.key_id, permit.entry.spec
        self._handles.check(caller, spec.id, checked)
        exchange = _ModernExchange(
            self._means,
            permit,
            self._seal.opened(caller, spec.id, checked),
            sink,
            manner=MODERN if spec.interactive else ANY_MANNER,
            request_id=request_id,
            endless=call.method == LISTEN,
        )
        mirrored = headers if headers is not None and call.method == _CALL else None
        exchange.handles = self._handles
        exchange.bind(self._seal, self._running, mirrored)
        exchange.start()
        return None if exchange.over else exchange


class _ModernExchange(Exchange):
    """Remembers what the answer hands out, and to whom."""

    __slots__ = ("_mirrored", "_running", "_seal")

    def bind(
        self,
        seal: StateSeal,
        running: set[_ModernExchange],
        mirrored: Iterable[tuple[bytes, bytes]] | None,
    ) -> None:
        """What it needs beside a call; ``running`` holds it until it is over. ``mirrored`` are the
        headers in which arguments of the call may be repeated."""
        self._seal = seal
        self._running = running
        self._mirrored = mirrored
        running.add(self)

    def end(self, error: GatewayError) -> None:
        """Stop, and tell both sides."""
        if not self.over:
            self.cancel(error.public)
            self.fail(error)

    def complete(self) -> None:
        """The orderly end of a subscription, by the gateway."""
        if not self.over and self.call.id is not None:
            self.cancel("the gateway is shutting down")
            meta = {SUBSCRIPTION_ID: Raw(self.call.id)}
            result = encode({"resultType": "complete", "_meta": meta})
            self.sink.answer(response(self.call.id, result))

    def run(self, lease: Lease) -> bool:
        handshake = lease.peer.handshake
        if handshake.era is not Era.MODERN:
            text = "the server was opened with a session"
            self._settle(EraNotSpoken(text, spoken=(handshake.version,)))
            return True
        params = self.call.params
        if self._mirrored is not None and params is not None:
            schema = mirrors.schema_of(lease.peer, params)
            # Who has not listed the tools must not get around the check by that.
            if schema is None and lease.peer.wait_for_tools(self._go_on):
                return True
            problem = mirrors.mismatch(schema, params, self._mirrored)
            if problem is not None:
                self._settle(HeaderMismatch(problem))
                return True
        return super().run(lease)

    def _go_on(self) -> None:
        """What there is to know of the tools is known."""
        if not self.over:
            self.ran = False
            self.start()

    def answered(self, message: bytes, upstream_id: int) -> None:
        caller, server_id = self.permit.principal.key_id, self.permit.entry.spec.id
        message = _between_hops(self._seal.sealed(caller, server_id, self.call, message))
        self._running.discard(self)
        super().answered(message, upstream_id)

    def fail(self, error: GatewayError) -> None:
        self._running.discard(self)
        super().fail(error)

    def cancel(self, reason: str) -> None:
        self._running.discard(self)
        super().cancel(reason)


class _HttpSink(DeferredSink):
    """Errors of the server that have a status of their own get it while that is possible."""

    __slots__ = ()

    def answer(self, data: bytes) -> None:
        self.answer_with(data, _status_of(data))

    def fail(self, error: GatewayError) -> None:
        super().fail(era_refusal(error))


def era_refusal(error: GatewayError) -> GatewayError:
    """For a server of the other era, an answer that makes a client of both fall back."""
    if not isinstance(error, EraNotSpoken):
        return error
    refusal = UnsupportedVersion(
        "this server does not speak the stateless protocol",
        supported=error.spoken,
        requested=LATEST_MODERN,
    )
    refusal.request_id = error.request_id
    return refusal


def _status_of(message: bytes) -> int:
    return _STATUS.get(_code_of(message), 200)


def _code_of(message: bytes) -> int:
    """The code of an error response, 0 for anything else."""
    if b'"error"' not in message:
        return 0
    try:
        error = _response.decode(message).error
    except msgspec.DecodeError:
        return 0
    return 0 if error is None else error.code


def _between_hops(message: bytes) -> bytes:
    """``message`` as it is, unless it is a refusal that is no business of the client's."""
    if _code_of(message) not in _BETWEEN_HOPS:
        return message
    text = "the server does not accept the request as the gateway words it"
    failed = _failed.decode(message)
    return error_response(bytes(failed.id), INTERNAL_ERROR, text, {"error": failed.error})
