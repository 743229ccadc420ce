"""One client's session of the handshake era, whatever transport carries it.

Spec: 2025-11-25 basic/lifecycle, and back to 2024-11-05. The transport hands in messages and takes
them out through a ``Sink`` per request and one ``Channel`` for everything that belongs to none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Raw

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.errors import Busy, InvalidRequest, NotFound
from open_mcp_gateway.outbound.peer import ANY_MANNER, Handshake, Manner, Question
from open_mcp_gateway.pipeline import narrowing, notices
from open_mcp_gateway.pipeline.agreement import for_upstream, manner_for, may_be_asked, string_in
from open_mcp_gateway.pipeline.attachment import Attachment
from open_mcp_gateway.pipeline.backlog import Backlog
from open_mcp_gateway.pipeline.endings import session_ended
from open_mcp_gateway.pipeline.errand import Errand, Means
from open_mcp_gateway.pipeline.exchange import Exchange
from open_mcp_gateway.pipeline.questions import Channel, Questions
from open_mcp_gateway.pipeline.remembered import REMEMBERED
from open_mcp_gateway.pipeline.reply import failure_of
from open_mcp_gateway.pipeline.session_exchange import Opening, RememberedExchange, SessionExchange
from open_mcp_gateway.pipeline.sink import Sink
from open_mcp_gateway.protocol.faults import INTERNAL_ERROR, METHOD_NOT_FOUND
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming, response
from open_mcp_gateway.supervisor.lease import Lease

MAX_RUNNING: Final = 1000
"""Requests of one session without an answer; more get Busy."""

_ITS_OWN: Final = frozenset({"ping", "initialize"})


class ClientSession:
    """What one client agreed on, what it has in flight, and what it is still to be told."""

    def __init__(self, means: Means, permit: Permit, session_id: str) -> None:
        self.means = means
        self.permit = permit
        self.session_id = session_id
        self.manner: Manner = ANY_MANNER
        self.handshake: Handshake | None = None
        """None until ``initialize`` was answered."""

        self.channel: Channel | None = None
        self.closed = False
        self.on_rest: Callable[[], None] | None = None
        """Called when the last request has its answer."""

        self.last_used_s = means.clock.monotonic()
        self.hung_up = False
        self._opening: Opening | None = None
        self._backlog = Backlog()
        self._running: dict[bytes, SessionExchange] = {}
        self._questions = Questions(means.clock)
        self.attachment = Attachment(self)

    @property
    def version(self) -> str:
        """The revision in force; before ``initialize`` the one that knew no header for it."""
        return "2025-03-26" if self.handshake is None else self.handshake.version

    # ── from the client ──────────────────────────────────────────────────────────────────────────

    def take(self, call: Call, sink: Sink, request_id: str) -> Errand | None:
        """Serve one request; what comes of it goes to ``sink``, maybe before this returns."""
        self.last_used_s = self.means.clock.monotonic()
        try:
            errand = self._errand(call, sink, request_id)
        except Exception as error:  # noqa: BLE001 - a boundary: there has to be an outcome
            sink.fail(failure_of(error, call.id, request_id))
            return None
        lease = self.attachment.lease
        if errand is not None:  # to look for the lease anew would take longer and find the same
            errand.start(lease if lease is not None and lease.serving else None)
        return None if errand is None or errand.over else errand

    def _errand(self, call: Call, sink: Sink, request_id: str) -> Errand | None:
        raw_id = call.id
        if raw_id is None:
            raise InvalidRequest("a request needs an id")
        if self.closed:
            raise NotFound("Session not found")
        if self.handshake is None or call.method in _ITS_OWN:
            return self._of_its_own(call, sink, request_id)
        if raw_id in self._running:
            raise InvalidRequest("this id is still in use by an earlier request of the session")
        if len(self._running) >= MAX_RUNNING:
            raise Busy("too many requests of this session are in flight", retry_after_s=1)
        means, permit, wish = self.means, self.permit, None
        means.handles.check(permit.principal.key_id, permit.entry.spec.id, call)
        if call.method in REMEMBERED:
            needed, wish = self.attachment.remember(call)
            if needed is None:
                sink.answer(response(raw_id, b"{}"))
                return None
            call = needed
        elif call.params is not None and "_meta" in call.params:
            call = for_upstream(call)
        kind = SessionExchange if wish is None else RememberedExchange
        exchange = kind(
            means, permit, call, sink, manner=self.manner, request_id=request_id, books=self
        )
        exchange.owner, exchange.share = self, None
        if wish is not None and isinstance(exchange, RememberedExchange):
            exchange.wish(wish)
        self._running[raw_id] = exchange
        return exchange

    def _of_its_own(self, call: Call, sink: Sink, request_id: str) -> Errand | None:
        """What no server is sent."""
        if call.method == "ping":
            sink.answer(response(call.id or b"null", b"{}"))
            return None
        if call.method != "initialize":
            raise InvalidRequest("send 'initialize' first")
        if self.handshake is not None or self._opening is not None:
            raise InvalidRequest("the session is initialized already")
        isolation = self.means.servers.isolation(self.permit)
        spec, params = self.permit.entry.spec, call.params or {}
        self.manner = manner_for(spec, params, self.session_id, isolation)
        self._opening = Opening(self, call, sink, request_id)
        return self._opening

    def notification(self, call: Call) -> None:
        """Pass on what concerns the server; what concerns a request goes under its upstream id."""
        self.last_used_s = self.means.clock.monotonic()
        if call.method == "notifications/cancelled":
            params = call.params or {}
            exchange = self._running.get(bytes(params.get("requestId", Raw(b""))))
            if exchange is not None:
                exchange.cancel(string_in(params, "reason") or "cancelled by the client")
        shared, handles = not self.manner.owner, self.means.handles
        if self.closed or not notices.passes(self.permit, handles, call, shared=shared):
            return
        lease = self.means.servers.lease(self.permit, self.manner)
        if lease is not None and self.handshake is not None:
            lease.peer.notify(self.permit, call)

    def answer(self, incoming: Incoming) -> None:
        """The client's response to a question; one to nothing that was asked is dropped."""
        self.last_used_s = self.means.clock.monotonic()
        self._questions.answer(incoming)
        self._go_on()

    def hang_up(self, *, tell: bool = False) -> None:
        """The client can say nothing any more; ``tell`` it so. It still hears of its calls."""
        self.hung_up = True
        self._questions.refuse_all(tell=tell)
        self.attachment.hold(None)  # for who only listens nothing is kept up
        self._go_on()

    # ── to the client ────────────────────────────────────────────────────────────────────────────

    @property
    def inflight(self) -> int:
        """How many of its requests have no answer yet."""
        return len(self._running)

    def deliver(self, message: bytes, *, urgent: bool) -> None:
        """Send what belongs to no request: on the channel, or with ``urgent`` on the stream of what
        is in flight; kept for a while when there is neither."""
        if not narrowing.may_hear(self.permit, message):
            return
        latest = self._latest()
        if latest is not None and (urgent or self.channel is None):
            latest.sign_of_life()  # a server that talks is at work
            latest.sink.message(message)
        else:
            self.leave_word(message)

    def _latest(self) -> SessionExchange | None:
        """The call that the server was sent last, of those in flight."""
        sent = (one for one in reversed(self._running.values()) if one.share is not None)
        return next(sent, None)

    def leave_word(self, message: bytes) -> None:
        """Send something on the channel, or keep it until there is one."""
        if self.channel is not None:
            self.channel(message)
        else:
            self._backlog.add(message)

    def open_channel(self, channel: Channel) -> None:
        """From now on there is a stream for what belongs to no request."""
        self.channel = channel
        for message in self._backlog.take():
            channel(message)

    def close_channel(self, channel: Channel) -> None:
        """That stream is gone."""
        self.last_used_s = self.means.clock.monotonic()
        if self.channel == channel:
            self.channel = None

    def pose(self, question: Question) -> None:
        """Ask the client something, under an id of this session."""
        self.pose_through(question, lambda message: self.deliver(message, urgent=True))

    def pose_through(self, question: Question, channel: Channel) -> None:
        """Ask the client something on a certain stream, if it said that it can be asked."""
        if self.closed or self.hung_up:
            question.refuse(INTERNAL_ERROR, "the client is gone")
            return
        if not may_be_asked(self.manner, question.method):
            question.refuse(METHOD_NOT_FOUND, "the client has not declared that capability")
            return
        self._questions.pose(question, channel)
        for exchange in self._running.values():
            exchange.wait_for_person()

    @property
    def asking(self) -> bool:
        """Whether the client is to answer something."""
        return len(self._questions) > 0

    def _go_on(self) -> None:
        if not self.asking:
            for exchange in self._running.values():
                exchange.sign_of_life()

    def withdraw(self, raw_id: bytes) -> None:
        """The server no longer wants an answer to its question of that id."""
        self._questions.withdraw(raw_id)
        self._go_on()

    def sweep(self, hold_open_before_s: float) -> None:
        """Called now and then: give up old questions, and keep the connections of those alive whose
        requests came before that moment."""
        self._questions.expire()
        for exchange in tuple(self._running.values()):
            if exchange.began_s < hold_open_before_s:
                exchange.hold_open()

    # ── the server side ──────────────────────────────────────────────────────────────────────────

    @property
    def level(self) -> str | None:
        """See ``Listener``."""
        return self.attachment.level

    @property
    def subscriptions(self) -> set[str]:
        """See ``Listener``."""
        return self.attachment.subscriptions

    def opened(self, lease: Lease) -> None:
        """See ``Owner``."""
        self._opening, self.handshake = None, lease.peer.handshake
        if not self.closed:
            self.attachment.attach(lease)

    def not_opened(self) -> None:
        """See ``Owner``. What was started for this client alone has no other use."""
        self._opening = None
        if self.manner.owner and self.handshake is None:
            self.means.servers.release(self.permit, self.manner)

    def rejoin(self) -> None:
        """A connection to its server has opened: if that is the session's own from now on, hear
        what comes on it without waiting for the client to call."""
        known = self.attachment.exists and not (self.closed or self.hung_up)
        lease = self.means.servers.lease(self.permit, self.manner) if known else None
        if lease is not None:
            self.attachment.attach(lease)
            self.attachment.hold(lease)

    def discard(self, exchange: Exchange, /) -> None:
        """See ``Owner``."""
        raw_id = exchange.call.id or b""
        found = self._running.get(raw_id)
        if found is exchange:
            del self._running[raw_id]
            share, found.share = found.share, None
            if share is not None:
                share.inflight -= 1

    def settled(self) -> None:
        """Told by sinks that nothing else waits for: one of its requests has its answer."""
        if self.on_rest is not None and not self._running:
            self.on_rest()

    def close(self, why: str = "its client is gone") -> None:
        """The session has ended for good: nothing of it stays. Safe to call twice."""
        if self.closed:
            return
        self.closed = True
        for waiting in (self._opening, *self._running.values()):
            if waiting is not None:
                waiting.end(session_ended(why))
        self._questions.refuse_all()
        self._backlog.take()
        self.attachment.leave()
        if self.manner.owner:
            self.means.servers.release(self.permit, self.manner)
