"""What is written to sockets within one turn of the event loop, kept for its end.

A write to a peer that sleeps wakes it, which costs more than the rest of the write; with some work
between any two writes it has fallen asleep again each time. Written one right after the other they
find it awake.
"""

from __future__ import annotations

import asyncio


class Writes:
    """Data on its way to transports. Order is kept, also between transports."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending: list[tuple[asyncio.Transport, bytes]] = []

    def add(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write it before the loop waits again; not at all if the transport is closed by then.

        Whoever uses the transport directly before that, or closes it, calls ``flush`` first.
        """
        if not self._pending:
            # What became ready in one wait is handled in one go; this comes right after it.
            asyncio.get_running_loop().call_soon(self.flush)
        self._pending.append((transport, data))

    def flush(self) -> None:
        """Write it now."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        for transport, data in pending:
            if not transport.is_closing():
                transport.write(data)
