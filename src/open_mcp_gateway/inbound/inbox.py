"""Reading a client's lines from a pipe, in bounded memory."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from typing import Final

import anyio.to_thread

from open_mcp_gateway.outbound.lines import LineSplitter

log = logging.getLogger(__name__)

_READ_BYTES: Final = 64 * 1024


async def lines_from(fd: int, max_line_bytes: int) -> AsyncIterator[bytes | None]:
    """Every line until the end; None stands for one over the limit, which was read past."""
    lines: list[bytes | None] = []
    splitter = LineSplitter(max_line_bytes, lines.append, lambda _front, _back: lines.append(None))
    while chunk := await _read(fd):
        splitter.feed(chunk)
        for line in lines:
            yield line
        lines.clear()
    splitter.finish()
    for line in lines:
        yield line


async def _read(fd: int) -> bytes:
    """In a thread: there is no other way to wait for every kind of standard input."""
    try:
        return await anyio.to_thread.run_sync(os.read, fd, _READ_BYTES, abandon_on_cancel=True)
    except OSError as error:
        log.info("standard input broke off", extra={"reason": error.strerror})
        return b""
