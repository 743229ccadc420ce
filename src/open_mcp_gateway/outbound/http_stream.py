"""The event stream of a session that carries what belongs to no call: opened with GET, kept open.

Spec: 2025-11-25 basic/transports#listening-for-messages-from-the-server and
basic/transports#resumability-and-redelivery.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from msgspec import UNSET

from open_mcp_gateway.errors import Busy, MalformedMessage
from open_mcp_gateway.outbound.answer import Collecting, Reply, read_message
from open_mcp_gateway.outbound.http_exchange import Fault, ResponseHead
from open_mcp_gateway.outbound.link import Link
from open_mcp_gateway.outbound.salvage import members_of_batch
from open_mcp_gateway.protocol.jsonrpc import Incoming

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 30.0
"""Bounds of the pause before the stream is opened again, which doubles while nothing comes."""

LEAST_RETRY_S = 0.1
"""However soon a server wants its stream opened again: one that ends each at once would otherwise
be asked without a pause."""

STOOD_S = 30.0
"""A stream that was open for so long was well, whether anything came on it or not: some proxies
cut what is silent."""

_PASSING = frozenset({409, 429, 500, 502, 503, 504})
"""Statuses that say nothing about whether the server has such a stream; 409 comes from servers that
have not noticed yet that the one before is over."""

_log = logging.getLogger(__name__)


def stream_request(link: Link, headers: bytes, last_event_id: str | None) -> bytes:
    """A GET for an event stream; ``headers`` are the session's lines."""
    resume = b""
    if last_event_id is not None:
        resume = b"Last-Event-ID: %b\r\n" % last_event_id.encode()
    return b"%b%bAccept: text/event-stream\r\n%b\r\n" % (link.head(b"GET"), headers, resume)


def pause_s(retry_ms: int | None, attempts: int) -> float:
    """How long to wait before an attempt to open a stream again."""
    if retry_ms is not None:
        return min(max(retry_ms / 1000, LEAST_RETRY_S), LAST_RETRY_S)
    return min(FIRST_RETRY_S * 2.0**attempts, LAST_RETRY_S)


class StandingStream:
    """Opens the stream and opens it again whenever it ends, until ``close``."""

    __slots__ = (
        "_attempts",
        "_closed",
        "_denied",
        "_exchange",
        "_first",
        "_forgotten",
        "_headers",
        "_last_event_id",
        "_link",
        "_opened_s",
        "_retry_ms",
        "_take",
        "_timer",
        "_up",
    )

    def __init__(
        self,
        link: Link,
        headers: bytes,
        *,
        take: Callable[[Incoming, bytes], None],
        forgotten: Callable[[], None],
        denied: Callable[[], None],
    ) -> None:
        """``take`` gets every message; ``forgotten`` is called when the session is gone, ``denied``
        when there is no such stream any more for whatever reason."""
        self._link = link
        self._headers = headers
        self._take = take
        self._forgotten = forgotten
        self._denied = denied
        self._exchange: _Get | None = None
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._last_event_id: str | None = None
        self._retry_ms: int | None = None
        self._attempts = 0
        """To open it again, since the last event."""
        self._opened_s = 0.0
        self._up = False
        """It was open once, so the server has such streams."""
        self._closed = False

    def open(self) -> None:
        """Begin; what fails is tried again later."""
        self._timer = None
        if self._closed:
            return
        request = stream_request(self._link, self._headers, self._last_event_id)
        self._exchange = _Get(self, request, self._link.settings.max_message_bytes)
        try:
            self._link.pool.submit(self._exchange)
        except Busy:
            self._again()

    async def opened(self, patience_s: float) -> None:
        """Wait until the server has taken or refused it, but no longer than ``patience_s``."""
        await asyncio.wait({self._first}, timeout=patience_s)

    def close(self) -> None:
        """No more messages."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._exchange is not None:
            self._link.pool.withdraw(self._exchange)
            self._exchange = None
        self._settle()

    # For the exchange under way

    def begun(self) -> None:
        """The server has opened the stream."""
        self._up = True
        self._opened_s = asyncio.get_running_loop().time()
        self._settle()

    def message(self, data: bytes) -> bool:
        """One event, or a member of one; False when no more are wanted."""
        self._attempts = 0
        try:
            incoming = read_message(data)
        except MalformedMessage:
            members = members_of_batch(data)
            if not members:
                _log.debug("event that is no message skipped", extra=self._facts)
            return all(map(self.message, members))
        if incoming.method is not UNSET:  # answers have no place here
            self._take(incoming, data)
        return not self._closed

    def refused(self, status: int) -> None:
        """There is no stream: for now, or because the server has none (405) or not any more."""
        self._exchange = None
        self._settle()
        if status in _PASSING:
            self._again()
        elif status == 404 and self._up and not self._closed:
            self._closed = True
            self._forgotten()
        elif self._last_event_id is not None:  # it does not know where to go on
            self._last_event_id = None
            self._again()
        elif self._up and not self._closed:
            self._up = False
            self._denied()
        else:
            _log.debug("server has no stream of its own", extra={**self._facts, "status": status})

    def ended(self, exchange: _Get) -> None:
        """The stream is over, or the connection for it failed."""
        self._exchange = None
        if exchange.streaming and asyncio.get_running_loop().time() - self._opened_s >= STOOD_S:
            self._attempts = 0
        self._last_event_id = exchange.last_event_id or self._last_event_id
        self._retry_ms = self._retry_ms if exchange.retry_ms is None else exchange.retry_ms
        self._settle()
        self._again()

    def unreadable(self, exchange: _Get, why: str) -> None:
        """The stream cannot be read on; another one can."""
        _log.warning("stream of a server given up", extra={**self._facts, "reason": why})
        self._link.pool.withdraw(exchange)
        self.ended(exchange)

    @property
    def _facts(self) -> dict[str, object]:
        return {"server": self._link.entry.spec.id}

    def _again(self) -> None:
        if not self._closed:
            delay_s = pause_s(self._retry_ms, self._attempts)
            self._attempts += 1
            self._timer = asyncio.get_running_loop().call_later(delay_s, self.open)

    def _settle(self) -> None:
        if not self._first.done():
            self._first.set_result(None)


class _Get(Collecting):
    """One attempt."""

    __slots__ = ("_stream_of",)

    def __init__(self, stream_of: StandingStream, request: bytes, max_bytes: int) -> None:
        super().__init__(request, replayable=True, max_bytes=max_bytes)
        self._stream_of = stream_of

    def head(self, head: ResponseHead) -> None:
        super().head(head)
        if self.streaming:
            self._stream_of.begun()

    def event(self, data: bytes) -> bool:
        return self._stream_of.message(data)

    def complete(self, reply: Reply) -> None:
        self._stream_of.refused(reply.status)

    def cut(self) -> None:
        self._stream_of.ended(self)

    def refuse(self, text: str) -> None:
        self._stream_of.unreadable(self, text)

    def fell(self, fault: Fault) -> None:  # noqa: ARG002 - whatever it was, it is tried again
        self._stream_of.ended(self)
