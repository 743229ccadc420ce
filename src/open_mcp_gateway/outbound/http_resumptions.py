"""Going on with the event stream of a call that broke before its answer.

Spec: 2025-11-25 basic/transports#resumability-and-redelivery.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from open_mcp_gateway.errors import Busy, GatewayError
from open_mcp_gateway.outbound.http_call import HttpCall, Resumption
from open_mcp_gateway.outbound.http_opening import Session
from open_mcp_gateway.outbound.http_stream import pause_s, stream_request
from open_mcp_gateway.outbound.link import DOUBT, Link

MAX_RESUMPTIONS: Final = 8
"""Attempts to go on with a call's event stream after its last event."""


class Books(Protocol):
    """The peer of the calls."""

    link: Link

    @property
    def session(self) -> Session | None:
        """None while a new one is opened."""

    def awaits(self, call: HttpCall) -> bool:
        """Whether the call has no outcome yet."""

    def fail(self, call: HttpCall, error: GatewayError, *, at_work: bool = False) -> None:
        """It will have no answer, though the server may still be ``at_work`` on it."""


class Resumptions:
    """Those to come, by call."""

    __slots__ = ("_peer", "_timers")

    def __init__(self, peer: Books) -> None:
        self._peer = peer
        self._timers: dict[HttpCall, asyncio.TimerHandle] = {}

    def plan(self, call: HttpCall) -> bool:
        """Ask for the rest of the stream in a moment; False where that is impossible."""
        if call.last_event_id is None or call.session is not self._peer.session:
            return False
        state = call.resumption
        if state is None:
            state = call.resumption = Resumption()
        if call.last_event_id != state.event_id:
            state.event_id = call.last_event_id
            state.attempts = 0
        if state.attempts >= MAX_RESUMPTIONS or not self._peer.awaits(call):
            return False
        if call.retry_ms is not None:
            state.retry_ms = call.retry_ms
        delay_s = pause_s(state.retry_ms, state.attempts)
        state.attempts += 1
        loop = asyncio.get_running_loop()
        self._timers[call] = loop.call_later(delay_s, self._resume, call)
        return True

    def stop(self, call: HttpCall) -> bool:
        """Plan no more for it; False where nothing was planned."""
        timer = self._timers.pop(call, None)
        if timer is not None:
            timer.cancel()
        return timer is not None

    def clear(self) -> None:
        """Plan nothing more for any."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def give_up(self, call: HttpCall, why: str) -> None:
        """End the call, which was sent and may have been carried out."""
        text = "broke off its event stream and does not go on with it"
        error = self._peer.link.broken(f"{text} ({why}){DOUBT}")
        self._peer.fail(call, error, at_work=True)

    def _resume(self, call: HttpCall) -> None:
        del self._timers[call]
        link, session = self._peer.link, self._peer.session
        if session is None or call.session is not session:
            self.give_up(call, "its session is over")
            return
        call.request = stream_request(link, session.headers, call.last_event_id)
        try:
            link.pool.submit(call)
        except Busy:
            call.cut()
