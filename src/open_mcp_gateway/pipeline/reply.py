"""The answer to one HTTP request, before any transport writes it."""

from __future__ import annotations

import logging
from typing import Final, Protocol

from msgspec import Struct

from open_mcp_gateway.errors import (
    Denied,
    GatewayError,
    InternalError,
    Unauthenticated,
    WrongKey,
)
from open_mcp_gateway.protocol.faults import FAULTS, rpc_body

log = logging.getLogger(__name__)

Headers = tuple[tuple[bytes, bytes], ...]


class Reply(Struct, frozen=True):
    """Status, body and extra headers; the transport adds length, date and connection handling."""

    status: int
    body: bytes = b""
    """JSON; empty sends no ``Content-Type``."""

    headers: Headers = ()
    """Lower-case names."""


class Outlet(Protocol):
    """An open event stream to one client. The transport keeps it alive with comments."""

    def send(self, chunk: bytes) -> bool:
        """Write whole events; False when the client is gone or was cut off as too slow."""

    def close(self) -> None:
        """End the stream in the orderly way. Safe to call twice."""


class Responder(Protocol):
    """Whoever is owed the reply to one request: exactly one of the two is called, once."""

    def respond(self, reply: Reply) -> None: ...

    def open_stream(self, headers: Headers = ()) -> Outlet:
        """Answer 200 with an event stream instead of one body."""


EVENT_STREAM: Headers = (
    (b"content-type", b"text/event-stream"),
    (b"x-accel-buffering", b"no"),
)
"""Headers of every event stream; the second keeps nginx from holding events back."""

ACCEPTED = Reply(202)

AUTH_REASON: Final = b"x-auth-reason"

_CHALLENGES: Final[dict[type[GatewayError], Headers]] = {
    Unauthenticated: ((b"www-authenticate", b'Bearer realm="mcp-gateway"'),),
    WrongKey: ((b"www-authenticate", b'Bearer realm="mcp-gateway", error="invalid_token"'),),
}
"""RFC 6750 section 3: no ``error`` where no key was sent."""

_INSUFFICIENT: Final = b'Bearer realm="mcp-gateway", error="insufficient_scope", scope="%b"'
"""RFC 6750 section 3.1."""


def failure_of(error: Exception, raw_id: bytes | None, request_id: str) -> GatewayError:
    """What whoever sent the message ``raw_id`` is told of ``error``, which ended the work on it.

    An exception that nobody foresaw goes to the log in full, and is told as an internal error.
    """
    if not isinstance(error, GatewayError):
        log.error("request failed", exc_info=error, extra={"request_id": request_id})
        error = InternalError("internal error")
    if raw_id is not None:
        error.request_id = raw_id
    return error


def rpc_failure(error: GatewayError, request_id: str) -> Reply:
    """The reply to an MCP request that the gateway itself failed."""
    headers = challenge(error) + retry_after(error)
    return Reply(FAULTS[type(error)].status, rpc_body(error, request_id), headers)


def challenge(error: GatewayError) -> Headers:
    """``WWW-Authenticate`` for ``error``, and why a known key does not open; or nothing."""
    if isinstance(error, Denied):
        return ((b"www-authenticate", _INSUFFICIENT % error.permission.encode("ascii")),)
    headers = _CHALLENGES.get(type(error), ())
    if isinstance(error, WrongKey) and error.reason is not None:
        headers += ((AUTH_REASON, error.reason.encode("ascii")),)
    return headers


def retry_after(error: GatewayError) -> Headers:
    """The ``Retry-After`` header for ``error`` (RFC 9110 section 10.2.3), or nothing."""
    if error.retry_after_s is None:
        return ()
    return ((b"retry-after", b"%d" % max(1, error.retry_after_s)),)


def failed(error: Exception, raw_id: bytes | None, request_id: str) -> Reply:
    """The reply to the MCP request ``raw_id`` that ended in ``error``, whatever it is."""
    return rpc_failure(failure_of(error, raw_id, request_id), request_id)
