"""One HTTP request as it arrived, before anything about it is believed."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from open_mcp_gateway.errors import HeadTooLarge, NotConfigured
from open_mcp_gateway.inbound.origin import AllowedOrigin
from open_mcp_gateway.names import KeyId, RequestId

_SANE_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_ID_CHARACTERS: Final = 20
"""80 random bits: among a thousand million requests two have the same once in a million times."""

_IDS_AT_ONCE: Final = 64
_ids: list[str] = []

MAX_HEAD_BYTES: Final = 64 * 1024
"""Request line and headers together; more is answered 431."""

UNKNOWN_SIZE: Final = 1 << 62
"""Stands for the size of a chunked body, which nobody declares: more than any limit."""


Reading = TypeVar("Reading")


def new_request_id() -> RequestId:
    """An id that, most likely, no other request has; it tells nothing of how many there were."""
    while True:
        try:
            return RequestId(_ids.pop())
        except IndexError:
            # Many at once: asking the system for each would take longer than all the rest of it.
            drawn = secrets.token_hex(_ID_CHARACTERS // 2 * _IDS_AT_ONCE)
            starts = range(0, len(drawn), _ID_CHARACTERS)
            _ids.extend([drawn[start : start + _ID_CHARACTERS] for start in starts])


class Arrival:
    """Head of a request. ``path`` and ``query`` are the raw bytes of the request target.

    Source: RFC 9112 section 3.2. ``headers`` are in order and number as received, names in lower
    case. ``origin`` and ``key_id`` are filled in by the door.
    """

    __slots__ = (
        "client",
        "declared",
        "doubled",
        "first_of",
        "headers",
        "key_id",
        "method",
        "origin",
        "path",
        "query",
        "readings",
        "request_id",
        "started_s",
    )

    def __init__(
        self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], client: str
    ) -> None:
        self.method = method
        self.path, _, self.query = target.partition(b"?")
        self.headers = headers
        self.first_of = dict(headers[::-1])  # of equal names the first wins
        self.doubled = len(self.first_of) < len(headers)
        """Some header is there more than once."""

        self.readings: dict[object, Any] = {}
        """What was made of the head, by whom; shared with every other request that has it."""

        self.declared = self.first_of.get(b"content-length", b"")
        self.client = client
        self.origin: AllowedOrigin | None = None
        self.key_id: KeyId | None = None
        self.request_id = self._request_id()
        self.started_s = time.perf_counter()

    def _request_id(self) -> RequestId:
        """The caller's own id if it is a sane token, else a new one."""
        given = self.header(b"x-request-id")
        if given is not None and _SANE_REQUEST_ID.fullmatch(given):
            return RequestId(given.decode("ascii"))
        return new_request_id()

    def header(self, wanted: bytes) -> bytes | None:
        """The first value of a header, None when it is absent."""
        return self.first_of.get(wanted)

    def read(self, reading: Callable[[Arrival], Reading]) -> Reading:
        """What ``reading`` makes of the head, which it is asked once for all the requests that have
        the same; so it may go by method, path, query and headers alone. What it raises is not kept.
        """
        try:
            made: Reading = self.readings[reading]
        except KeyError:
            made = self.readings[reading] = reading(self)
        return made

    def pending_bytes(self) -> int:
        """How long the body is said to be; ``UNKNOWN_SIZE`` for a chunked one."""
        if b"transfer-encoding" in self.first_of:
            return UNKNOWN_SIZE
        declared = self.declared
        return min(int(declared), UNKNOWN_SIZE - 1) if declared.isdigit() else 0

    def again(self, declared: bytes) -> Arrival:
        """The next request with the same head, but for the ``Content-Length`` that it declares."""
        other = Arrival.__new__(Arrival)
        other.method = self.method
        other.path = self.path
        other.query = self.query
        other.headers = self.headers
        other.client = self.client
        other.origin = self.origin
        other.key_id = self.key_id
        other.first_of = self.first_of
        other.readings = self.readings
        other.doubled = self.doubled
        other.declared = declared
        given = b"x-request-id" in self.first_of
        other.request_id = self.request_id if given else new_request_id()
        other.started_s = time.perf_counter()
        return other

    def check_coding(self) -> None:
        """Raises NotConfigured for a coding that is not undone here (RFC 9112 section 6.1)."""
        if b"transfer-encoding" not in self.first_of:
            return
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            text = "send the body with 'Transfer-Encoding: chunked' or a Content-Length"
            raise NotConfigured(text, code="unknown_transfer_coding")

    def check_size(self) -> None:
        """Raises HeadTooLarge if request line and headers are over ``MAX_HEAD_BYTES``."""
        size = len(self.method) + len(self.path) + len(self.query)
        size += sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            raise HeadTooLarge(f"headers over {MAX_HEAD_BYTES} bytes")
