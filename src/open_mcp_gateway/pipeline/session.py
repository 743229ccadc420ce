"""One client's session of the handshake era, whatever transport carries it.

Spec: 2025-11-25 basic/lifecycle, and back to 2024-11-05. The transport hands in messages and takes
them out through a ``Sink`` per request and one ``Channel`` for everything that belongs to none.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.errors import Busy, InvalidParams, InvalidRequest, NotFound
from open_mcp_gateway.outbound.peer import ANY_MANNER, Handshake, Manner, Peer, Question
from open_mcp_gateway.pipeline import narrowing, notices
from open_mcp_gateway.pipeline.agreement import for_upstream, manner_for, may_be_asked, string_in
from open_mcp_gateway.pipeline.backlog import Backlog
from open_mcp_gateway.pipeline.errand import Errand, Means
from open_mcp_gateway.pipeline.hub import LEVELS, Hub
from open_mcp_gateway.pipeline.questions import Channel, Questions
from open_mcp_gateway.pipeline.reply import failure_of
from open_mcp_gateway.pipeline.session_exchange import Agreement, Opening, SessionExchange, Then
from open_mcp_gateway.pipeline.sink import Sink
from open_mcp_gateway.protocol.faults import INTERNAL_ERROR, METHOD_NOT_FOUND
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming, response
from open_mcp_gateway.supervisor.lease import Lease

MAX_RUNNING: Final = 1000
"""Requests of one session without an answer; more get Busy."""

MAX_SUBSCRIPTIONS: Final = 1000

_OUTSIDE: Final = frozenset({"initialize", "ping"})
_REMEMBERED: Final = frozenset({"logging/setLevel", "resources/subscribe", "resources/unsubscribe"})


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
        self.level: str | None = None
        self.subscriptions: set[str] = set()
        self.closed = False
        self.last_used_s = means.clock.monotonic()
        self._hung_up = False
        self._opening: Opening | None = None
        self._backlog = Backlog()
        self._running: dict[bytes, SessionExchange] = {}
        self._questions = Questions(means.clock)
        self._hub: Hub | None = None
        self.attached: Lease | None = None
        """Whose server ``_hub`` listens to."""

        self._holding: Lease | None = None

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
        if errand is None:
            return None
        lease = self.attached
        errand.start(lease if lease is not None and lease.serving else None)
        return None if errand.over else errand

    def _errand(self, call: Call, sink: Sink, request_id: str) -> Errand | None:
        raw_id = call.id
        if raw_id is None:
            raise InvalidRequest("a request needs an id")
        if self.closed:
            raise NotFound("Session not found")
        if self.handshake is None or call.method in _OUTSIDE:
            return self._outside(call, raw_id, sink, request_id)
        if raw_id in self._running:
            raise InvalidRequest("this id is still in use by an earlier request of the session")
        if len(self._running) >= MAX_RUNNING:
            raise Busy("too many requests of this session are in flight", retry_after_s=1)
        self.means.handles.check(self.permit.principal.key_id, self.permit.entry.spec.id, call)
        kind, then = SessionExchange, None
        if call.params is not None and "_meta" in call.params:
            call = for_upstream(call)  # may refuse, so that nothing is remembered of it
        if call.method in _REMEMBERED:
            agreed = self._agreed(call)
            if agreed is None:
                sink.answer(response(raw_id, b"{}"))
                return None
            kind, (call, then) = Agreement, agreed
        exchange = kind(
            self.means,
            self.permit,
            call,
            sink,
            manner=self.manner,
            request_id=request_id,
            books=self._running,
            key=raw_id,
        )
        exchange.owner, exchange.then = self, then
        return exchange

    def _outside(self, call: Call, raw_id: bytes, sink: Sink, request_id: str) -> Errand | None:
        """What is no call to the server within the session."""
        if call.method == "ping":
            sink.answer(response(raw_id, b"{}"))
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

    def _agreed(self, call: Call) -> tuple[Call, Then | None] | None:
        """What is to be sent, and who hears whether the server did it; None where it must not or
        need not hear of it, because other sessions share its connection."""
        narrowing.check(self.permit, call)  # before the session remembers anything of it
        params, then = call.params or {}, None
        if call.method == "logging/setLevel":
            level = string_in(params, "level")
            if level not in LEVELS:
                raise InvalidParams(f"'params.level' must be one of {', '.join(LEVELS)}")
            needed = level if self._hub is None else self._hub.needed_level(level)
            if needed is None:
                self.level = level
                return None
            params = {**params, "level": _raw(needed)}
            call = Call(call.method, call.id, params, progress_token=call.progress_token)
            then = self._levelled(level, needed)
        elif call.method == "resources/subscribe":
            then = self._subscribe(string_in(params, "uri"))
        elif self._unsubscribe(string_in(params, "uri")):
            return None
        return call, then

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

    def hang_up(self) -> None:
        """The client can say nothing any more, but still hears what comes of its calls."""
        self._hung_up = True
        self._questions.refuse_all()
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
        return next((one for one in reversed(self._running.values()) if one.lease), None)

    def in_flight_on(self, peer: Peer) -> int:
        """See ``Listener``."""
        leases = (one.lease for one in self._running.values())
        return sum(lease is not None and lease.peer is peer for lease in leases)

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
        if self.closed or self._hung_up:
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

    # ── what several sessions of one connection must not change for each other ───────────────────

    def _levelled(self, wanted: str, asked_for: str) -> Then:
        def then(done: bool) -> None:
            if done:
                self.level = wanted
                if self._hub is not None:
                    self._hub.level = asked_for

        return then

    def _subscribe(self, uri: str) -> Then | None:
        """From now on it hears of changes, unless the server refuses; they may come before its
        answer."""
        if not uri or uri in self.subscriptions:
            return None
        if len(self.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise Busy("too many subscriptions in this session; end some")
        self.subscriptions.add(uri)

        def then(done: bool) -> None:
            if not done:
                self.subscriptions.discard(uri)
                self._hold(self._holding)

        return then

    def _unsubscribe(self, uri: str) -> bool:
        """Whether the server need not hear of it, because others still want to."""
        self.subscriptions.discard(uri)
        self._hold(self._holding)
        hub = self._hub
        return hub is not None and not hub.exclusive and hub.subscribers(uri) > 0

    # ── the server side ──────────────────────────────────────────────────────────────────────────

    def attach(self, lease: Lease) -> None:
        """See ``Owner``."""
        hub = lease.peer.audience
        if not isinstance(hub, Hub):
            hub = Hub(lease.peer, exclusive=bool(self.manner.owner))
            lease.peer.attend(hub)
        self.attached = lease
        if hub is not self._hub:
            earlier, self._hub = self._hub, hub
            hub.add(self)
            if earlier is not None:
                earlier.remove(self)
                hub.restore(self.permit, self.means, self)
        self._hold(lease)

    def _hold(self, lease: Lease | None) -> None:
        """Keep a server with subscriptions from idling; let it go when there are none left."""
        wanted = lease if self.subscriptions else None
        earlier = self._holding
        if wanted is earlier:
            return
        self._holding = wanted
        if wanted is not None:
            wanted.began(self.permit.principal.holder)
        if earlier is not None:
            earlier.ended(self.permit.principal.holder, failed=False)

    def opened(self, lease: Lease) -> None:
        """See ``Owner``."""
        self._opening = None
        self.handshake = lease.peer.handshake
        if not self.closed:
            self.attach(lease)

    def not_opened(self) -> None:
        """See ``Owner``. What was started for this client alone has no other use."""
        self._opening = None
        if self.manner.owner and self.handshake is None:
            self.means.servers.release(self.permit, self.manner)

    def rejoin(self) -> None:
        """A connection to its server has opened: if that is the session's own from now on, hear
        what comes on it without waiting for the client to call."""
        known = self._hub is not None and not self.closed
        lease = self.means.servers.lease(self.permit, self.manner) if known else None
        if lease is not None:
            self.attach(lease)

    def close(self) -> None:
        """The client is gone for good: nothing of it stays. Safe to call twice."""
        if self.closed:
            return
        self.closed = True
        if self._opening is not None:
            self._opening.end(NotFound("Session not found"))
        for exchange in tuple(self._running.values()):
            exchange.end(NotFound("Session not found"))
        self._questions.refuse_all()
        self._backlog.take()
        subscribed, self.subscriptions = self.subscriptions, set()
        self._hold(None)
        hub, self._hub = self._hub, None
        if hub is not None:
            hub.remove(self)
            for uri in () if hub.exclusive else subscribed:
                if not hub.subscribers(uri):
                    gone = Call("resources/unsubscribe", b"0", {"uri": _raw(uri)})
                    hub.tell(self.permit, self.means, gone)
        if self.manner.owner:
            self.means.servers.release(self.permit, self.manner)


def _raw(text: str) -> Raw:
    return Raw(msgspec.json.encode(text))
