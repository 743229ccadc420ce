"""Writing to a client over a pipe: whoever has something to send never waits for it."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from typing import Final

import anyio
import anyio.to_thread

log = logging.getLogger(__name__)

CROWDED_BYTES: Final = 16 * 1024 * 1024
"""Unsent bytes beyond which nothing more should be asked for on behalf of the client."""

MAX_UNSENT_BYTES: Final = 256 * 1024 * 1024
"""Beyond this the client counts as gone."""

_WRITE_BYTES: Final = 1024 * 1024
_LINE_ENDS: Final = bytes.maketrans(b"\r\n", b"  ")


class Outbox:
    """Messages for one client, one line each, in order. ``on_gone`` is told when it is lost."""

    def __init__(self, fd: int, on_gone: Callable[[], None]) -> None:
        self._fd = fd
        self._on_gone = on_gone
        self._lines: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._gone = False
        self._filled = anyio.Event()
        self._emptier = anyio.Event()

    def send(self, message: bytes) -> None:
        """Queue one message, which is valid JSON; never waits."""
        if self._gone:
            return
        if b"\n" in message or b"\r" in message:
            # White space between the tokens of an upstream's JSON; inside of them there is none.
            message = message.translate(_LINE_ENDS)
        self._lines.append(message + b"\n")
        self._unsent_bytes += len(message) + 1
        self._filled.set()
        if self._unsent_bytes > MAX_UNSENT_BYTES:
            self._lose("it does not read what it is sent")

    async def room(self) -> None:
        """Wait while too much is unsent."""
        await self._below(CROWDED_BYTES)

    async def flush(self) -> None:
        """Wait until everything is written, or the client is gone."""
        await self._below(0)

    async def _below(self, limit_bytes: int) -> None:
        while self._unsent_bytes > limit_bytes and not self._gone:
            self._emptier = anyio.Event()
            await self._emptier.wait()

    async def run(self) -> None:
        """Write what comes, in a thread of its own, until cancelled or until the client is gone."""
        while not self._gone:
            while not self._lines:
                self._filled = anyio.Event()
                await self._filled.wait()
            chunk = self._next_chunk()
            try:
                await anyio.to_thread.run_sync(_write_all, self._fd, chunk, abandon_on_cancel=True)
            except OSError as error:
                self._lose(error.strerror or "its end of the pipe is closed")
            self._unsent_bytes -= len(chunk)
            self._emptier.set()

    def _next_chunk(self) -> bytes:
        parts = [self._lines.popleft()]
        size = len(parts[0])
        while self._lines and size + len(self._lines[0]) <= _WRITE_BYTES:
            parts.append(self._lines.popleft())
            size += len(parts[-1])
        return b"".join(parts)

    def _lose(self, reason: str) -> None:
        log.info("the client is gone", extra={"reason": reason})
        self._gone = True
        self._lines.clear()
        self._emptier.set()
        self._on_gone()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
