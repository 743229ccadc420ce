"""What can stand behind a route: the shapes of handlers, and what they are given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias

import msgspec
from msgspec import UNSET, Raw, Struct

from open_mcp_gateway.access.permit import Clearance, Permit
from open_mcp_gateway.auth.principal import Principal
from open_mcp_gateway.errors import InvalidRequest, MalformedMessage, UnsupportedMedia
from open_mcp_gateway.inbound.arrival import UNKNOWN_SIZE, Arrival
from open_mcp_gateway.pipeline.reply import Reply, Responder
from open_mcp_gateway.protocol.messages import Message, text_of
from open_mcp_gateway.protocol.surrogates import Lenient

MANAGEMENT_BODY_BYTES: Final = 256 * 1024
"""More than any request to these routes needs: all of a body is read on the event loop."""

_WITH_BODY: Final = frozenset({b"POST", b"PUT", b"PATCH"})
_anything = Lenient(Raw)


class Probe(Struct, frozen=True):
    """Serves a route that is open to everybody: knows nothing of the request."""

    answer: Callable[[], Reply]


class OnGateway(Struct, frozen=True):
    """Serves a route about the gateway as a whole; gets the raw query string too."""

    run: Callable[[Clearance, bytes], Awaitable[Reply]]


class OnServer(Struct, frozen=True):
    """Serves a route about one server."""

    run: Callable[[Permit], Awaitable[Reply]]


class Request(Struct, frozen=True):
    """What an administrative route is asked, as received."""

    ref: str
    """What stands in the place of the placeholder; empty where the path has none."""

    query: bytes
    body: bytes
    arrival: Arrival


class OnRequest(Struct, frozen=True):
    """Serves a route about the gateway that reads more of a request than its query string."""

    run: Callable[[Clearance, Request], Awaitable[Reply]]
    max_body_bytes: int = MANAGEMENT_BODY_BYTES


class OnCaller(Struct, frozen=True):
    """Serves a route that tells a caller about itself."""

    run: Callable[[Principal, Request], Awaitable[Reply]]
    max_body_bytes: int = MANAGEMENT_BODY_BYTES


class McpPoint(Struct, frozen=True):
    """Takes MCP messages for the server that ``server_of`` finds named in the request.

    ``server_of`` raises InvalidRequest if none is named.
    """

    server_of: Callable[[Arrival, Message], str]


class Abandonable(Protocol):
    """What is told when the client of a request goes away while the outcome is open."""

    def abandon(self) -> None: ...


class McpStream(Struct, frozen=True):
    """Serves an MCP endpoint of one server; sees the request itself."""

    serve: Callable[[Arrival, Permit, bytes, Responder], Abandonable | None]


class Visits(Protocol):
    """Serves the requests that one caller makes with one head."""

    def serve(self, arrival: Arrival, body: bytes, responder: Responder) -> Abandonable | None:
        """Serve one. Never raises; ``responder`` hears of it, maybe before this returns."""


class McpVisits(Struct, frozen=True):
    """Serves an MCP endpoint of one server to clients that repeat their heads.

    ``enter`` is asked once for all requests with the same head, as long as the permit holds.
    """

    enter: Callable[[Arrival, Permit], Visits]


Handler: TypeAlias = (
    Probe | OnGateway | OnServer | OnRequest | OnCaller | McpPoint | McpStream | McpVisits
)


def most_bytes_of(handler: Handler) -> int:
    """How long a body may be for it alone; ``UNKNOWN_SIZE`` where the gateway's limit is the only
    one."""
    return handler.max_body_bytes if isinstance(handler, OnRequest | OnCaller) else UNKNOWN_SIZE


def check_json(arrival: Arrival) -> None:
    """Raises UnsupportedMedia if the body is not JSON by its own account.

    InvalidRequest if it has two accounts: which of them counts, programs on the way may see
    otherwise.
    """
    media = arrival.read(_media_type)
    if media is None:
        raise InvalidRequest("Content-Type is there twice; send it once")
    if media != b"application/json":
        raise UnsupportedMedia("send the body as 'Content-Type: application/json'")


def _media_type(arrival: Arrival) -> bytes | None:
    """What a body is by its own account, JSON if it has none; None: it has two."""
    if arrival.doubled and sum(name == b"content-type" for name, _ in arrival.headers) > 1:
        return None
    media = arrival.header(b"content-type")
    return b"application/json" if media is None else media.partition(b";")[0].strip().lower()


def check_body(arrival: Arrival, body: bytes) -> None:
    """What the door checks of a body before it speaks of routes and permissions.

    Only for who fails at one of these: where a body is read, it is checked anyway.

    Raises:
        UnsupportedMedia: it is not JSON by its own account.
        MalformedMessage: it is not JSON.
    """
    if not body or arrival.method not in _WITH_BODY:
        return
    check_json(arrival)
    try:
        body.decode()
        _anything.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedMessage("the body is not JSON") from None


def server_in_envelope(_: Arrival, message: Message) -> str:
    """The server that ``POST /mcp`` is about: the member ``server_id``."""
    if message.server_id is UNSET:
        raise InvalidRequest(
            "this version serves no bare MCP on this path yet: put 'server_id' into the object, "
            'as in {"server_id": "...", "method": "tools/list"}, or POST to /rpc with X-Server-ID'
        )
    return text_of(message.server_id, "server_id")


def server_in_header(arrival: Arrival, _: Message) -> str:
    """The server that ``POST /rpc`` is about: the header ``X-Server-ID``, exactly once."""
    named = [value for name, value in arrival.headers if name == b"x-server-id"]
    if len(named) != 1 or not named[0].strip():
        raise InvalidRequest("name the server in one X-Server-ID header")
    return named[0].strip().decode("ascii", "backslashreplace")
