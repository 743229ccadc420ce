"""One request over HTTP, and whoever takes its response; what carries it is a connection."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class Fault(Struct, frozen=True):
    """Why an exchange will have no (whole) answer."""

    text: str
    """Completes the sentence "Server 'x' …"."""

    sent: bool
    """Something of the request may have reached the server."""

    doubtful: bool = False
    """If the request was a call, nobody can tell whether it took effect."""


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


class Carrier(Protocol):
    """The connection that an exchange is on."""

    exchange: Exchange | None

    def drain(self) -> None:
        """The exchange has all it wanted; read to the end so that the connection can be reused."""

    def drop(self) -> None:
        """Close at once; the exchange, if any, hears nothing more."""


class Exchange:
    """One request and whoever takes its response. The callbacks must not raise."""

    __slots__ = ("connection", "replayable", "request", "retried")

    def __init__(self, request: bytes, *, replayable: bool) -> None:
        self.request = request
        self.replayable = replayable
        """Sending it twice does no harm (RFC 9110 section 9.2.2)."""
        self.retried = False
        self.connection: Carrier | None = None

    def head(self, head: ResponseHead) -> None:
        """The head has come; interim (1xx) ones are not shown."""

    def chunk(self, data: bytes) -> None:
        """Some of the body, content coding undone."""

    def done(self) -> None:
        """The response is complete; the connection is free again."""

    def whole(self, head: ResponseHead, body: bytes) -> None:
        """``head``, ``chunk`` and ``done`` in one, where all has come at once."""
        self.head(head)
        self.chunk(body)
        self.done()

    def fell(self, fault: Fault) -> None:
        """There will be no complete response."""


class Drain(Exchange):
    """Takes the rest of a response that nobody needs."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(b"", replayable=False)
