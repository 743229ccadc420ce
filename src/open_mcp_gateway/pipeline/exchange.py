"""One call between its caller and its server."""

from __future__ import annotations

import math
from typing import ClassVar, Protocol

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.errors import GatewayError, UpstreamBroken, UpstreamUnavailable
from open_mcp_gateway.outbound.link import DOUBT
from open_mcp_gateway.outbound.peer import Manner, Question, Ticket
from open_mcp_gateway.pipeline import narrowing
from open_mcp_gateway.pipeline.errand import Errand, Means
from open_mcp_gateway.pipeline.sink import Sink
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming, restore_id
from open_mcp_gateway.supervisor.lease import Lease


class Books(Protocol):
    """Where calls stand that are not over yet, such as a set."""

    def discard(self, exchange: Exchange, /) -> None:
        """It is over, if it was not before; nobody has heard of its outcome yet."""


class Exchange(Errand):
    """Sends a request and passes on all that comes of it; the peer's Waiter.

    ``lease.began`` and ``lease.ended`` stay in balance whatever happens, or the server could never
    idle.

    What a key is narrowed to is held to here, on the way out and on the way back: no request gets
    to a server without one of these, whichever face it came in by.

    Raises:
        GatewayError: the caller's key may not make this call; nothing was sent or started.
    """

    __slots__ = ("_again", "_books", "_latest_s", "call", "lease", "sink", "ticket")

    refines: ClassVar[bool] = False
    """Whether ``_held_back`` and ``_refined`` do anything: a look costs less than a call."""

    def __init__(
        self,
        means: Means,
        permit: Permit,
        call: Call,
        sink: Sink,
        *,
        manner: Manner,
        request_id: str,
        books: Books,
        endless: bool = False,
    ) -> None:
        narrowing.check(permit, call)
        super().__init__(means, permit, manner, request_id)
        self.call = call
        self.sink = sink
        self._books = books
        self.lease: Lease | None = None
        self.ticket: Ticket | None = None
        self._again = False
        """It was begun a second time."""
        self._latest_s = math.inf if endless else self.began_s + means.max_request_s

    @property
    def whose(self) -> str:
        """See ``Waiter``: calls without a session belong to the key."""
        return self.permit.principal.key_id

    def _held_back(self, lease: Lease) -> bool:  # noqa: ARG002 - for subclasses
        """Whether the call is not sent, because it was answered instead, or goes on by itself."""
        return False

    def _refined(self, message: bytes) -> bytes:
        """The response of the server as it goes on from here."""
        return message

    def run(self, lease: Lease) -> bool:
        if self.refines and self._held_back(lease):
            return True
        endless = self._latest_s == math.inf
        try:
            ticket = lease.peer.call(
                self.permit,
                self.call,
                self,
                deadline_s=math.inf if endless else self.deadline_s,
            )
        except UpstreamUnavailable:
            return False
        except GatewayError as error:
            holder = self.permit.principal.holder
            lease.began(holder)
            lease.ended(holder, failed=True)
            self._settle(error)
            return True
        # Only now: what began must end, and the outcome never comes from inside ``call``.
        lease.began(self.permit.principal.holder)
        self.lease = lease
        self.ticket = ticket
        return True

    def answered(self, message: bytes, upstream_id: int) -> None:
        self._books.discard(self)
        self._end(failed=False)
        if not self.over and self.call.id is not None:
            if self.refines:
                message = self._refined(message)
            caller, server_id = self.permit.principal.key_id, self.permit.entry.spec.id
            message = self.means.handles.passed_on(caller, server_id, self.call, message)
            message = narrowing.shown(self.permit, self.call.method, message)
            message = restore_id(message, upstream_id, self.call.id)
            self.over = True
            try:
                self.sink.answer(message)
            except Exception:
                self.over = False  # whoever handed it on says that it failed
                raise

    def _may_go_on(self, error: GatewayError) -> bool:
        """The server is not what it was when it was reached: what it is now says whether there is
        an answer for this caller. No other failure is proof that nothing was done."""
        untaken = isinstance(error, UpstreamUnavailable) and error.untaken
        return untaken and not (self._again or self.over)

    def failed(self, error: GatewayError) -> None:
        if self._may_go_on(error):
            self._again = True
            self._end(failed=True)
            self._go_on()
            return
        self._end(failed=True, cause=error.public if isinstance(error, UpstreamBroken) else None)
        self._settle(error)

    def _go_on(self) -> None:
        """Begin again, with nothing sent."""
        if not self.over:
            self.ran = False
            self.start()

    def related(self, message: bytes, incoming: Incoming) -> None:  # noqa: ARG002 - as Waiter's
        if not self.over:
            self.sign_of_life()
            if narrowing.may_hear(self.permit, message):
                self.sink.message(message)

    def asked(self, question: Question) -> None:
        self.sink.asked(question)

    def idle_s(self) -> float:
        """How long the server may be silent."""
        return self.means.timeout_s(self.permit)

    def sign_of_life(self) -> None:
        """Something moves: the idle limit begins anew, the absolute one does not."""
        if self.ticket is not None and self._latest_s != math.inf:
            wanted_s = self.means.clock.monotonic() + self.idle_s()
            self.ticket.extend(min(wanted_s, max(self._latest_s, self.deadline_s)))

    def allow_until(self, moment_s: float) -> None:
        """Put the absolute limit off to ``moment_s``, if that is later."""
        self._latest_s = max(self._latest_s, moment_s)

    def fail(self, error: GatewayError) -> None:
        self._books.discard(self)
        error.request_id = self.call.id
        self.sink.fail(error)

    def _end(self, *, failed: bool, cause: str | None = None) -> None:
        lease, self.lease = self.lease, None
        self.ticket = None  # it refers back here
        if lease is not None:
            lease.ended(self.permit.principal.holder, failed=failed, cause=cause)

    def _call_off(self, ticket: Ticket, reason: str) -> None:
        """The server need not work on it any more."""
        ticket.cancel(reason)

    def abandon(self) -> None:
        """Nobody can receive the answer any more: the server may stop working on it."""
        self.cancel("client disconnected")

    def end(self, error: GatewayError) -> None:
        """Stop, and say why to both sides; what was sent may have taken effect."""
        if not self.over:
            reason = error.public
            if self.ticket is not None and self._latest_s != math.inf:
                error.public += DOUBT
            Exchange.cancel(self, reason)  # whatever else cancelling does: this is another end
            self.fail(error)

    def cancel(self, reason: str) -> None:
        """Stop, and tell the server by its era's rule. Nothing more comes out of here."""
        if self.over:
            return
        self._books.discard(self)
        super().abandon()
        if self.ticket is not None:
            self._call_off(self.ticket, reason)
        self._end(failed=True)  # not a sign of life: the server never answered
