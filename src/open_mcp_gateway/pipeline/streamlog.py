"""Event streams of a session that can be picked up again after a broken connection.

Spec: 2025-11-25 basic/transports#resumability-and-redelivery. Event ids are ``stream-number``,
unique within the session; a stream is replayed from its own log only.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from open_mcp_gateway.pipeline.reply import Outlet
from open_mcp_gateway.protocol.sse import encode_event

MAX_EVENTS: Final = 256
MAX_BYTES: Final = 1024 * 1024
"""Kept of one stream, whichever is reached first; older events cannot be replayed."""

RETRY_MS: Final = 1000
"""How long a client shall wait before it comes back."""


class StreamLog:
    """One stream: what was sent lately, and where to send more."""

    __slots__ = ("_ended_s", "_events", "_number", "_outlet", "ended", "size_bytes", "stream_id")

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id
        self.ended = False
        """The last event was sent; the stream is only kept for those who missed it."""

        self._events: deque[tuple[int, bytes]] = deque()
        self.size_bytes = 0
        """What is kept of it."""

        self._ended_s: float | None = None
        self._number = 0
        self._outlet: Outlet | None = None

    @property
    def connected(self) -> bool:
        """Whether somebody reads it now."""
        return self._outlet is not None

    def gave(self, number: int) -> bool:
        """Whether a client can have seen an event of that number; priming ones count as well."""
        return number <= self._number

    def send(self, data: bytes) -> None:
        """One message, to whoever reads now or picks the stream up later."""
        self._number += 1
        chunk = encode_event(data, event_id=self._id(self._number))
        self._events.append((self._number, chunk))
        self.size_bytes += len(chunk)
        events = self._events
        while len(events) > MAX_EVENTS or (self.size_bytes > MAX_BYTES and len(events) > 1):
            self.size_bytes -= len(self._events.popleft()[1])
        if self._outlet is not None and not self._outlet.send(chunk):
            self._outlet = None

    def end(self) -> None:
        """Nothing more will be sent; the connection of whoever reads ends."""
        self.ended = True
        self.put_down()

    def put_down(self) -> None:
        """The connection of whoever reads ends; who picks the stream up again reads on."""
        if self._outlet is not None:
            self._outlet.close()
            self._outlet = None

    def attach(self, outlet: Outlet, *, after: int | None = None, primed: bool = False) -> None:
        """Send to ``outlet`` from now on; first what came after event number ``after``.

        ``primed`` gives the client an id to come back with before there is any message.
        """
        if self._outlet is not None:
            self._outlet.close()
        self._outlet = outlet
        if primed:
            event_id = self._id(self._number if after is None else after)
            outlet.send(encode_event(b"", event_id=event_id, retry_ms=RETRY_MS))
        for number, chunk in tuple(self._events):
            if after is not None and number > after:
                outlet.send(chunk)
        if self.ended:
            outlet.close()
            self._outlet = None

    def detach(self, outlet: Outlet | None) -> None:
        """The connection of ``outlet`` is gone; the stream goes on without it, or with another that
        has taken its place."""
        if outlet is self._outlet:
            self._outlet = None

    def age(self, now_s: float) -> float:
        """How long ago it was first seen to have ended."""
        if self._ended_s is None:
            self._ended_s = now_s
        return now_s - self._ended_s

    def _id(self, number: int) -> str:
        return f"{self.stream_id}-{number}"


def parse_event_id(text: str) -> tuple[int, int] | None:
    """Stream and number of an event id; None if it is not one of ours."""
    stream, dash, number = text.partition("-")
    if dash and stream.isdecimal() and number.isdecimal() and len(text) <= 40:
        return int(stream), int(number)
    return None
