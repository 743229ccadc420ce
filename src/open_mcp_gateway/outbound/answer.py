"""Collecting what a server answers to one POST: a JSON body, or an event stream of messages."""

from __future__ import annotations

import asyncio

import msgspec
from msgspec import UNSET, Struct

from open_mcp_gateway.errors import MalformedMessage
from open_mcp_gateway.outbound.http_exchange import Exchange, Fault, ResponseHead
from open_mcp_gateway.protocol.jsonrpc import Incoming, decode_incoming
from open_mcp_gateway.protocol.sse import EventTooLarge, SseDecoder
from open_mcp_gateway.protocol.surrogates import Lenient

REDIRECTS = frozenset({301, 302, 303, 307, 308})
REPEATING_REDIRECTS = frozenset({307, 308})
"""Those that keep method and body (RFC 9110 section 15.4)."""

MAX_REDIRECTS = 3


class _Code(Struct):
    code: int = 0


_code = Lenient(_Code)


class Reply(Struct, frozen=True):
    """A response with its whole body; of an event stream, the one message that was asked for."""

    status: int
    content_type: bytes
    body: bytes
    location: bytes = b""
    session_id: bytes = b""

    @property
    def message(self) -> Incoming | None:
        """The JSON-RPC response in the body; None when there is none."""
        return response_in(self.body)


def response_in(body: bytes) -> Incoming | None:
    """The JSON-RPC response that ``body`` is, with exactly one of result and error."""
    try:
        incoming = read_message(body)
    except MalformedMessage:
        return None
    return incoming if incoming.method is UNSET and is_response(incoming) else None


def read_message(data: bytes) -> Incoming:
    """One message, checked to be JSON in UTF-8 as a whole.

    Raises:
        MalformedMessage: it is not.
    """
    incoming = decode_incoming(data)
    if not data.isascii():
        try:
            data.decode()  # the decoder skips over strings without checking their UTF-8
        except UnicodeDecodeError as error:
            raise MalformedMessage("not UTF-8") from error
    return incoming


def is_response(incoming: Incoming) -> bool:
    """It has the marks of a response (JSON-RPC 2.0 section 5)."""
    return incoming.jsonrpc == "2.0" and (incoming.result is UNSET) != (incoming.error is UNSET)


def error_code(answer: Incoming) -> int | None:
    """The code of an error response; 0 when it has none, None for a result."""
    if answer.error is UNSET:
        return None
    try:
        return _code.decode(answer.error).code
    except msgspec.DecodeError:
        return 0


def _streams(head: ResponseHead) -> bool:
    return head.status < 300 and head.content_type[:17].lower() == b"text/event-stream"


class Collecting(Exchange):
    """Gathers a body within a bound, or reads events as they come. Subclasses take the outcome."""

    __slots__ = ("_head", "_max_bytes", "_parts", "_size", "_stream", "last_event_id")

    def __init__(self, request: bytes, *, replayable: bool, max_bytes: int) -> None:
        super().__init__(request, replayable=replayable)
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._stream: SseDecoder | None = None
        self._head: ResponseHead | None = None
        self.last_event_id: str | None = None
        """The id of the last whole event; None while events had none."""

    @property
    def streaming(self) -> bool:
        """The response, as far as it has come, is an event stream."""
        return self._stream is not None

    @property
    def retry_ms(self) -> int | None:
        """How long the server wants a break of the stream to last."""
        return None if self._stream is None else self._stream.retry_ms

    # What subclasses decide

    def complete(self, reply: Reply) -> None:
        """A whole response that was no event stream."""

    def event(self, data: bytes) -> bool:
        """One message of an event stream; False when no more are wanted."""
        raise NotImplementedError

    def cut(self) -> None:
        """The event stream ended while messages were still wanted."""

    def refuse(self, text: str) -> None:
        """The response breaks a rule; the connection is to be given up."""

    # Exchange

    def whole(self, head: ResponseHead, body: bytes) -> None:
        if len(body) > self._max_bytes or _streams(head):
            super().whole(head, body)
        else:
            self._stream = None
            self.complete(
                Reply(head.status, head.content_type, body, head.location, head.session_id)
            )

    def head(self, head: ResponseHead) -> None:
        self._head = head
        self._parts = []
        self._size = 0
        self._stream = None
        if _streams(head):
            self._stream = SseDecoder(self._max_bytes)

    def chunk(self, data: bytes) -> None:
        if self._stream is not None:
            self._events(self._stream, data)
            return
        self._size += len(data)
        if self._size > self._max_bytes:
            self.refuse(f"sent an answer of over {self._max_bytes} bytes")
        else:
            self._parts.append(data)

    def done(self) -> None:
        head = self._head
        if head is None or self._stream is not None:
            self.cut()
            return
        body = b"".join(self._parts)
        self._parts = []
        self.complete(Reply(head.status, head.content_type, body, head.location, head.session_id))

    def _events(self, stream: SseDecoder, data: bytes) -> None:
        try:
            events = stream.feed(data)
        except EventTooLarge as error:
            self.refuse(f"sent too much at once: {error}")
            return
        for event in events:
            if event.id is not None:
                self.last_event_id = event.id
            # Any other type of event is not MCP's; empty data only primes a resumption.
            if event.type == "message" and event.data and not self.event(event.data):
                return


class Fell(Exception):
    """No complete response came."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault


class Ask(Collecting):
    """One request off the hot path, awaited: handshakes, probes, goodbyes."""

    __slots__ = ("_id", "outcome")

    def __init__(
        self, request: bytes, upstream_id: int | None, *, replayable: bool, max_bytes: int
    ) -> None:
        super().__init__(request, replayable=replayable, max_bytes=max_bytes)
        self._id = upstream_id
        self.outcome: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def complete(self, reply: Reply) -> None:
        self._settle(reply)

    def event(self, data: bytes) -> bool:
        incoming = response_in(data)
        if incoming is None or incoming.id != self._id:
            return True
        head = self._head
        if head is not None:
            self._settle(Reply(head.status, head.content_type, data, b"", head.session_id))
        return False

    def cut(self) -> None:
        self.fell(Fault("ended its event stream before answering", sent=True))

    def refuse(self, text: str) -> None:
        self.fell(Fault(text, sent=True))

    def fell(self, fault: Fault) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(Fell(fault))

    def _settle(self, reply: Reply) -> None:
        if not self.outcome.done():
            self.outcome.set_result(reply)
