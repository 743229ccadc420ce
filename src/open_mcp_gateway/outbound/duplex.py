"""MCP over one two-way stream of messages: many calls at once, told apart by integer ids.

Hot: no task, future, event, lock or closure per call. Carried by a child's pipes or by HTTP+SSE.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from msgspec import UNSET, Raw

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.catalog.model import CatalogEntry
from open_mcp_gateway.errors import (
    Busy,
    GatewayError,
    InternalError,
    MalformedMessage,
    UpstreamBroken,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from open_mcp_gateway.outbound.channel import Channel, Loss
from open_mcp_gateway.outbound.handshake import DISCOVER
from open_mcp_gateway.outbound.inflight import InFlight, not_handed_on
from open_mcp_gateway.outbound.listing import Look, has_tools
from open_mcp_gateway.outbound.noise import Noise
from open_mcp_gateway.outbound.own_request import OwnRequest
from open_mcp_gateway.outbound.peer import Audience, Handshake, Ticket, Waiter
from open_mcp_gateway.outbound.relation import CANCELLED
from open_mcp_gateway.outbound.salvage import id_from_ends, id_of_odd_message, members_of_batch
from open_mcp_gateway.outbound.stamp import Stamp, with_progress
from open_mcp_gateway.outbound.tools import LIST, ToolSchemas
from open_mcp_gateway.outbound.unasked import Unasked, own_result
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.jsonrpc import (
    Call,
    Incoming,
    Params,
    decode_incoming,
    encode,
    encode_params,
    notification,
    request,
)
from open_mcp_gateway.protocol.mirrored import Fields
from open_mcp_gateway.protocol.responses import Unsound, sound

BOM = b"\xef\xbb\xbf"
NEVER_S = math.inf

_TIMER_SLACK_S = 0.002
"""Loop timers count in milliseconds and may fire that much early."""

_log = logging.getLogger(__name__)


class DuplexPeer:
    """A Peer (and the Conversation of its handshake) over one Channel."""

    __slots__ = (
        "_alarm",
        "_alarm_at_s",
        "_channel",
        "_closing",
        "_entry",
        "_handshake",
        "_inflight",
        "_look",
        "_loop",
        "_loss",
        "_lost_callbacks",
        "_name",
        "_next_id",
        "_noise",
        "_stamp",
        "_tools",
        "_unasked",
        "strays",
    )

    def __init__(self, entry: CatalogEntry, channel: Channel) -> None:
        self._entry = entry
        self._name = entry.spec.id
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._handshake: Handshake | None = None
        self._stamp: Stamp | None = None
        """Only in the modern era does every request need one."""
        self._inflight: dict[int, InFlight] = {}
        """In order of sending, which is nearly but not always that of the deadlines."""
        self._unasked = Unasked(self._name, self._inflight, send=self._answer, forget=self.forget)
        self._next_id = 1
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at_s = NEVER_S
        self._loss: Loss | None = None
        self._closing = False
        self._tools = ToolSchemas(entry.spec.id)
        self._look: Look | None = None
        """Only at stateless servers that have tools."""
        self._lost_callbacks: list[Callable[[GatewayError], None]] = []
        self._noise = Noise(self._name)
        self.strays = 0
        """Responses to nothing that is in flight: late, repeated, or with a wrong id."""

    # As a Peer

    @property
    def handshake(self) -> Handshake:
        if self._handshake is None:
            raise InternalError(f"Server '{self._name}' is used before its handshake")
        return self._handshake

    @property
    def inflight(self) -> int:
        return len(self._inflight)

    @property
    def pid(self) -> int | None:
        return self._channel.pid

    @property
    def loss(self) -> Loss | None:
        """Why the peer died by itself; None while it has not."""
        return self._loss

    def call(self, permit: Permit, call: Call, waiter: Waiter, *, deadline_s: float) -> Ticket:
        self._check(permit)
        return self._begin(call, waiter, deadline_s)

    def _begin(self, call: Call, waiter: Waiter, deadline_s: float) -> Ticket:
        """The call of somebody, or of the gateway itself. Raises as ``call``."""
        if self._loss is not None or self._closing:
            raise UpstreamUnavailable(self._gone())
        if self._channel.full:
            raise Busy(f"Server '{self._name}' takes no more input now; try again later")
        upstream_id = self._next_id
        params = call.params
        if self._stamp is not None:
            params = self._stamp.params(call, upstream_id)
        elif call.progress_token is not None:
            params = with_progress(params, upstream_id)
        message = request(upstream_id, call.method, encode_params(params))
        self._next_id = upstream_id + 1
        entry = InFlight(self, upstream_id, call, waiter, deadline_s)
        self._inflight[upstream_id] = entry
        self._channel.send(message, upstream_id)
        if deadline_s < self._alarm_at_s:
            self._set_alarm(deadline_s)
        return entry

    def given_up_by_others(self, whose: str) -> bool:
        return self._unasked.given_up.by_others(whose)

    def notify(self, permit: Permit, call: Call) -> None:
        self._check(permit)
        self.tell(call.method, call.params)

    @property
    def audience(self) -> Audience | None:
        return self._unasked.audience

    def attend(self, audience: Audience) -> None:
        self._unasked.audience = audience

    def mirrored(self, tool: str) -> Fields | None:
        return self._tools.fields(tool)

    def wait_for_tools(self, then: Callable[[], None]) -> bool:
        return self._look is not None and self._look.wait(then)

    async def probe(self) -> None:
        if self._stamp is None:
            own = self.ask("ping", None)
        else:
            own = self.ask(DISCOVER, self._stamp.own_params())
        try:
            await own.within(None)
        finally:
            own.abandon()

    def on_lost(self, callback: Callable[[GatewayError], None]) -> None:
        if self._loss is None:
            self._lost_callbacks.append(callback)
        else:
            callback(UpstreamBroken(self._gone()))

    async def aclose(self) -> None:
        self._closing = True
        self._unasked.questions.void()
        self._fail_all("was stopped", "")
        await self._channel.aclose()

    # As a Conversation

    def ask(self, method: str, params: Params | None) -> OwnRequest:
        """A request of the gateway's own, with ``params`` as they are and no deadline.

        Raises:
            UpstreamUnavailable: the peer is already gone.
        """
        if self._loss is not None or self._closing:
            raise UpstreamUnavailable(self._gone())
        upstream_id = self._next_id
        self._next_id = upstream_id + 1
        own = OwnRequest(upstream_id, self.forget, self._loop.create_future())
        call = Call(method, None, params)
        self._inflight[upstream_id] = InFlight(self, upstream_id, call, own, NEVER_S)
        self._channel.send(request(upstream_id, method, encode_params(params)), upstream_id)
        return own

    def tell(self, method: str, params: Params | None) -> None:
        """Send a notification; dropped when the server is gone or does not read."""
        if self._loss is None and not self._closing and not self._channel.full:
            self._channel.send(notification(method, encode_params(params)), None)

    def settle(self, handshake: Handshake) -> None:
        """The handshake is over: from here on calls are sent by its era's rules."""
        self._handshake = handshake
        if handshake.era is Era.MODERN:
            self._stamp = Stamp(handshake.version)
            self._unasked.modern = True
            if has_tools(handshake):
                self._look = Look(self._tools, self._begin)
                self._unasked.tools_changed = self._look.changed

    # As a Receiver

    def message(self, message: bytes) -> None:
        try:
            incoming = decode_incoming(message)
            if not message.isascii():
                message.decode()  # the decoder skips over strings without checking their UTF-8
        except (MalformedMessage, UnicodeDecodeError) as error:
            self._unreadable(message, error)
            return
        try:
            self._hand_on(incoming, message)
        except Exception:  # noqa: BLE001 - a boundary, for the reason below
            # A defect in what one caller does with it must not take the pipe from all the others.
            _log.exception("message could not be handed on", extra={"server": self._name})

    def _hand_on(self, incoming: Incoming, message: bytes) -> None:
        if incoming.method is UNSET:
            self._response(incoming, message)
        elif incoming.id is UNSET:
            self._unasked.notified(incoming, message)
        else:
            self._unasked.asked(incoming, room=not self._channel.full)

    def overlong(self, front: bytes, back: bytes) -> None:
        """Only the call it answers fails. Where that cannot be known, somebody would wait in vain,
        so the peer is given up."""
        what = "sent a message over the size limit"
        upstream_id = id_from_ends(front, back)
        if upstream_id is None:
            self.lost(Loss(what))
            self._channel.give_up()
        else:
            self._fail(upstream_id, what)

    def undelivered(self, upstream_id: int, error: GatewayError, *, doubtful: bool) -> None:
        entry = self._inflight.pop(upstream_id, None)
        if entry is not None:
            if doubtful:
                self._unasked.withdrawn(entry)
                error = entry.in_doubt(error)
            entry.waiter.failed(error)

    def awaits(self, upstream_id: int) -> bool:
        return upstream_id in self._inflight

    def lost(self, loss: Loss) -> None:
        if self._loss is not None or self._closing:
            return
        self._loss = loss
        self._unasked.questions.void()
        self._fail_all(loss.what, loss.detail)
        callbacks, self._lost_callbacks = self._lost_callbacks, []
        for callback in callbacks:
            callback(UpstreamBroken(self._gone()))

    # For tickets and the gateway's own requests

    def withdraw(self, upstream_id: int, reason: str) -> None:
        """Forget a call and tell the server, which both eras do by the same notification here.

        Spec: 2025-11-25 and 2026-07-28 basic/utilities/cancellation.
        """
        entry = self._inflight.pop(upstream_id, None)
        if entry is not None:
            self._unasked.withdrawn(entry)
            params = {"requestId": Raw(b"%d" % upstream_id), "reason": Raw(encode(reason))}
            self.tell(CANCELLED, params)

    def forget(self, upstream_id: int) -> None:
        """Forget a request without a word to the server."""
        self._inflight.pop(upstream_id, None)

    def watch(self, deadline_s: float) -> None:
        """A deadline moved."""
        if deadline_s < self._alarm_at_s and self._inflight:
            self._set_alarm(deadline_s)

    # Inside

    def _check(self, permit: Permit) -> None:
        if permit.entry.spec.id != self._name or permit.permission is not Permission.MCP_CALL:
            raise InternalError("a permit was used for what it does not permit")

    def _answer(self, message: bytes) -> None:
        """Also when the server takes no more: how many there can be is bounded."""
        self._channel.send(message, None)

    def _gone(self) -> str:
        if self._loss is None:
            return f"Server '{self._name}' was stopped"
        return f"Server '{self._name}' {self._loss.what}. {self._loss.detail}".rstrip()

    def _response(self, incoming: Incoming, message: bytes) -> None:
        upstream_id = incoming.id
        entry = self._inflight.pop(upstream_id, None) if isinstance(upstream_id, int) else None
        if entry is None:
            self.strays += 1
            self._unasked.stray(incoming)
            return
        try:
            message = sound(incoming, message, entry.id)
            if self._stamp is not None:
                if entry.call.method == LIST:
                    self._tools.learn(message)
                message = own_result(entry, message, incoming)
            entry.waiter.answered(message, entry.id)
        except Unsound as flaw:
            entry.waiter.failed(entry.broken(self._name, str(flaw)))
        except Exception as error:  # noqa: BLE001 - a boundary: nothing else ends the call now
            entry.waiter.failed(not_handed_on(error, self._name))

    def _unreadable(self, message: bytes, error: Exception) -> None:
        """Salvage what can be: a byte order mark, a batch (2025-03-26), the id of a broken answer;
        anything else is noise, such as the banner of a library that prints to stdout."""
        rest = message.removeprefix(BOM)
        if rest is not message and not rest.startswith(BOM):
            self.message(rest)
            return
        batch = members_of_batch(message)
        if batch:
            for member in batch:
                self.message(member)
            return
        upstream_id = id_of_odd_message(message)
        if upstream_id is None or not self._fail(upstream_id, f"broke the protocol: {error}"):
            self._noise.heard(len(message))

    def _fail(self, upstream_id: int, what: str) -> bool:
        """False when there is no such call."""
        self._unasked.given_up.answered(upstream_id)
        entry = self._inflight.pop(upstream_id, None)
        if entry is not None:
            entry.waiter.failed(entry.broken(self._name, what))
        return entry is not None

    def _fail_all(self, what: str, detail: str) -> None:
        entries = tuple(self._inflight.values())
        self._inflight.clear()
        self._set_alarm(NEVER_S)
        # One error for each: it is given the caller's id later on.
        for entry in entries:
            entry.waiter.failed(entry.broken_off(self._name, what, detail))

    def _set_alarm(self, at_s: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at_s = at_s
        self._alarm = None if at_s == NEVER_S else self._loop.call_at(at_s, self._expire)

    def _expire(self) -> None:
        now_s = self._loop.time() + _TIMER_SLACK_S
        overdue = [entry for entry in self._inflight.values() if entry.deadline_s <= now_s]
        for entry in overdue:
            self.withdraw(entry.id, "no answer before the deadline")
        rest = (entry.deadline_s for entry in self._inflight.values())
        self._set_alarm(min(rest, default=NEVER_S))
        for entry in overdue:
            text = "did not answer before the deadline; the call may have taken effect"
            entry.waiter.failed(UpstreamTimeout(f"Server '{self._name}' {text}"))
