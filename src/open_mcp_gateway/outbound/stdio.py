"""Newline-delimited JSON-RPC over the pipes of a child process.

Spec: 2025-11-25 basic/transports#stdio. Hot: writes of one turn of the event loop go out as one.
"""

from __future__ import annotations

import asyncio

from open_mcp_gateway.outbound.channel import Loss, Receiver
from open_mcp_gateway.outbound.child import Child, Launch, spawn
from open_mcp_gateway.outbound.lines import LineSplitter
from open_mcp_gateway.outbound.settings import OutboundSettings
from open_mcp_gateway.outbound.stderr import StderrTail

_LF, _CR = b"\n\r"
"""As numbers, which are found faster than pieces of bytes."""


class StdioChannel:
    """A Channel over a child's stdin and stdout."""

    __slots__ = (
        "_child",
        "_congested",
        "_limit_bytes",
        "_loop",
        "_pending",
        "_pending_bytes",
        "_receiver",
        "_splitter",
        "full",
    )

    def __init__(self, settings: OutboundSettings) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit_bytes = settings.max_send_buffer_bytes
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._congested = False
        self.full = False
        self._splitter: LineSplitter
        self._receiver: Receiver
        self._child: Child

    async def open(
        self, launch: Launch, receiver: Receiver, stderr: StderrTail, settings: OutboundSettings
    ) -> None:
        """Start the child; once, before anything else.

        Raises:
            UpstreamUnavailable: it could not be started.
        """
        self._receiver = receiver
        self._splitter = LineSplitter(
            settings.max_message_bytes, receiver.message, receiver.overlong
        )
        self._child = await spawn(launch, self, stderr, settings)

    # As a Channel

    @property
    def pid(self) -> int | None:
        return self._child.pid

    def send(self, message: bytes, _upstream_id: int | None, /) -> None:
        if _LF in message or _CR in message:
            # Callers' payloads travel verbatim, white space included, but here a line end starts a
            # new message: left in, it would let a caller send one that nobody authorized. JSON has
            # raw line ends only between tokens.
            message = message.replace(b"\n", b" ").replace(b"\r", b" ")
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(message)
        self._pending_bytes += len(message)
        if self._pending_bytes > self._limit_bytes:
            self.full = True

    def give_up(self) -> None:
        self._child.begin_stop()

    async def aclose(self) -> None:
        self._flush()
        await self._child.stop()

    # As the owner of the child

    def received(self, data: bytes) -> None:
        self._splitter.feed(data)

    def ended(self) -> None:
        self._splitter.finish()

    def congested(self, full: bool) -> None:
        self._congested = full
        self.full = full or self._pending_bytes > self._limit_bytes

    def lost(self, loss: Loss) -> None:
        self._receiver.lost(loss)

    def _flush(self) -> None:
        if self._pending:
            self._pending.append(b"")
            data = b"\n".join(self._pending)
            self._pending.clear()
            self._pending_bytes = 0
            self.full = self._congested
            self._child.write(data)
