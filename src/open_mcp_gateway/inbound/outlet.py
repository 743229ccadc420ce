"""An event stream on a client connection of the hot path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

MAX_UNSENT_BYTES: Final = 8 * 1024 * 1024
"""A client that leaves more than this unread is cut off: it must not hold our memory. Not less than
a burst of large answers, which even a client that reads as fast as it can has not read at once."""

STALLED_BYTES: Final = 1024 * 1024
STALLED_S: Final = 10.0
"""So is one that leaves more than this unread and has taken nothing for so long."""

COMMENT_S: Final = 15.0
"""A silent stream gets a comment this often, so that nothing on the way takes it for dead."""

_COMMENT: Final = b":\n\n"


class HotOutlet:
    """Writes events as they come; in chunks where the client's HTTP version has them."""

    __slots__ = (
        "_chunked",
        "_ended",
        "_now",
        "_said_s",
        "_taken_s",
        "_transport",
        "_unsent_bytes",
        "closed",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        now: Callable[[], float],
        ended: Callable[[], None],
        *,
        chunked: bool,
    ) -> None:
        self._transport = transport
        self._now = now
        self._ended = ended
        self._chunked = chunked
        self._said_s = self._taken_s = now()
        self._unsent_bytes = 0
        self.closed = False

    def send(self, chunk: bytes) -> bool:
        """See ``Outlet``."""
        transport = self._transport
        if self.closed or transport.is_closing():
            return False
        if transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._cut_off()
            return False
        self._said_s = self._now()
        transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)
        return True

    def close(self) -> None:
        """See ``Outlet``."""
        if self.closed:
            return
        self.closed = True
        if self._chunked and not self._transport.is_closing():
            self._transport.write(b"0\r\n\r\n")
        self._ended()

    def keep_alive(self, now_s: float) -> None:
        """Called now and then: say something if nothing was said for long, and look whether
        anybody reads it."""
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent_bytes or unsent <= STALLED_BYTES:
            self._taken_s = now_s
        self._unsent_bytes = unsent
        if now_s - self._taken_s >= STALLED_S:
            self._cut_off()
        elif now_s - self._said_s >= COMMENT_S:
            self.send(_COMMENT)

    def _cut_off(self) -> None:
        self.closed = True
        self._transport.abort()
