"""Streamable HTTP with sessions: opened with ``initialize``, renewed when the server forgets it.

Spec: 2025-11-25 basic/transports#session-management and basic/lifecycle; the same back to
2025-03-26.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
from msgspec import UNSET

from open_mcp_gateway.errors import Busy, GatewayError, UpstreamError
from open_mcp_gateway.outbound import http_opening as opening
from open_mcp_gateway.outbound.answer import Reply, error_code
from open_mcp_gateway.outbound.http import HttpPeer
from open_mcp_gateway.outbound.http_call import HttpCall
from open_mcp_gateway.outbound.http_opening import Refused, Session
from open_mcp_gateway.outbound.http_refusals import Refusals, is_no_word, lose_changed
from open_mcp_gateway.outbound.http_resumptions import Resumptions
from open_mcp_gateway.outbound.http_stream import StandingStream
from open_mcp_gateway.outbound.link import DOUBT, Link
from open_mcp_gateway.outbound.missed import missed
from open_mcp_gateway.outbound.peer import Audience, Manner
from open_mcp_gateway.outbound.relation import CANCELLED, PROGRESS
from open_mcp_gateway.outbound.stamp import with_progress
from open_mcp_gateway.outbound.unasked import Unasked
from open_mcp_gateway.protocol.faults import METHOD_NOT_FOUND
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

RENEW_S = 30.0
"""Bound on opening a session anew."""

LISTEN_PATIENCE_S = 1.0
"""How long a server may keep the first call waiting for its answer to the GET of its stream."""

MAX_EARLY_MESSAGES = 100
"""Kept for an audience that is still to come; for more there is none."""

_STATEFUL = frozenset({"logging/setLevel", "resources/subscribe"})
"""What a session on which no caller depends still remembers of its calls."""

_LOST = "lost its session; call again"


class SessionPeer(HttpPeer):
    """Calls within a session; calls that only read survive the loss of it."""

    def __init__(
        self, link: Link, session: Session, manner: Manner, on_misjudged: Callable[[], None]
    ) -> None:
        """``on_misjudged`` hears that what was found out about the server may not hold any more."""
        super().__init__(link, session.handshake)
        self._session = session
        self.manner = manner
        self._on_misjudged = on_misjudged
        self._renewal: asyncio.Task[None] | None = None
        self._refusals = Refusals(self)
        self._stateful = False
        """Something was done in the session that a new one would not know of."""
        self._resumptions = Resumptions(self)
        self._unasked = Unasked(
            link.entry.spec.id, self._calls, send=self._respond, forget=self._forget_id
        )
        self._unasked.shared = not manner.owner
        self._early: list[tuple[Incoming, bytes]] = []
        """What came before the audience that is sure to come."""
        self._stream = self._new_stream()

    async def listen(self) -> None:
        """Open the stream for what belongs to no call: before the first call, for there are servers
        that ask on it what they need for the call, whether anybody listens or not."""
        if self.link.settings.max_connections_per_origin > 1:  # calls need one too
            self._stream.open()
            await self._stream.opened(LISTEN_PATIENCE_S)

    def attend(self, audience: Audience) -> None:
        """See ``Peer``."""
        super().attend(audience)
        self._unasked.audience = audience
        if self._early:  # not from inside: the audience may be only half set up
            self._loop.call_soon(self._deliver_early)

    def word(self, call: HttpCall) -> None:
        asked = call.call
        params = asked.params
        if asked.progress_token is not None:
            params = with_progress(params, call.id)
        call.body = request(call.id, asked.method, encode_params(params))

    def word_notification(self, method: str, params: Params | None) -> bytes:
        body = notification(method, encode_params(params))
        return self.link.post(self._session.headers, body)

    def inquiry(self) -> Call:
        return Call("ping", None)

    def send(self, call: HttpCall) -> None:
        if self._renewal is not None:
            self.hold(call)
            return
        if not call.replayable and not self._stateful:
            self._stateful = bool(self.manner.owner) or call.call.method in _STATEFUL
        call.session = self._session
        call.headers = self._session.headers
        call.resumption = None
        super().send(call)

    def given_up_by_others(self, whose: str) -> bool:
        return self._unasked.given_up.by_others(whose)

    def fail(self, call: HttpCall, error: GatewayError, *, at_work: bool = False) -> None:
        if at_work and self.awaits(call):
            self._unasked.withdrawn(call)
        super().fail(call, error)

    def withdraw(self, call: HttpCall, reason: str) -> None:
        if not call.unsent:
            self._unasked.withdrawn(call)
        resuming = self._resumptions.stop(call)
        if self._renewal is None and (resuming or call.connection is not None):
            # Closing the stream is no cancellation in this era (basic/utilities/cancellation).
            params = encode({"requestId": call.id, "reason": reason})
            self._respond(notification(CANCELLED, params))
        super().withdraw(call, reason)

    def overruled(self, call: HttpCall, reply: Reply, answer: Incoming | None) -> bool:
        unknown_method = (
            answer is not None and answer.id == call.id and error_code(answer) == METHOD_NOT_FOUND
        )
        if reply.status == 404 and self._session.has_id and not unknown_method:
            self._session_lost(call)
            return True
        return self._refusals.admit(call, reply, answer)

    # See ``InSession``

    @property
    def session(self) -> Session | None:
        over = self._renewal is not None or self._ended is not None
        return None if over else self._session

    def next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def session_over(self, refused: list[HttpCall]) -> None:
        if self._stateful:
            for call in refused:
                self.fail(call, self.link.broken(_LOST))
            self._lose_session()
            return
        self._begin_renewal()
        for call in refused:
            self.again(call)

    def changed(self, refused: list[HttpCall]) -> None:
        self._on_misjudged()
        lose_changed(self, refused)

    def ended(self) -> None:
        self._stream.close()
        self._unasked.questions.void()
        self._early.clear()
        self._refusals.clear()
        self._resumptions.clear()

    async def goodbye(self, *, lost: bool) -> None:
        await self._refusals.dispel()
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        elif not lost:
            await opening.end_session(self.link, self._session)

    # What the server sends of itself

    def unasked(self, call: HttpCall, incoming: Incoming, message: bytes) -> None:
        self._unasked.came_with(call, incoming, message)

    def _take(self, incoming: Incoming, message: bytes) -> None:
        """On the stream that belongs to no call."""
        awaited = bool(self.manner.owner) and self._audience is None
        early = awaited and incoming.method not in (PROGRESS, "ping")
        if early and len(self._early) < MAX_EARLY_MESSAGES:
            self._early.append((incoming, message))
        elif incoming.id is UNSET:
            self._unasked.notified(incoming, message)
        else:
            self._unasked.asked(incoming)

    def _deliver_early(self) -> None:
        early, self._early = self._early, []
        for incoming, message in early:
            self._take(incoming, message)

    def _respond(self, message: bytes) -> None:
        self.tell(self.link.post(self._session.headers, message))

    def _forget_id(self, call_id: int) -> None:
        self._calls.pop(call_id, None)

    # An event stream that broke before its answer

    def resume(self, call: HttpCall) -> bool:
        return self._resumptions.plan(call)

    def replied(self, call: HttpCall, reply: Reply) -> None:
        if call.resumption is None:
            super().replied(call, reply)
        elif reply.status < 500 or not self.resume(call):
            self._resumptions.give_up(call, f"HTTP {reply.status}")

    # A session lost: HTTP 404 (basic/transports#session-management)

    def _new_stream(self) -> StandingStream:
        return StandingStream(
            self.link,
            self._session.headers,
            take=self._take,
            forgotten=self._stream_forgotten,
            denied=self._refusals.arise,
        )

    def _stream_forgotten(self) -> None:
        """The next call would be told the same; where that matters, do not wait for it."""
        if self._stateful:
            self._lose_session()
        elif self._audience is not None and self._renewal is None:
            self._begin_renewal()

    def _session_lost(self, call: HttpCall) -> None:
        if call.session is self._session and self._renewal is None:
            if self._stateful:
                self._lose_session()
                return
            self._begin_renewal()
        if call.replayable and not call.retried:
            call.retried = True
            self.again(call)
        else:
            self.fail(call, self.link.broken(_LOST + DOUBT))

    def _lose_session(self) -> None:
        self._on_misjudged()  # who forgets its sessions may be a newer server
        self.lose(_LOST)

    def _begin_renewal(self) -> None:
        self._unasked.questions.void()
        self._stream.close()
        self._renewal = self._loop.create_task(self._renew())

    async def _renew(self) -> None:
        why, changed = "", False
        try:
            with anyio.fail_after(RENEW_S):
                opened = await opening.open_session(self.link, self.manner)
                if isinstance(opened, Refused):
                    why = opened.reason
                    changed = not is_no_word(opened.reply)
                else:
                    self._session = opened
                    self.handshake = opened.handshake
                    self._on_misjudged()  # who forgets its sessions may be a newer server
                    self._stream = self._new_stream()
                    await self.listen()
        except (UpstreamError, Busy) as error:
            why = error.public
        except TimeoutError:
            why = f"did not open a session within {RENEW_S:g} s"
        self._renewal = None
        if why:
            if changed:
                self._on_misjudged()
            waiting = tuple(self._held) if changed else ()
            lose_changed(self, waiting, f"lost its session and gave no new one: {why}")
        else:
            self.release()
            for message in missed(self.handshake):
                self._take(decode_incoming(message), message)
