"""A server reached over HTTP, one POST per call: what both eras share.

Spec: 2026-07-28 basic/transports#streamable-http; 2025-11-25 basic/transports#streamable-http.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import anyio
from msgspec import UNSET

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.errors import Busy, GatewayError, InternalError
from open_mcp_gateway.outbound.answer import MAX_REDIRECTS, Reply, response_in
from open_mcp_gateway.outbound.http_call import HttpCall, Told
from open_mcp_gateway.outbound.link import Link
from open_mcp_gateway.outbound.own_request import OwnRequest
from open_mcp_gateway.outbound.peer import Audience, Handshake, Waiter
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming, Params
from open_mcp_gateway.protocol.mirrored import NOTHING, Fields
from open_mcp_gateway.protocol.responses import is_error

NO_ENDPOINT = frozenset({404, 405, 410})
"""Statuses that, without a JSON-RPC body, say that this is no endpoint of MCP (any more)."""

MAX_HELD_CALLS = 1024
"""Calls that wait while a session is opened anew; more get Busy."""

GOODBYE_S = 2.0
"""Bound on what is still said to a server while the gateway lets go of it."""


class HttpPeer:
    """What both eras share; a ``Peer`` once a subclass says how to word and read things."""

    def __init__(self, link: Link, handshake: Handshake) -> None:
        self.link = link
        self.handshake = handshake
        self._calls: dict[int, HttpCall] = {}
        self._last_id = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = math.inf
        self._ended: str | None = None
        self._closed = False
        self._listeners: list[Callable[[GatewayError], None]] = []
        self._audience: Audience | None = None
        self._held: dict[HttpCall, None] = {}
        """Calls that wait for something before they can be sent."""

    # What the eras differ in

    def word(self, call: HttpCall) -> None:
        """Set ``headers`` and ``body`` of a call."""
        raise NotImplementedError

    def word_notification(self, method: str, params: Params | None) -> bytes:
        """A notification as a whole POST."""
        raise NotImplementedError

    def withdraw(self, call: HttpCall, reason: str) -> None:  # noqa: ARG002 - for the other era
        """Stop the call by the era's rule; it has already left the books."""
        if call not in self._held:
            self.link.pool.withdraw(call)
        self._held.pop(call, None)

    def unasked(self, call: HttpCall, incoming: Incoming, message: bytes) -> None:
        """A notification or request that came on a call's stream."""
        raise NotImplementedError

    def received(self, call: HttpCall, answer: Incoming, message: bytes) -> None:  # noqa: ARG002 - for the other era
        """The answer under the call's id."""
        if self._calls.pop(call.id, None) is not None:
            call.waiter.answered(message, call.id)

    def resume(self, call: HttpCall) -> bool:  # noqa: ARG002 - for the other era
        """Go on with the call's event stream, which broke; False where that is impossible."""
        return False

    def overruled(self, call: HttpCall, reply: Reply, answer: Incoming | None) -> bool:  # noqa: ARG002 - for subclasses
        """Whether, by this response (status 400 and up), what was agreed on no longer holds, and
        the call has been seen to."""
        return False

    def misnumbered(self, call: HttpCall, answer: Incoming) -> None:
        """An answer to the POST of the call, but not under the call's id."""
        if answer.error is UNSET or answer.id == call.id or isinstance(answer.id, int):
            call.refuse("answered with the id of another call")
        elif not is_error(answer.error):
            call.refuse("answered with an error that is none")
        else:  # servers that could not read the id say null, or a word of their own
            self.answered(call, b'{"jsonrpc":"2.0","id":%d,"error":%b}' % (call.id, answer.error))

    def send(self, call: HttpCall) -> None:
        """Put the worded call on the wire.

        Raises:
            Busy: too much waits for this server.
        """
        call.request = self.link.post(call.headers, call.body)
        self.link.pool.submit(call)

    def ended(self) -> None:
        """The peer is of no more use: nothing may go on by itself."""

    async def goodbye(self, *, lost: bool) -> None:
        """Say to the server that it is over, unless it knows; bounded by the caller."""

    # Peer

    @property
    def inflight(self) -> int:
        return len(self._calls)

    @property
    def pid(self) -> None:
        return None

    def call(self, permit: Permit, call: Call, waiter: Waiter, *, deadline_s: float) -> HttpCall:
        """See ``Peer``."""
        self._check(permit)
        return self.start(call, waiter, deadline_s)

    def given_up_by_others(self, whose: str) -> bool:  # noqa: ARG002 - for the other era
        """See ``Peer``."""
        return False

    def notify(self, permit: Permit, call: Call) -> None:
        """See ``Peer``."""
        self._check(permit)
        if self._ended is None:
            self.tell(self.word_notification(call.method, call.params))

    @property
    def audience(self) -> Audience | None:
        return self._audience

    def attend(self, audience: Audience) -> None:
        """See ``Peer``."""
        self._audience = audience

    def mirrored(self, tool: str) -> Fields | None:  # noqa: ARG002 - for the other era
        """See ``Peer``."""
        return NOTHING

    def wait_for_tools(self, then: Callable[[], None]) -> bool:  # noqa: ARG002 - for the other era
        """See ``Peer``."""
        return False

    async def probe(self) -> None:
        """See ``Peer``."""
        own = OwnRequest(0, _nothing, self._loop.create_future())
        ticket = self.start(self.inquiry(), own, math.inf)
        try:
            await own.within(None)
        finally:
            ticket.cancel("the gateway no longer waits")

    def inquiry(self) -> Call:
        """What a probe asks."""
        raise NotImplementedError

    def on_lost(self, callback: Callable[[GatewayError], None]) -> None:
        """See ``Peer``."""
        if self._ended is None:
            self._listeners.append(callback)
        elif not self._closed:
            callback(self.link.broken(self._ended))

    async def aclose(self) -> None:
        """See ``Peer``."""
        if not self._closed:
            self._closed = True
            lost = self._ended is not None
            self._end("was stopped")
            with anyio.move_on_after(GOODBYE_S, shield=True):
                await self.goodbye(lost=lost)
        with anyio.move_on_after(GOODBYE_S, shield=True):
            await self.link.aclose()

    # The books

    def _check(self, permit: Permit) -> None:
        if permit.entry.spec.id != self.link.entry.spec.id:
            raise InternalError("a permit for one server was used on another")

    def start(self, call: Call, waiter: Waiter, deadline_s: float) -> HttpCall:
        """Send a request of a caller, or of the gateway's own.

        Raises:
            UpstreamUnavailable: the peer is already gone.
            Busy: too much waits for this server.
        """
        if self._ended is not None:
            raise self.link.unavailable("is not connected any more; call again")
        self._last_id += 1
        sent = HttpCall(self, call, waiter, self._last_id, deadline_s)
        self.word(sent)
        self.send(sent)
        self._calls[sent.id] = sent
        if deadline_s < self._timer_at_s:
            self._arm(deadline_s)
        return sent

    def awaits(self, call: HttpCall) -> bool:
        """Whether the call has no outcome yet."""
        return call.id in self._calls

    def hold(self, call: HttpCall) -> None:
        """Keep a call until ``release``.

        Raises:
            Busy: too many are kept already.
        """
        if len(self._held) >= MAX_HELD_CALLS:
            raise Busy(self.link.text("is being connected to; try again later"))
        self._held[call] = None

    def release(self) -> None:
        """Send what was kept."""
        held, self._held = self._held, {}
        for call in held:
            self.again(call)

    def forget(self, call: HttpCall) -> bool:
        """Take the call off the books; False when it is over already."""
        return self._calls.pop(call.id, None) is not None

    def answered(self, call: HttpCall, message: bytes) -> None:
        """The call has its answer."""
        if self._calls.pop(call.id, None) is not None:
            call.waiter.answered(message, call.id)

    def fail(self, call: HttpCall, error: GatewayError, *, at_work: bool = False) -> None:  # noqa: ARG002 - for the other era
        """The call will have no answer, though the server may still be ``at_work`` on it."""
        if self._calls.pop(call.id, None) is not None:
            call.waiter.failed(error)

    def replied(self, call: HttpCall, reply: Reply) -> None:
        """A whole response that is no event stream."""
        answer = response_in(reply.body)
        if reply.status < 400 or not self.overruled(call, reply, answer):
            self.concluded(call, reply, answer)

    def concluded(self, call: HttpCall, reply: Reply, answer: Incoming | None) -> None:
        """What a whole response is to its call, once what was agreed on is known to hold."""
        if answer is not None and answer.id == call.id:
            # Also with an error status: the body is the answer (2026-07-28 basic/transports).
            call.take(answer, reply.body)
        elif answer is not None:
            self.misnumbered(call, answer)
        elif call.redirects < MAX_REDIRECTS and self.link.follow(reply):
            call.redirects += 1
            self.again(call)
        else:
            call.unanswered(reply)

    def again(self, call: HttpCall) -> None:
        """Send a call that the server did not take once more."""
        if call.id not in self._calls:
            return
        try:
            self.send(call)
        except GatewayError as error:
            self.fail(call, error)

    def tell(self, message: bytes) -> None:
        """Send what needs no answer; best effort."""
        told = Told(self.link, message)
        try:
            self.link.pool.submit(told)
        except GatewayError:
            told.done()

    def lose(self, why: str) -> None:
        """The server cannot be used any more in the way agreed on; tell everybody."""
        if self._ended is not None:
            return
        self._end(why)
        for listener in self._listeners:
            listener(self.link.broken(why))

    def _end(self, why: str) -> None:
        if self._ended is None:
            self._ended = why
        self.ended()
        self._held.clear()
        self._arm(math.inf)
        for call in list(self._calls.values()):
            lost = call.lost(why)
            self.link.pool.withdraw(call)
            self.fail(call, lost)

    # Deadlines: one timer for all calls, set to the nearest of those it knew when it was set

    def watch(self, call: HttpCall) -> None:
        """A deadline has moved."""
        if call.deadline_s < self._timer_at_s and self.awaits(call):
            self._arm(call.deadline_s)

    def _arm(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_s = at_s
        self._timer = None if at_s == math.inf else self._loop.call_at(at_s, self._expire)

    def _expire(self) -> None:
        now_s = self._loop.time() + 0.001  # the loop's clock ticks in milliseconds
        due = [call for call in self._calls.values() if call.deadline_s <= now_s]
        for call in due:
            if self.forget(call):
                late = call.late()
                self.withdraw(call, "the deadline has passed")
                call.waiter.failed(late)
        self._timer = None
        self._arm(min((call.deadline_s for call in self._calls.values()), default=math.inf))


def _nothing(_upstream_id: int) -> None:
    """The ticket takes the request off the books."""


def version_header(version: str) -> bytes:
    """The header line that names the revision."""
    return b"MCP-Protocol-Version: %b\r\n" % version.encode()
