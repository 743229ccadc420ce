"""Cutting a byte stream into lines, in bounded memory. Spec: 2025-11-25 basic/transports#stdio."""

from __future__ import annotations

from collections.abc import Callable

from open_mcp_gateway.outbound.salvage import KEPT_BYTES


class LineSplitter:
    """Gives every non-empty line, without its line end (LF or CRLF), to ``on_line``.

    A line longer than ``limit_bytes`` is not kept: the stream is read past it to the next line end,
    which is safe as JSON has no raw line ends in its strings, and its first and last bytes go to
    ``on_overlong``.
    """

    __slots__ = ("_back", "_front", "_limit_bytes", "_on_line", "_on_overlong", "_parts", "_size")

    def __init__(
        self,
        limit_bytes: int,
        on_line: Callable[[bytes], None],
        on_overlong: Callable[[bytes, bytes], None],
    ) -> None:
        self._limit_bytes = limit_bytes
        self._on_line = on_line
        self._on_overlong = on_overlong
        self._parts: list[bytes] = []
        self._size = 0
        self._front = b""
        """Not empty while an overlong line is being read past; ``_back`` is then its last bytes."""
        self._back = b""

    def feed(self, data: bytes) -> None:
        *ended, rest = data.split(b"\n")
        if ended:
            if self._size:
                self._hold(ended[0])
                ended[0] = b""
                self.finish()
            for line in ended:
                self._emit(line)
        if rest:
            self._hold(rest)

    def finish(self) -> None:
        """The stream, or the line that was held, is at its end."""
        front, line = self._front, b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._front = b""
        if front:
            self._on_overlong(front, self._back)
        else:
            self._emit(line)

    def _emit(self, line: bytes) -> None:
        if line.endswith(b"\r"):
            line = line[:-1]
        if len(line) > self._limit_bytes:
            self._on_overlong(line[:KEPT_BYTES], line[-KEPT_BYTES:])
        elif line:
            self._on_line(line)

    def _hold(self, part: bytes) -> None:
        self._size += len(part)
        if self._front:
            self._back = (self._back + part)[-KEPT_BYTES:]
            return
        self._parts.append(part)
        if self._size > self._limit_bytes:
            whole = b"".join(self._parts)
            self._front, self._back = whole[:KEPT_BYTES], whole[-KEPT_BYTES:]
            self._parts.clear()
