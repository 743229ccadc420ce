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
from msgspec import Struct

from open_mcp_gateway.outbound.decompress import BadCoding, Inflater

MAX_HEAD_BYTES = 64 * 1024
"""Longest status line with headers; servers of MCP send well under one KiB."""


class Fault(Struct, frozen=True):
    """Why an exchange will have no (whole) answer."""

    text: str
    """Completes the sentence "Server 'x' …"."""

    sent: bool
    """Something of the request may have reached the server."""


class ResponseHead:
    """The parts of a response's head that anybody here reads."""

    __slots__ = ("coding", "content_type", "framed", "location", "session_id", "status")

    def __init__(self) -> None:
        self.status = 0
        self.content_type = b""
        self.coding = b""
        self.location = b""
        self.session_id = b""
        self.framed = False
        """The end of the body shows otherwise than by the end of the connection."""


class Exchange:
    """One request and whoever takes its response. The callbacks must not raise."""

    __slots__ = ("connection", "replayable", "request", "retried")

    def __init__(self, request: bytes, *, replayable: bool) -> None:
        self.request = request
        self.replayable = replayable
        """Sending it twice does no harm (RFC 9110 section 9.2.2)."""
        self.retried = False
        self.connection: Connection | None = None

    def head(self, head: ResponseHead) -> None:
        """The head has come; interim (1xx) ones are not shown."""

    def chunk(self, data: bytes) -> None:
        """Some of the body, content coding undone."""

    def done(self) -> None:
        """The response is complete; the connection is free again."""

    def fell(self, fault: Fault) -> None:
        """There will be no complete response."""


class Home(Protocol):
    """Where a connection belongs."""

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
_CLOSED_EARLY = "closed the connection without answering; the call may have taken effect"
_CUT = "broke off in the middle of its answer; the call may have taken effect"
_NOT_HTTP = "does not answer in HTTP; check `url`"


MAX_KEPT_HEADS = 16
MAX_KEPT_HEAD_BYTES = 1024
"""Of one connection: heads, as bytes, whose meaning is known because they were parsed before."""

_HEAD_END = b"\r\n\r\n"
_UNFRAMED = 0
"""Stands for the length of a body whose end shows in another way."""


class Connection(asyncio.Protocol):
    """The bytes of one connection, and the exchange it is busy with."""

    __slots__ = (
        "_answered",
        "_head",
        "_head_bytes",
        "_headed",
        "_heard",
        "_home",
        "_inflater",
        "_interim",
        "_keep",
        "_kept",
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
        self._kept: dict[bytes, tuple[ResponseHead, int]] = {}
        """What the bytes of a head mean, and the length of the body after it."""
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
        self.transport.write(exchange.request)

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
        if fresh and self._kept and self._repeated(data, exchange):
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break(Fault(_NOT_HTTP, sent=True))
            return
        except httptools.HttpParserError:
            self._break(Fault(_CUT if self._headed else _NOT_HTTP, sent=True))
            return
        if self._answered:
            if fresh and self._keep and self._length:
                self._keep_head(data, self._length)
            self._finish()
        elif not self._headed:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._break(Fault(f"sent headers of over {MAX_HEAD_BYTES} bytes", sent=True))

    def connection_lost(self, exc: Exception | None) -> None:
        exchange, self.exchange = self.exchange, None
        self._home.lost(self)
        if exchange is None:
            return
        exchange.connection = None
        if self._headed and not self._head.framed and exc is None:
            self._end(exchange)  # RFC 9112 section 6.3, rule 8: the body ends with the connection
        elif self._heard:
            exchange.fell(Fault(_CUT, sent=True))
        elif self.used and exchange.replayable and not exchange.retried:
            exchange.retried = True
            self._home.resubmit(exchange)
        else:
            exchange.fell(Fault(_CLOSED_EARLY, sent=True))

    def _repeated(self, data: bytes, exchange: Exchange) -> bool:
        """Take a whole response whose head is, byte for byte, one that was parsed before.

        The parser is between two responses, so it would find again what it found then.
        """
        end = data.find(_HEAD_END) + len(_HEAD_END)
        kept = self._kept.get(data[:end])
        if kept is None or len(data) != end + kept[1]:
            return False
        self._head = kept[0]
        self._inflater = None
        self._headed = self._answered = self._keep = True
        exchange.head(kept[0])
        if self.exchange is exchange:
            exchange.chunk(data[end:])
        self._finish()
        return True

    def _keep_head(self, data: bytes, length: int) -> None:
        """``data`` was one whole response with a body of ``length`` bytes: remember what its head
        means."""
        end = data.find(_HEAD_END) + len(_HEAD_END)
        plain = self._inflater is None and self._head.status not in _BODILESS
        if end > MAX_KEPT_HEAD_BYTES or len(data) != end + length or not plain:
            return
        if len(self._kept) >= MAX_KEPT_HEADS:
            self._kept.clear()
        self._kept[data[:end]] = (self._head, length)

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
                self._break(Fault(f"sent an answer that cannot be read: {error}", sent=True))
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
            self._break(Fault(f"sent an answer that cannot be read: {error}", sent=True))

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        else:
            self._answered = True

    # Ends

    def _finish(self) -> None:
        exchange, self.exchange = self.exchange, None
        self.used = True
        if self._keep and not self.transport.is_closing():
            self._home.release(self)
        else:
            self.transport.close()
        if exchange is not None:
            exchange.connection = None
            self._end(exchange)

    def _end(self, exchange: Exchange) -> None:
        if self._inflater is not None and not self._inflater.complete:
            exchange.fell(Fault(_CUT, sent=True))
        else:
            exchange.done()

    def _break(self, fault: Fault) -> None:
        exchange = self.exchange
        self.drop()
        if exchange is not None:
            exchange.fell(fault)


class Drain(Exchange):
    """Takes the rest of a response that nobody needs."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(b"", replayable=False)
