"""Requests of the stateless era to a server of that era.

Spec: 2026-07-28. Nothing is kept between requests but who was given which handle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Raw, Struct

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.errors import (
    EraNotSpoken,
    GatewayError,
    HeaderMismatch,
    MissingCapability,
    UnsupportedVersion,
)
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner, Peer
from open_mcp_gateway.outbound.relation import LISTEN, SUBSCRIPTION_ID
from open_mcp_gateway.outbound.tools import CALL
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.exchange import Exchange
from open_mcp_gateway.pipeline.handles import MAY_NEED_TASKS, needs_tasks
from open_mcp_gateway.pipeline.sink import HOLD_OPEN_S, DeferredSink, Sink, Waiting
from open_mcp_gateway.pipeline.states import STATE, UNSTATED, StateSeal
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
from open_mcp_gateway.protocol.mirrored import Fields, check
from open_mcp_gateway.protocol.routing import Routing
from open_mcp_gateway.protocol.surrogates import Lenient
from open_mcp_gateway.supervisor.lease import Lease

MODERN: Final = Manner(era=Era.MODERN)

TASKS_EXTENSION: Final = "io.modelcontextprotocol/tasks"

_STATUS: Final = {MISSING_CLIENT_CAPABILITY: 400, METHOD_NOT_FOUND: 404}
"""HTTP status of errors that come from the server, where it is not 200 (basic/transports)."""

_BETWEEN_HOPS: Final = frozenset({HEADER_MISMATCH, UNSUPPORTED_VERSION})
"""What a server says of the gateway's own headers and revision. Passed on, the client would take it
for a word about its own."""

_ERROR: Final = b'"error"'
"""What is in every error response, and in few others."""


class _Error(Struct):
    code: int = 0


class _Response(Struct):
    error: _Error | None = None


class _Failed(Struct):
    id: Raw
    error: Raw


class _Capabilities(Struct):
    extensions: dict[str, Raw] = msgspec.field(default_factory=dict)


_response = Lenient(_Response)
_failed = Lenient(_Failed)
_capabilities = Lenient(_Capabilities)


def declares_tasks(capabilities: bytes | None) -> bool:
    """Whether a caller with these capabilities knows the tasks extension."""
    try:
        return TASKS_EXTENSION in _capabilities.decode(capabilities or b"{}").extensions
    except msgspec.DecodeError:
        return False


class ModernFace:
    """Serves stateless requests, over HTTP and stdio alike."""

    def __init__(self, means: Means, seal: StateSeal) -> None:
        self._means = means
        self._seal = seal
        self._running: set[_ModernExchange] = set()

    def end_if(self, loss: Callable[[Permit], GatewayError | None]) -> None:
        """End what is in flight where ``loss`` says why its caller may not hear of it any more."""
        for exchange in tuple(self._running):
            error = loss(exchange.permit)
            if error is not None:
                exchange.end(error)

    def sweep(self) -> None:
        """Called now and then: keep the connections of those alive that wait for long."""
        oldest_s = self._means.clock.monotonic() - HOLD_OPEN_S
        for exchange in self._running:
            if exchange.began_s < oldest_s and isinstance(exchange.sink, Waiting):
                exchange.sink.hold_open()

    def end_listening(self, lease: Lease | None = None) -> None:
        """End the subscriptions that ``lease`` serves, or all; their clients subscribe anew."""
        for exchange in tuple(self._running):
            if exchange.call.method == LISTEN and lease in (None, exchange.lease):
                exchange.complete()

    def take(
        self, permit: Permit, call: Call, sent: Routing | None, sink: Sink, request_id: str
    ) -> Exchange:
        """``check`` and ``begin`` in one."""
        return self.begin(permit, self.check(permit, call, sent), sent, sink, request_id)

    def check(self, permit: Permit, call: Call, sent: Routing | None) -> Call:
        """``call`` as it goes on; ``sent`` is None without headers.

        Raises:
            GatewayError: the request is at fault.
        """
        checked = climb(call, sent)
        if (
            checked.method in MAY_NEED_TASKS
            and needs_tasks(checked)
            and not declares_tasks(checked.capabilities)
        ):
            # Before anything is said about whose task it is.
            raise MissingCapability(
                f"this {call.method} needs the tasks extension",
                required={"extensions": {TASKS_EXTENSION: {}}},
            )
        caller, spec = permit.principal.key_id, permit.entry.spec
        self._means.handles.check(caller, spec.id, checked)
        if not UNSTATED.issuperset(checked.params or ()):
            checked = self._seal.opened(caller, spec.id, checked)
        return checked

    def begin(
        self,
        permit: Permit,
        call: Call,
        sent: Routing | None,
        sink: Sink,
        request_id: str,
        *,
        lease: Lease | None = None,
    ) -> Exchange:
        """A request that was checked, with its outcome to ``sink``, maybe before this returns.

        ``lease`` is what an earlier request under the permit was served by, if that still serves.

        Raises:
            GatewayError: the request is at fault; nothing was sent or answered.
        """
        exchange = _ModernExchange(
            self._means,
            permit,
            call,
            sink,
            manner=MODERN if permit.entry.spec.interactive else ANY_MANNER,
            request_id=request_id,
            books=self._running,
            endless=call.method == LISTEN,
        )
        exchange.seal = self._seal
        exchange.mirrored = sent if call.method == CALL else None
        self._running.add(exchange)
        exchange.start(lease)
        return exchange


class _ModernExchange(Exchange):
    """Remembers what the answer hands out, and to whom. Started once ``seal`` and ``mirrored`` are
    set: the headers in which arguments of the call may be repeated, None where there are none."""

    __slots__ = ("mirrored", "seal")

    refines = True
    seal: StateSeal
    mirrored: Routing | None

    def complete(self) -> None:
        """The orderly end of a subscription (basic/utilities/subscriptions)."""
        if not self.over and self.call.id is not None:
            self.cancel("the subscription is over")
            meta = {SUBSCRIPTION_ID: Raw(self.call.id)}
            result = encode({"resultType": "complete", "_meta": meta})
            self.sink.answer(response(self.call.id, result))

    def _held_back(self, lease: Lease) -> bool:
        handshake = lease.peer.handshake
        if handshake.era is not Era.MODERN:
            text = "the server was opened with a session"
            self._settle(EraNotSpoken(text, spoken=(handshake.version,)))
            return True
        sent = self.mirrored
        if sent is None:
            return False
        fields = lease.peer.mirrored(sent.name or "")  # the tool's: rung 2 has compared them
        # Most tools have none; not known is another thing.
        return (fields is None or bool(fields)) and self._waits_or_fails(lease.peer, sent, fields)

    def _waits_or_fails(self, peer: Peer, sent: Routing, fields: Fields | None) -> bool:
        """Whether headers do not fit the arguments (server/tools#x-mcp-header), or it is yet to be
        found out which must. Over whatever transport: clients have seen the schema too, and who has
        not listed the tools must not get around the check by that."""
        if fields is None:
            return peer.wait_for_tools(self._go_on)
        problem = check(fields, (self.call.params or {}).get("arguments"), sent.headers)
        if problem is not None:
            self._settle(HeaderMismatch(problem))
        return problem is not None

    def _refined(self, message: bytes) -> bytes:
        # Not ``in``, which tries for a number first and so takes twice as long.
        if message.find(STATE) < 0 and message.find(_ERROR) < 0:
            return message
        caller, server_id = self.permit.principal.key_id, self.permit.entry.spec.id
        message = self.seal.sealed(caller, server_id, self.call, message)
        if _ERROR in message:
            message = _between_hops(message)
            if isinstance(self.sink, DeferredSink):
                self.sink.status = _STATUS.get(_code_of(message), 200)
        return message


class HttpSink(DeferredSink):
    """Errors of the server that have a status of their own get it while that is possible."""

    __slots__ = ()

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


def _code_of(message: bytes) -> int:
    """The code of an error response, 0 for anything else."""
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
