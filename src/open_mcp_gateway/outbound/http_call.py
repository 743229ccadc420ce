"""One call over HTTP: the POST that carries it and the answer, or the stream up to the answer.

Spec: 2026-07-28 basic/transports#streamable-http; 2025-11-25 basic/transports#streamable-http.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, final

from msgspec import UNSET

from open_mcp_gateway.errors import (
    GatewayError,
    MalformedMessage,
    UpstreamBroken,
    UpstreamTimeout,
)
from open_mcp_gateway.outbound.answer import Collecting, Reply, is_response, read_message
from open_mcp_gateway.outbound.http_exchange import Drain, Fault
from open_mcp_gateway.outbound.inflight import not_handed_on
from open_mcp_gateway.outbound.link import DOUBT, Link
from open_mcp_gateway.outbound.peer import Waiter
from open_mcp_gateway.outbound.salvage import members_of_batch
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming
from open_mcp_gateway.protocol.responses import Unsound, sound

SAFE_METHODS = frozenset(
    {
        "ping",
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
    }
)
"""Requests that only read: the ones that may ever be sent a second time."""

TOLD_S = 30.0
"""How long the response to a notification may keep its connection busy."""


class Books(Protocol):
    """The peer of a call, as the call sees it."""

    link: Link

    def forget(self, call: HttpCall) -> bool:
        """Take the call off the books; False when it is over already."""

    def awaits(self, call: HttpCall) -> bool:
        """Whether the call has no outcome yet."""

    def watch(self, call: HttpCall) -> None:
        """Its deadline has moved."""

    def withdraw(self, call: HttpCall, reason: str) -> None:
        """Stop the call by the era's rule; it has already left the books."""

    def unasked(self, call: HttpCall, incoming: Incoming, message: bytes) -> None:
        """A notification or request that came on its stream."""

    def received(self, call: HttpCall, answer: Incoming, message: bytes) -> None:
        """The answer under its id."""

    def replied(self, call: HttpCall, reply: Reply) -> None:
        """A whole response that is no event stream."""

    def resume(self, call: HttpCall) -> bool:
        """Go on with its event stream, which broke; False where that is impossible."""

    def fail(self, call: HttpCall, error: GatewayError, *, at_work: bool = False) -> None:
        """It will have no answer, though the server may still be ``at_work`` on it."""


@final
class HttpCall(Collecting):
    """One call in flight: the exchange that carries it, and the ticket of whoever made it."""

    __slots__ = (
        "body",
        "call",
        "deadline_s",
        "headers",
        "id",
        "peer",
        "redirects",
        "repaired",
        "resumption",
        "session",
        "waiter",
    )

    def __init__(
        self, peer: Books, call: Call, waiter: Waiter, call_id: int, deadline_s: float
    ) -> None:
        super().__init__(
            b"",
            replayable=call.method in SAFE_METHODS,
            max_bytes=peer.link.settings.max_message_bytes,
        )
        self.peer = peer
        self.call = call
        self.waiter = waiter
        self.id = call_id
        self.deadline_s = deadline_s
        self.headers = b""
        self.body = b""
        self.redirects = 0
        self.repaired = False
        """It was worded anew once because the server did not take it as it was."""
        self.session: object = None
        """The session the call was last sent in, where there are sessions."""
        self.resumption: Resumption | None = None

    def extend(self, deadline_s: float) -> None:
        """See ``Ticket``."""
        self.deadline_s = deadline_s
        self.peer.watch(self)

    def cancel(self, reason: str) -> None:
        """See ``Ticket``."""
        if self.peer.forget(self):
            self.peer.withdraw(self, reason)

    def complete(self, reply: Reply) -> None:
        try:
            self.peer.replied(self, reply)
        except Exception as error:  # noqa: BLE001 - a boundary: nothing else ends the call now
            self._mishap(error)

    def event(self, data: bytes) -> bool:
        try:
            return self._event(data)
        except Exception as error:  # noqa: BLE001 - a boundary: as above
            self.peer.link.pool.withdraw(self)
            self._mishap(error)
            return False

    def _mishap(self, error: Exception) -> None:
        """It may be off the books already, with nobody told."""
        self.peer.forget(self)
        self.waiter.failed(not_handed_on(error, self.peer.link.entry.spec.id))

    def take(self, answer: Incoming, message: bytes) -> None:
        """A response under its id: the answer, if it is one of JSON-RPC 2.0."""
        try:
            message = sound(answer, message, self.id)
        except Unsound as flaw:
            self.peer.fail(self, self.peer.link.broken(f"{flaw}{DOUBT}"))
        else:
            self.peer.received(self, answer, message)

    def _event(self, data: bytes) -> bool:
        try:
            incoming = read_message(data)
        except MalformedMessage:
            members = members_of_batch(data)
            if not members:
                self.refuse("sent an event that is not a JSON-RPC message")
            return bool(members) and all(map(self._event, members))
        if incoming.method is not UNSET:
            self.peer.unasked(self, incoming, data)
            return self.peer.awaits(self)
        if incoming.id != self.id:  # an answer to nothing we asked here
            return True
        if not is_response(incoming):
            self.refuse("sent a response that is not one of JSON-RPC 2.0")
            return False
        self.peer.link.pool.settled(self)
        self.take(incoming, data)
        return False

    def cut(self) -> None:
        if not self.peer.resume(self):
            self.peer.fail(
                self,
                self.peer.link.broken(f"ended its event stream without an answer{DOUBT}"),
                at_work=True,
            )

    def refuse(self, text: str) -> None:
        self.peer.link.pool.withdraw(self)
        self.peer.fail(self, self.peer.link.broken(text + DOUBT), at_work=True)

    def unanswered(self, reply: Reply) -> None:
        """A whole response that is no answer; after a refusal nothing can have been done."""
        batch = members_of_batch(reply.body) if reply.status < 300 else []
        if not all(map(self._event, batch)):
            return
        error = self.peer.link.failure(reply)
        in_doubt = isinstance(error, UpstreamBroken) and not 300 <= reply.status < 500
        if in_doubt:
            error = UpstreamBroken(error.public + DOUBT)
        self.peer.fail(self, error, at_work=in_doubt)

    @property
    def unsent(self) -> bool:
        """It still waits for a session or a connection; a call whose event stream is being picked
        up again was sent before, whatever waits now."""
        waits = not self.request or self.peer.link.pool.waits(self)
        return waits and self.resumption is None

    def lost(self, why: str) -> UpstreamBroken:
        """What the end of its peer ends it with."""
        return self.peer.link.broken(why if self.unsent else why + DOUBT)

    def late(self) -> UpstreamTimeout:
        """What its deadline ends it with."""
        link, method = self.peer.link, self.call.method
        if self.unsent:
            return UpstreamTimeout(link.text(f"could not be sent {method!r} in time"))
        return UpstreamTimeout(link.text(f"did not answer {method!r} in time{DOUBT}"))

    def fell(self, fault: Fault) -> None:
        resuming = self.resumption is not None
        if (self.streaming or resuming) and self.peer.resume(self):
            return
        link = self.peer.link
        # What befell the attempt to go on is no word about the call, which was sent before it.
        error = link.broken(fault.text + DOUBT) if resuming else link.call_error(fault)
        self.peer.fail(self, error, at_work=resuming or fault.sent)


class Resumption:
    """The attempts to go on with an event stream that broke before the answer."""

    __slots__ = ("attempts", "event_id", "retry_ms")

    def __init__(self) -> None:
        self.event_id = ""
        self.attempts = 0
        """Since the last event."""
        self.retry_ms: int | None = None


class Told(Drain):
    """A notification or a reply of ours: nobody waits for the response."""

    __slots__ = ("_timer",)

    def __init__(self, link: Link, message: bytes) -> None:
        super().__init__()
        self.request = message
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(TOLD_S, link.pool.withdraw, self)

    def done(self) -> None:
        self._timer.cancel()

    def fell(self, fault: Fault) -> None:  # noqa: ARG002 - best effort
        self._timer.cancel()
