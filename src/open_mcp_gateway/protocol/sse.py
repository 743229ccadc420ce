"""Event streams: written, and read incrementally and within a bound.

Spec: WHATWG HTML section 9.2.6 (interpreting an event stream).
"""

from __future__ import annotations

from msgspec import Struct

_BOM = b"\xef\xbb\xbf"


def encode_event(
    data: bytes,
    *,
    event_id: str | None = None,
    event: str | None = None,
    retry_ms: int | None = None,
) -> bytes:
    """One event. ``data`` is one line of JSON text, or empty for a priming event."""
    parts = []
    if event is not None:
        parts.append(b"event: %b\n" % event.encode("ascii"))
    if event_id is not None:
        parts.append(b"id: %b\n" % event_id.encode("ascii"))
    if retry_ms is not None:
        parts.append(b"retry: %d\n" % retry_ms)
    parts.extend(b"data: %b\n" % line for line in data.splitlines() or [b""])
    parts.append(b"\n")
    return b"".join(parts)


class EventTooLarge(ValueError):
    """One event, or one line of it, is longer than the bound."""


class Event(Struct, frozen=True):
    """One dispatched event; ``type`` is ``message`` when the stream names none."""

    type: str
    data: bytes
    """Empty for the priming events of MCP 2025-11-25, which carry only an id."""

    id: str | None = None
    """The last event id seen on the stream, None before the first."""


class SseDecoder:
    """Bytes of one stream in, events out; an event cut off by the end of the stream is dropped."""

    __slots__ = (
        "_after_cr",
        "_data",
        "_id",
        "_max_bytes",
        "_partial",
        "_size",
        "_started",
        "_type",
        "retry_ms",
    )

    def __init__(self, max_event_bytes: int) -> None:
        self._max_bytes = max_event_bytes
        self._partial: list[bytes] | None = None
        self._data: list[bytes] = []
        self._type = ""
        self._id: str | None = None
        self._size = 0
        self._after_cr = False
        self._started = False
        self.retry_ms: int | None = None
        """The last reconnection delay the server asked for, in milliseconds."""

    @property
    def last_id(self) -> str | None:
        """What ``Last-Event-ID`` would say."""
        return self._id

    @property
    def mid_event(self) -> bool:
        """Something of an event has come that was not dispatched yet."""
        return self._size > 0

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that ``chunk`` completes.

        Raises:
            EventTooLarge: the event under way is over the bound; the stream is of no more use.
        """
        if not chunk:
            return []
        if self._after_cr:
            self._after_cr = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        events: list[Event] = []
        for line in chunk.splitlines(keepends=True):
            self._size += len(line)
            if self._size > self._max_bytes:
                raise EventTooLarge(f"an event is longer than {self._max_bytes} bytes")
            if not line.endswith((b"\n", b"\r")):
                self._keep(line)
                return events
            self._line(self._joined(line.rstrip(b"\r\n")), events)
        self._after_cr = chunk.endswith(b"\r")
        return events

    def _keep(self, part: bytes) -> None:
        if self._partial is None:
            self._partial = [part]
        else:
            self._partial.append(part)

    def _joined(self, line: bytes) -> bytes:
        if self._partial is None:
            return line
        self._partial.append(line)
        whole = b"".join(self._partial)
        self._partial = None
        return whole

    def _line(self, line: bytes, events: list[Event]) -> None:
        if not self._started:
            self._started = True
            line = line.removeprefix(_BOM)
        if not line:
            self._dispatch(events)
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._type = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit() and len(value) < 10:
            self.retry_ms = int(value)
        elif not name and not self._data and not self._type:
            self._size = 0  # a comment between events: keep-alives must not add up

    def _dispatch(self, events: list[Event]) -> None:
        if self._data:
            events.append(Event(self._type or "message", b"\n".join(self._data), self._id))
        self._data = []
        self._type = ""
        self._size = 0
