"""The requests of a session: calls, and the ``initialize`` that opens it."""

from __future__ import annotations

from typing import Protocol

from msgspec import UNSET

from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.outbound.peer import Manner, Question, Ticket
from open_mcp_gateway.outbound.relation import LOGGED
from open_mcp_gateway.pipeline.agreement import other_era
from open_mcp_gateway.pipeline.errand import Errand
from open_mcp_gateway.pipeline.exchange import Exchange
from open_mcp_gateway.pipeline.hub import Listener, Share
from open_mcp_gateway.pipeline.memory import Memory
from open_mcp_gateway.pipeline.questions import ANSWER_S
from open_mcp_gateway.pipeline.sink import Sink, Waiting
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.faults import INTERNAL_ERROR
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming, decode_incoming, response
from open_mcp_gateway.supervisor.lease import Lease


class Attached(Protocol):
    """The session's place on its server's connection."""

    def share(self, lease: Lease) -> Share:
        """Where calls on this connection are counted."""

    def memory(self, lease: Lease) -> Memory:
        """What this connection's server remembers."""

    def wants(self, logged: Incoming) -> bool:
        """Whether the session wants to hear of a log message."""


class Wish(Protocol):
    """What a session wants its server to remember."""

    def sent(self, call: Call, memory: Memory) -> Call:
        """It is sent now, in these words. Once more only after it was ``settled``."""

    def heard(self, *, done: bool) -> None:
        """The client hears that it is done, or else not: called once, whatever comes later."""

    def settled(self, *, done: bool | None) -> None:
        """Whether the server has done it; None: nobody can tell."""


class Owner(Listener, Protocol):
    """The session, as its requests see it."""

    manner: Manner
    hung_up: bool
    """Its client can say nothing any more."""

    @property
    def asking(self) -> bool:
        """Whether its client is to answer something."""

    @property
    def attachment(self) -> Attached: ...

    def discard(self, exchange: Exchange, /) -> None:
        """The call is over and counted no more."""

    def opened(self, lease: Lease) -> None:
        """``initialize`` is about to have its answer."""

    def not_opened(self) -> None:
        """It will have none that opens the session."""


class SessionExchange(Exchange):
    """A call of a session, which is in its books. Started once ``owner`` and ``share`` are set."""

    __slots__ = ("owner", "share")

    owner: Owner
    share: Share | None
    """Where it is counted while it is in flight."""

    @property
    def whose(self) -> str:
        """See ``Waiter``: a session keeps its own calls apart."""
        return self.owner.session_id

    def run(self, lease: Lease) -> bool:
        share = self.share = self.owner.attachment.share(lease)
        share.inflight += 1
        if super().run(lease):
            return True
        self.share = None
        share.inflight -= 1
        return False

    def _go_on(self) -> None:
        share, self.share = self.share, None
        if share is not None:
            share.inflight -= 1
        super()._go_on()

    def related(self, message: bytes, incoming: Incoming) -> None:
        if incoming.method != LOGGED or self.owner.attachment.wants(incoming):
            super().related(message, incoming)
        else:
            self.sign_of_life()

    def cancel(self, reason: str) -> None:
        """The client wants no answer any more: it gets none."""
        if not self.over:
            super().cancel(reason)
            if isinstance(self.sink, Waiting):
                self.sink.dropped()

    def hold_open(self) -> None:
        """It takes long: keep the connection of whoever waits for it alive."""
        if isinstance(self.sink, Waiting):
            self.sink.hold_open()

    def asked(self, question: Question) -> None:
        if self.over:
            question.refuse(INTERNAL_ERROR, "the call is over")
        else:
            super().asked(question)

    def idle_s(self) -> float:
        """Longer while a person is to answer something."""
        return ANSWER_S if self.owner.asking else super().idle_s()

    def wait_for_person(self) -> None:
        """A person's time is not the server's: it counts against neither of its limits."""
        self.allow_until(self.means.clock.monotonic() + ANSWER_S)
        self.sign_of_life()


class RememberedExchange(SessionExchange):
    """A call by which a server remembers something. Started once it is told what is wished.

    It is never called off at the server, and its outcome counts whether anybody waits or not:
    nobody could tell what the server remembers then.
    """

    __slots__ = ("_heard", "_wish")

    def wish(self, wish: Wish) -> None:
        """What is wanted by it."""
        self._wish = wish
        self._heard = False

    def run(self, lease: Lease) -> bool:
        self.call = self._wish.sent(self.call, self.owner.attachment.memory(lease))
        try:
            return super().run(lease)
        finally:
            if self.ticket is None:  # it was not sent after all
                self._wish.settled(done=False)

    def answered(self, message: bytes, upstream_id: int) -> None:
        done = decode_incoming(message).error is UNSET
        self._hear(done=done)
        self._wish.settled(done=done)
        super().answered(message, upstream_id)

    def failed(self, error: GatewayError) -> None:
        if not self._may_go_on(error):
            self._hear(done=False)
        self._wish.settled(done=None)
        super().failed(error)

    def fail(self, error: GatewayError) -> None:
        self._hear(done=False)
        super().fail(error)

    def cancel(self, reason: str) -> None:
        self._hear(done=False)
        super().cancel(reason)

    def _call_off(self, ticket: Ticket, reason: str) -> None: ...

    def _hear(self, *, done: bool) -> None:
        if not self._heard:
            self._heard = True
            self._wish.heard(done=done)


class Opening(Errand):
    """``initialize``: the server's own handshake, in the client's manner, is the answer."""

    __slots__ = ("_call", "_owner", "_sink")

    def __init__(self, owner: Owner, call: Call, sink: Sink, request_id: str) -> None:
        super().__init__(owner.means, owner.permit, owner.manner, request_id)
        # What starts here may be this client's alone, so that nobody gains if it starts in vain.
        self.deadline_s += owner.means.start_timeout_s
        self._owner = owner
        self._call = call
        self._sink = sink

    def run(self, lease: Lease) -> bool:
        handshake = lease.peer.handshake
        if handshake.era is not Era.LEGACY:
            self._settle(other_era(self._call.params or {}, (handshake.version,)))
            return True
        self.over = True
        holder = self.permit.principal.holder
        lease.began(holder)
        self._owner.opened(lease)
        lease.ended(holder, failed=False)
        self._sink.answer(response(self._call.id or b"null", handshake.result))
        return True

    def fail(self, error: GatewayError) -> None:
        self._owner.not_opened()
        spoken = getattr(error, "spoken", None)
        if spoken is not None:
            error = other_era(self._call.params or {}, spoken)
        error.request_id = self._call.id
        self._sink.fail(error)

    def abandon(self) -> None:
        if not self.over:
            self._owner.not_opened()
        super().abandon()

    def end(self, error: GatewayError) -> None:
        """Stop waiting, and say so to the client."""
        if not self.over:
            self.abandon()
            self.fail(error)
