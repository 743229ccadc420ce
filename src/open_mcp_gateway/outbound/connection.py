"""One HTTP/1.1 connection to a server: one exchange at a time, in callbacks alone.

Nothing here makes a task, a future or a closure per request; see the pool for who gets a
connection and when. Sources: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import asyncio
import select
import sys
from typing import Protocol, cast

import httptools

from open_mcp_gateway.outbound.decompress import BadCoding, Inflater
from open_mcp_gateway.outbound.http_exchange import Drain, Exchange, Fault, ResponseHead
from open_mcp_gateway.protocol.heads import KnownHeads
from open_mcp_gateway.writes import Writes

MAX_HEAD_BYTES = 64 * 1024
"""Longest status line with headers; servers of MCP send well under one KiB."""


class Home(Protocol):
    """Where a connection belongs."""

    writes: Writes

    def release(self, connection: Connection) -> None:
        """It can take the next exchange."""

    def lost(self, connection: Connection) -> None:
        """It is gone."""

    def resubmit(self, exchange: Exchange) -> None:
        """Send an exchange that provably was not answered, and may be repeated, once more."""


_FIELDS = {
    b"content-type": "content_type",
    b"content-encoding": "coding",
    b"location": "location",
    b"mcp-session-id": "session_id",
}
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_BODILESS = frozenset({204, 304})
_CLOSED_EARLY = "closed the connection without answering"
_CUT = "broke off in the middle of its answer"
_NOT_HTTP = "does not answer in HTTP; check `url`"


_UNFRAMED = 0
"""Stands for the length of a body whose end shows in another way."""


class Connection(asyncio.Protocol):
    """The bytes of one connection, and the exchange it is busy with."""

    __slots__ = (
        "_answered",
        "_head",
        "_head_bytes",
        "_headed",
        "_heads",
        "_heard",
        "_home",
        "_inflater",
        "_interim",
        "_keep",
        "_length",
        "_parser",
        "exchange",
        "free_since_s",
        "transport",
        "used",
    )

    transport: asyncio.Transport

    def __init__(self, home: Home) -> None:
        self._home = home
        self._parser = httptools.HttpResponseParser(self)
        self._head = ResponseHead()
        self._inflater: Inflater | None = None
        self._heard = self._headed = self._answered = self._interim = self._keep = False
        self._head_bytes = 0
        self._length: int | None = None
        """Of the body, as declared; None before that is known."""
        self._heads: KnownHeads[ResponseHead] = KnownHeads()
        self.exchange: Exchange | None = None
        self.used = False
        """It has carried an exchange before the present one."""
        self.free_since_s = 0.0

    # What the pool asks of it

    def begin(self, exchange: Exchange) -> None:
        """Send the exchange now; the connection must be free."""
        self.exchange = exchange
        exchange.connection = self
        self._heard = self._headed = self._answered = False
        self._head_bytes = 0
        self._home.writes.add(self.transport, exchange.request)

    @property
    def quiet(self) -> bool:
        """Nothing waits to be read: neither the server's goodbye nor anything unasked."""
        if sys.platform == "win32":  # no poll there; the loop's own word has to do
            return True
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def drain(self) -> None:
        """The exchange has all it wanted; read to the end so that the connection can be reused."""
        if self.exchange is not None and not self._answered:
            self.exchange.connection = None
            self.exchange = Drain()

    def drop(self) -> None:
        """Close at once; the exchange, if any, hears nothing more."""
        if self.exchange is not None:
            self.exchange.connection = None
            self.exchange = None
        self.transport.abort()

    def close(self) -> None:
        """Say goodbye properly; only for a free connection."""
        self.transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Streams give both directions; uvloop's transports are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:  # unasked, or after a drop
            self.transport.abort()
            return
        fresh = not self._heard
        self._heard = True
        if fresh and self._heads and self._repeated(data, exchange):
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break(Fault(_NOT_HTTP, sent=True))
            return
        except httptools.HttpParserError:
            headed = self._headed
            self._break(Fault(_CUT if headed else _NOT_HTTP, sent=True, doubtful=headed))
            return
        if self._answered:
            plain = self._inflater is None and self._head.status not in _BODILESS
            if fresh and self._keep and self._length and plain:
                self._heads.keep(data, self._length, self._head)
            self._finish()
        elif not self._headed:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._break(
                    Fault(f"sent headers of over {MAX_HEAD_BYTES} bytes", sent=True, doubtful=True)
                )

    def connection_lost(self, exc: Exception | None) -> None:
        exchange, self.exchange = self.exchange, None
        self._home.lost(self)
        if exchange is None:
            return
        exchange.connection = None
        if self._headed and not self._head.framed and exc is None:
            self._end(exchange)  # RFC 9112 section 6.3, rule 8: the body ends with the connection
        elif self._heard:
            exchange.fell(Fault(_CUT, sent=True, doubtful=True))
        elif self.used and exchange.replayable and not exchange.retried:
            exchange.retried = True
            self._home.resubmit(exchange)
        else:
            exchange.fell(Fault(_CLOSED_EARLY, sent=True, doubtful=True))

    def _repeated(self, data: bytes, exchange: Exchange) -> bool:
        """Take ``data`` without the parser if it is a whole response with a known head."""
        found = self._heads.find(data)
        if found is None:
            return False
        self._answered = True
        self._free()
        exchange.connection = None
        exchange.whole(*found)
        return True

    # httptools

    def on_message_begin(self) -> None:
        if self._answered:  # a second answer in the same read: nothing after it can be trusted
            self._keep = False
            return
        self._head = ResponseHead()
        self._inflater = None
        self._length = None

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _FRAMING:
            self._head.framed = True
            if name != b"content-length":
                self._length = _UNFRAMED
            elif self._length is None and value.isdigit():
                self._length = int(value)
            return
        slot = _FIELDS.get(name)
        if slot is not None and not self._answered:
            setattr(self._head, slot, value)

    def on_headers_complete(self) -> None:
        if self._answered or self.exchange is None:
            return
        head = self._head
        head.status = self._parser.get_status_code()
        if head.status < 200:
            self._interim = True
            return
        self._headed = True
        self._keep = self._parser.should_keep_alive()
        if head.status in _BODILESS:
            head.framed = True
        if head.coding and head.coding.lower() != b"identity":
            try:
                self._inflater = Inflater(head.coding.lower())
            except BadCoding as error:
                self._unreadable(error)
                return
        self.exchange.head(head)

    def on_body(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None or self._answered:
            return
        if self._inflater is None:
            exchange.chunk(data)
            return
        try:
            for piece in self._inflater.feed(data):
                exchange.chunk(piece)
                if self.exchange is not exchange:  # it had enough
                    return
        except BadCoding as error:
            self._unreadable(error)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        else:
            self._answered = True

    # Ends

    def _finish(self) -> None:
        exchange = self.exchange
        self._free()
        if exchange is not None:
            exchange.connection = None
            self._end(exchange)

    def _free(self) -> None:
        """Let go of the exchange, which has its answer; a good connection takes the next one."""
        self.exchange = None
        self.used = True
        if self._keep and not self.transport.is_closing():
            self._home.release(self)
        else:
            self.transport.close()

    def _end(self, exchange: Exchange) -> None:
        if self._inflater is not None and not self._inflater.complete:
            exchange.fell(Fault(_CUT, sent=True, doubtful=True))
        else:
            exchange.done()

    def _unreadable(self, error: BadCoding) -> None:
        text = f"sent an answer that cannot be read: {error}"
        self._break(Fault(text, sent=True, doubtful=True))

    def _break(self, fault: Fault) -> None:
        exchange = self.exchange
        self.drop()
        if exchange is not None:
            exchange.fell(fault)
