"""One local client on stdin and stdout, for one server, in whichever era it speaks.

Newline-delimited JSON-RPC; nothing but protocol on stdout (2025-11-25 and 2026-07-28
basic/transports#stdio). Requests run side by side; the end of stdin ends the program once the last
answer is out.
"""

from __future__ import annotations

import contextlib
import math
import secrets
from collections.abc import Callable
from typing import Final

import anyio
from msgspec import UNSET, Raw

from open_mcp_gateway.access.authorize import authorize_by_id
from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Permission, Principal
from open_mcp_gateway.errors import Draining, InvalidRequest, MalformedMessage
from open_mcp_gateway.inbound.arrival import new_request_id
from open_mcp_gateway.inbound.batch import (
    Answers,
    array_of,
    batched,
    check_batch,
    elements_of,
    is_batch,
    is_response,
)
from open_mcp_gateway.inbound.inbox import lines_from
from open_mcp_gateway.inbound.outbox import Outbox
from open_mcp_gateway.inbound.stdio_era import INITIALIZE, ConnectionEra
from open_mcp_gateway.inbound.stdio_sinks import ModernSink, PlainSink, SessionSink
from open_mcp_gateway.inbound.stdio_words import StdioWords
from open_mcp_gateway.names import ServerId
from open_mcp_gateway.pipeline.agreement import string_in
from open_mcp_gateway.pipeline.errand import Errand
from open_mcp_gateway.pipeline.exchange import Exchange
from open_mcp_gateway.pipeline.forward import Forwarder
from open_mcp_gateway.pipeline.modern import ModernFace
from open_mcp_gateway.pipeline.session import ClientSession
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.jsonrpc import Call, Params, decode_incoming
from open_mcp_gateway.protocol.messages import Message, call_of, decode_message, raw_id_of

MAX_RUNNING: Final = 1000
"""Requests being worked on at one time; beyond that nothing more is read."""

FLUSH_S: Final = 0.5
"""How long the last words may take when the program is told to end."""

SWEEP_S: Final = 5.0

ENDING: Final = "gateway-stdio was told to end"

Deliver = Callable[[bytes | None], None]
"""Takes the one answer to a request; None: there will be none."""


class StdioFace:
    """Reads one client's messages and writes to it what comes of them."""

    def __init__(
        self,
        forwarder: Forwarder,
        modern: ModernFace,
        principal: Principal,
        server_id: str,
        *,
        stdin: int,
        stdout: int,
        max_line_bytes: int,
        relayed: bool,
    ) -> None:
        """``relayed``: another gateway stands between here and the server."""
        self._forwarder = forwarder
        self._modern = modern
        self._principal = principal
        self._server_id = server_id
        self._stdin = stdin
        self._max_line_bytes = max_line_bytes
        self._scope = anyio.CancelScope()
        self._session: ClientSession | None = None
        self._running: dict[bytes, _Request] = {}
        self._changed = anyio.Event()
        """Something that is being waited for may have come: an opening, room, the last answer."""

        self.era = ConnectionEra()
        self.outbox = Outbox(stdout, self.stop)
        self.words = StdioWords(server_id, relayed=relayed)

    def stop(self) -> None:
        """End now, whatever is in flight."""
        self._scope.cancel()

    def rejoin(self, _server_id: ServerId) -> None:
        """A connection to the server has opened: a session of an earlier one goes on with it."""
        if self._session is not None:
            self._session.rejoin()

    async def run(self) -> None:
        """Serve until the client closes stdin and every request has its answer, or is gone."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.outbox.run)
            tasks.start_soon(self._sweep)
            with self._scope:
                async for line in lines_from(self._stdin, self._max_line_bytes):
                    self._take(line)
                    await self._until(self._takes_more)
                    await self.outbox.room()
                self._hang_up()
                await self._until(lambda: not self._running)
                await self.outbox.flush()
            self._close()
            with anyio.move_on_after(FLUSH_S):
                await self.outbox.flush()
            tasks.cancel_scope.cancel()

    async def _sweep(self) -> None:
        """Give up what a person has not answered for too long."""
        while True:
            await anyio.sleep(SWEEP_S)
            if self._session is not None:
                self._session.sweep(-math.inf)

    def _takes_more(self) -> bool:
        """Whether the next line may be looked at.

        What follows ``initialize`` waits for it: clients that write everything at once mean it to
        be taken in order.
        """
        return not self.era.opening and len(self._running) < MAX_RUNNING

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            self._changed = anyio.Event()
            await self._changed.wait()

    # ── one line ─────────────────────────────────────────────────────────────────────────────────

    def _take(self, line: bytes | None) -> None:
        """Serve one line; nothing that is in it makes this raise."""
        message: Message | None = None
        try:
            if line is None:
                raise InvalidRequest(f"the message is over {self._max_line_bytes} bytes")
            if not line.strip():
                return
            if is_batch(line):
                self._take_batch(line)
                return
            message = decode_message(line)
            self._take_message(message, line)
        except Exception as error:  # noqa: BLE001 - a boundary: the next line is still to be served
            modern = self.era.decided is Era.MODERN
            self.outbox.send(self.words.failure(error, raw_id_of(message), modern=modern))

    def _take_message(self, message: Message, line: bytes) -> None:
        if is_response(message):
            self._answered(line)
            return
        call = call_of(message)
        if message.id is UNSET or call.id is None:
            self._notified(call)
        else:
            self._requested(call, call.id, self._deliver)

    def _take_batch(self, line: bytes) -> None:
        elements = elements_of(line)
        check_batch(elements, self._revision)
        answers = Answers(lambda all_: self._deliver(array_of(all_) if all_ else None))
        for message, text in elements:
            if is_response(message):
                self._answered(text)
                continue
            answers.expect()
            try:
                call = batched(message)
                if call.id is None:
                    self._notified(call)
                    answers.add(None)
                else:
                    self._requested(call, call.id, answers.add)
            except Exception as error:  # noqa: BLE001 - a boundary: as for a line
                answers.add(self.words.failure(error, raw_id_of(message), modern=False))
        answers.complete()

    def _answered(self, line: bytes) -> None:
        """The answer to a question, or to nothing that was asked."""
        if self._session is not None:
            with contextlib.suppress(MalformedMessage):
                self._session.answer(decode_incoming(line))

    def _notified(self, call: Call) -> None:
        if call.method == "notifications/cancelled":
            self._cancelled(call.params or {})
        elif self._session is not None:
            self._session.notification(Call(call.method, None, call.params))

    def _cancelled(self, params: Params) -> None:
        """Give up the request that is named; unknown ones are over already, and an opening is never
        given up (2025-11-25 basic/utilities/cancellation)."""
        raw_id = bytes(params.get("requestId", Raw(b"")))
        request = self._running.get(raw_id)
        if request is None or not isinstance(request.errand, Exchange):
            return
        self.finish(raw_id, None)
        request.errand.cancel(string_in(params, "reason") or "cancelled by the client")

    # ── one request ──────────────────────────────────────────────────────────────────────────────

    def _requested(self, call: Call, raw_id: bytes, deliver: Deliver) -> None:
        if raw_id in self._running:
            raise InvalidRequest("this id is still in use by an earlier request")
        era = self.era.of(call)
        request = self._running[raw_id] = _Request(deliver)
        try:
            request.errand = self._serve(call, raw_id, era)
        except Exception as error:  # noqa: BLE001 - a boundary: the id must not stay in use
            self.finish(raw_id, self.words.failure(error, raw_id, modern=era is Era.MODERN))

    def _serve(self, call: Call, raw_id: bytes, era: Era | None) -> Errand | None:
        permit = authorize_by_id(
            self._principal, Permission.MCP_CALL, self._forwarder.snapshot, self._server_id
        )
        if era is Era.MODERN:
            sink = ModernSink(self, raw_id, call.method)
            exchange = self._modern.take(permit, call, None, sink, new_request_id())
            return None if exchange.over else exchange
        if era is Era.LEGACY:
            return self._in_session(permit, call, raw_id)
        return self._forwarder.forward(
            self._principal,
            self._server_id,
            call,
            request_id=new_request_id(),
            responder=PlainSink(self, raw_id),
        )

    def _in_session(self, permit: Permit, call: Call, raw_id: bytes) -> Errand | None:
        session = self._session
        if session is None:
            means = self._forwarder.means
            session = self._session = ClientSession(means, permit, secrets.token_urlsafe(24))
            session.open_channel(self.outbox.send)
        if call.method == INITIALIZE:
            self.era.opens(raw_id)
        return session.take(call, SessionSink(self, raw_id, session), new_request_id())

    @property
    def _revision(self) -> str | None:
        """That of the session; None while there is none."""
        session = self._session
        return None if session is None or session.handshake is None else session.version

    # ── what comes of it ─────────────────────────────────────────────────────────────────────────

    def finish(self, raw_id: bytes, data: bytes | None) -> None:
        """A request is over; ``data`` is the answer to it, if there is one."""
        request = self._running.pop(raw_id, None)
        if request is None:
            return
        self.era.finished(raw_id, opened=self._revision is not None)
        self._changed.set()
        request.deliver(data)

    def _deliver(self, data: bytes | None) -> None:
        if data is not None:
            self.outbox.send(data)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────

    def _hang_up(self) -> None:
        """The client says nothing more: what would wait for it, or go on for ever, ends."""
        if self._session is not None:
            self._session.hang_up()
        self._modern.end_listening()

    def _close(self) -> None:
        self._modern.end_listening()
        self._modern.end_if(lambda _: Draining(ENDING))
        self._forwarder.end_if(lambda _: Draining(ENDING))
        if self._session is not None:
            self._session.close(ENDING)


class _Request:
    """A request that has no answer yet."""

    __slots__ = ("deliver", "errand")

    def __init__(self, deliver: Deliver) -> None:
        self.deliver = deliver
        self.errand: Errand | None = None
