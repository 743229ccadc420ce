"""One request on a connection, from its head to the bytes of its answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.inbound.admission import Admitted
from open_mcp_gateway.inbound.arrival import Arrival
from open_mcp_gateway.inbound.handlers import Abandonable
from open_mcp_gateway.inbound.outlet import HotOutlet
from open_mcp_gateway.pipeline.reply import Headers, Reply

_NO_BODY = frozenset({204, 304})
_PLAIN_SUCCESS = (
    b"HTTP/1.1 200 OK\r\n"
    b"date: %b\r\n"
    b"cache-control: no-store\r\n"
    b"vary: Authorization, X-API-Key\r\n"
    b"x-request-id: %b\r\n"
    b"%b"
    b"content-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b"
)


class Owner(Protocol):
    """The connection as its requests see it."""

    def answer(self, turn: Turn, reply: Reply) -> None:
        """Write the answer to ``turn``, if it is still wanted."""

    def open_stream(self, turn: Turn, headers: Headers) -> HotOutlet:
        """Begin to answer ``turn`` with an event stream."""


class Turn:
    """A request and the place of its answer; a Responder."""

    __slots__ = (
        "admitted",
        "arrival",
        "body",
        "chunked",
        "exchange",
        "keep_alive",
        "outlet",
        "owner",
        "queued",
        "refusal",
        "size",
        "unread",
    )

    def __init__(self, owner: Owner, arrival: Arrival, *, keep_alive: bool) -> None:
        self.owner = owner
        self.arrival = arrival
        self.keep_alive = keep_alive
        self.admitted: Admitted | None = None
        self.refusal: GatewayError | None = None
        self.body: bytes | bytearray = b""
        """What came in one piece as that; else one buffer, whatever the pieces, as each of millions
        of tiny ones has its own overhead."""

        self.chunked = True
        """A stream can end without the connection; not so before HTTP/1.1."""

        self.outlet: HotOutlet | None = None
        self.size = 0
        self.exchange: Abandonable | None = None
        self.queued = False
        """All that is needed for its answer is there; what still arrives of it is dropped."""

        self.unread = False
        """Its end was never found, so neither was the beginning of whatever follows."""

    @property
    def expects_continue(self) -> bool:
        """Whether its sender waits to be asked for the body, which nobody needs otherwise."""
        waits = self.admitted is not None and self.admitted.expects_continue
        return waits and not self.queued and not self.size

    def take(self, piece: bytes) -> None:
        """More of the body."""
        if not self.body:
            self.body = piece
            return
        if isinstance(self.body, bytes):
            self.body = bytearray(self.body)
        self.body += piece

    def respond(self, reply: Reply) -> None:
        self.owner.answer(self, reply)

    def open_stream(self, headers: Headers = ()) -> HotOutlet:
        """See ``Responder``."""
        return self.owner.open_stream(self, headers)

    def plain(self, reply: Reply) -> bool:
        """Whether this is the commonest answer, which needs nothing looked up."""
        arrival = self.arrival
        return bool(
            reply.status == 200
            and reply.body
            and arrival.origin is None
            and arrival.method == b"POST"
        )

    def rendered_plainly(self, reply: Reply, date: bytes) -> bytes:
        """What ``Dispatcher.finish`` and ``rendered`` make of such an answer."""
        body, more = reply.body, b""
        for header in reply.headers:
            more += b"%b: %b\r\n" % header
        request_id = self.arrival.request_id.encode("ascii")
        return _PLAIN_SUCCESS % (date, request_id, more, len(body), body)

    def head(self, reply: Reply, more_headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
        """Status line and headers, in pieces."""
        parts = [STATUS_LINE[reply.status]]
        for name, value in (*more_headers, *reply.headers):
            parts += (name, b": ", value, b"\r\n")
        return parts

    def rendered(
        self, reply: Reply, more_headers: Iterable[tuple[bytes, bytes]], *, keep_alive: bool
    ) -> bytes:
        """``reply`` as it goes over the wire."""
        parts = self.head(reply, more_headers)
        if reply.body:
            parts.append(b"content-type: application/json\r\n")
        if reply.status not in _NO_BODY:
            parts.append(b"content-length: %d\r\n" % len(reply.body))
        if not keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        if self.arrival.method != b"HEAD":
            parts.append(reply.body)
        return b"".join(parts)


class Line(Owner, Protocol):
    """The connection as its intake sees it."""

    def enqueue(self, turn: Turn) -> None:
        """``turn`` can be answered as soon as those before it are."""

    def invite(self) -> None:
        """The client that is sending now may be waiting to be asked for its body."""

    def large_body(self) -> None:
        """More of a body has arrived than is kept before its turn has come."""

    def rest_read(self) -> None:
        """The end of a request that was answered before."""
