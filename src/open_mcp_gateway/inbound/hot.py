"""HTTP/1.1 without a task per request: uvicorn's httptools protocol with both its halves replaced.

uvicorn still listens, does TLS, counts connections and shuts down. Everything between the received
bytes and the written answer is callbacks: ASGI's scope, task, event and two sends would cost more
than the rest of the gateway. The same ``Dispatcher`` runs behind plain ASGI in ``inbound/asgi.py``.

A client that closes its side of the connection is gone (``eof_received`` is uvicorn's and closes):
from here a half-closed connection and a dead client look the same, and a dead client's call must
not go on. So is one that does not take its answers.

This class leans on internals of uvicorn's ``HttpToolsProtocol``; the version is pinned, and the
wire tests run against each upgrade.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from open_mcp_gateway.inbound.dispatch import Dispatcher
from open_mcp_gateway.inbound.intake import Intake
from open_mcp_gateway.inbound.outlet import HotOutlet
from open_mcp_gateway.inbound.turn import Turn
from open_mcp_gateway.pipeline.reply import EVENT_STREAM, Headers, Reply
from open_mcp_gateway.writes import Writes

log = logging.getLogger(__name__)

MAX_QUEUED_TURNS = 16
"""Pipelined requests read ahead of the one being answered; then the client has to wait."""

LINGER_S = 10.0
"""How long the rest of an unwanted body is read away, so that a reset does not overtake the answer
(RFC 9112 section 9.6)."""

REQUEST_READ_S = 60.0
"""A request that takes longer to arrive is given up."""

FIRST_BYTE_S = 20.0
"""A connection on which nothing ever came is closed after this: it takes the room of others."""

ANSWER_READ_S = 60.0
"""A client that takes nothing of its answer for this long is given up."""

KEEP_ALIVE_S = 75.0
"""An idle connection is closed after this. Longer than the usual 60 s of a proxy in front, so that
the proxy, not the gateway, closes first."""

DRAIN_S = 10.0
"""While the gateway stops: how long it waits for slow clients to send or to take."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(HttpToolsProtocol):
    """One client connection: asks the dispatcher and writes the answers in order."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.dispatcher: Dispatcher = config.app.dispatcher  # type: ignore[union-attr]
        self.writes: Writes = config.app.writes  # type: ignore[union-attr]
        """Holds the common answers; before anything else is done with the transport, flushed."""

        self.intake = Intake(self, self.dispatcher, self.loop.time)
        self.active: Turn | None = None
        """The request being answered."""

        self.queue: deque[Turn] = deque()
        self.pumping = False
        self.draining = False
        """The gateway stops; what has arrived is still answered."""

        self.lingering: asyncio.TimerHandle | None = None
        self.moved_s = self.loop.time()
        """When a client last took something of an answer, as far as is known."""

        self.unsent_bytes = 0

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client:
            self.intake.peer_name = "{}:{}".format(*self.client)

    def data_received(self, data: bytes) -> None:
        try:
            self.intake.feed(data)
        except httptools.HttpParserCallbackError:
            log.exception("request could not be read")
            self.transport.abort()

    def invite(self) -> None:
        """Let a client that waits for it send its body, if its request is the next one."""
        turn = self.intake.reading
        if turn is None or self.active is not None or self.queue:
            return
        if turn.expects_continue:
            self.writes.flush()
            self.transport.write(_CONTINUE)

    def large_body(self) -> None:
        if self.active is not None:
            self.flow.pause_reading()

    def rest_read(self) -> None:
        if self.lingering is not None:
            self.transport.close()

    # ── answering, one at a time and in order (RFC 9112 section 9.3.2) ───────────────────────────

    def enqueue(self, turn: Turn) -> None:
        turn.queued = True
        self.queue.append(turn)
        if len(self.queue) > MAX_QUEUED_TURNS:
            self.flow.pause_reading()
        self._pump()

    def _pump(self) -> None:
        if self.pumping:
            return
        self.pumping = True
        while self._may_begin():
            turn = self.active = self.queue.popleft()
            refusal, turn.refusal = turn.refusal, None  # its traceback leads back to the turn
            if refusal is not None:
                turn.respond(self.dispatcher.refuse(turn.arrival, refusal))
            elif turn.admitted is not None:
                exchange = self.dispatcher.handle(turn.admitted, bytes(turn.body), turn)
                if self.active is turn:
                    turn.exchange = exchange
        self.pumping = False

    def _may_begin(self) -> bool:
        """Whether a request waits and its answer could be written."""
        return bool(
            self.queue
            and self.active is None
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def answer(self, turn: Turn, reply: Reply) -> None:
        """Write the answer to the active turn and go on to the next."""
        if self.active is not turn or self.transport.is_closing():
            return
        if turn.outlet is not None:
            turn.outlet.close()
            return
        keep_alive = turn.keep_alive and not (self.draining and self._nothing_follows(turn))
        more_headers = self.server_state.default_headers
        # Not with more in the queue: only once this is written shows whether there is room for it.
        if keep_alive and not self.queue and turn.plain(reply) and self.dispatcher.leaves_no_trace:
            self.writes.add(self.transport, turn.rendered_plainly(reply, more_headers[0][1]))
        else:
            self.writes.flush()
            reply = self.dispatcher.finish(turn.arrival, reply)
            self.transport.write(turn.rendered(reply, more_headers, keep_alive=keep_alive))
        self._answered(turn, keep_alive=keep_alive)

    def open_stream(self, turn: Turn, headers: Headers) -> HotOutlet:
        """Begin to answer the active turn with an event stream."""
        outlet = turn.outlet = HotOutlet(
            self.transport, self.loop.time, partial(self._streamed, turn), chunked=turn.chunked
        )
        if self.active is not turn or self.transport.is_closing():
            outlet.closed = True
            return outlet
        reply = self.dispatcher.finish(turn.arrival, Reply(200, headers=(*EVENT_STREAM, *headers)))
        parts = turn.head(reply, self.server_state.default_headers)
        self.writes.flush()
        framing = b"transfer-encoding: chunked" if turn.chunked else b"connection: close"
        self.transport.write(b"".join((*parts, framing, b"\r\n\r\n")))
        return outlet

    def _streamed(self, turn: Turn) -> None:
        """The stream of the active turn has ended."""
        turn.outlet = None  # leads back to the turn
        if self.active is turn and not self.transport.is_closing():
            last = self.draining and self._nothing_follows(turn)
            self._answered(turn, keep_alive=turn.keep_alive and turn.chunked and not last)

    def _answered(self, turn: Turn, *, keep_alive: bool) -> None:
        self.server_state.total_requests += 1
        self.active = turn.exchange = None
        self.moved_s = self.loop.time()
        if not keep_alive:
            self._end(linger=turn.unread or turn is self.intake.reading)
            return
        if self.flow.read_paused:
            self._resume_reading()
        if self.queue:
            self._pump()
        elif self.intake.reading is not None:
            self.invite()

    def _end(self, *, linger: bool) -> None:
        """End the connection, gently where the client may still be sending."""
        self.intake.closing = True
        self.queue.clear()
        if not linger:
            self.transport.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.lingering = self.loop.call_later(LINGER_S, self.transport.close)
        self.flow.resume_reading()

    # ── the rest of a connection's life ──────────────────────────────────────────────────────────

    def pause_writing(self) -> None:
        super().pause_writing()
        self.flow.pause_reading()  # who does not read answers may not ask more questions

    def resume_writing(self) -> None:
        super().resume_writing()
        self._resume_reading()
        self._pump()

    def _resume_reading(self) -> None:
        """Unless there is a reason left not to."""
        if len(self.queue) <= MAX_QUEUED_TURNS and not self.flow.write_paused:
            self.flow.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        turn, self.active = self.active, None
        self.queue.clear()
        self.intake.close()
        if self.lingering is not None:
            self.lingering.cancel()
        if turn is not None and turn.exchange is not None:
            turn.exchange.abandon()
            turn.exchange = turn.outlet = None

    def eof_received(self) -> None:
        self.writes.flush()  # the transport closes after this

    def shutdown(self) -> None:
        """Take no further request; close once the ones already here are answered."""
        self.writes.flush()
        self.draining = self.intake.draining = True
        if self.active is None and (self.lingering is not None or self._nothing_follows(None)):
            self.transport.close()

    def _nothing_follows(self, answered: Turn | None) -> bool:
        """Whether no request but ``answered`` has arrived, or was let in and is arriving."""
        return not self.queue and self.intake.reading in (None, answered)

    def close_if_quiet(self, now_s: float) -> None:
        """Called now and then: give up on a client that does not go on with what it began.

        One sweep over all connections costs less than a timer armed and disarmed per request.
        """
        if self.active is not None:
            if self.active.outlet is not None:
                self.active.outlet.keep_alive(now_s)
            return
        unsent = self.transport.get_write_buffer_size()
        if unsent < self.unsent_bytes:
            self.moved_s = now_s
        self.unsent_bytes = unsent
        limit_s = self._patience_s(unsent)
        if now_s - max(self.moved_s, self.intake.begun_s) <= limit_s:
            return
        if unsent:
            self.transport.abort()  # closing would wait for the client to take the rest
        else:
            self.transport.close()

    def _patience_s(self, unsent: int) -> float:
        if unsent:
            limit_s = ANSWER_READ_S
        elif self.intake.begun:
            limit_s = REQUEST_READ_S
        elif not self.intake.fed_bytes:
            limit_s = FIRST_BYTE_S
        else:
            limit_s = KEEP_ALIVE_S
        return min(limit_s, DRAIN_S) if self.draining else limit_s
