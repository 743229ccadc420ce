"""Content codings of answers, undone piece by piece so that no answer can swell unseen.

Source: RFC 9110 section 8.4.1; the ``deflate`` coding is zlib, though some servers send it bare.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

PIECE_BYTES = 256 * 1024
"""Most that one step may yield; whoever takes the pieces counts them."""

_HEADER_BYTES = 2


class BadCoding(ValueError):
    """The body is not what its ``Content-Encoding`` says."""


class _Stream(Protocol):
    """What ``zlib.decompressobj`` returns."""

    @property
    def eof(self) -> bool: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = 0, /) -> bytes: ...


class Inflater:
    """Undoes ``gzip`` or ``deflate``."""

    __slots__ = ("_gzip", "_start", "_stream")

    def __init__(self, coding: bytes) -> None:
        self._gzip = coding in {b"gzip", b"x-gzip"}
        if not self._gzip and coding != b"deflate":
            raise BadCoding(f"Content-Encoding {coding.decode('latin-1')[:40]!r} was not asked for")
        self._start = b""
        """Bytes kept back until it shows what they begin."""
        self._stream: _Stream | None = None

    @property
    def complete(self) -> bool:
        """Nothing is missing at the end."""
        return not self._start and (self._stream is None or self._stream.eof)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Pieces of the plain body, none longer than PIECE_BYTES.

        Raises:
            BadCoding: the data is corrupt.
        """
        while data:
            if self._stream is None or self._stream.eof:
                # RFC 1952 section 2.2: members may follow one another.
                data = self._start + data
                if len(data) < _HEADER_BYTES:
                    self._start = data
                    return
                self._start = b""
                self._stream = zlib.decompressobj(wbits=self._window(data))
            try:
                piece = self._stream.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise BadCoding("the compressed body is corrupt") from error
            if piece:
                yield piece
            data = self._stream.unconsumed_tail or self._stream.unused_data

    def _window(self, start: bytes) -> int:
        """The ``wbits`` of zlib for what begins with ``start``."""
        if self._gzip:
            return 16 + zlib.MAX_WBITS
        # RFC 1950 section 2.2: method 8, and the first two bytes are a multiple of 31.
        wrapped = start[0] & 0x0F == 8 and int.from_bytes(start[:2], "big") % 31 == 0
        return zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS
