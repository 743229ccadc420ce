"""Messages to a pipe: in order, one line each, and never waited for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import pytest

from open_mcp_gateway.inbound.outbox import CROWDED_BYTES, MAX_UNSENT_BYTES, Outbox

pytestmark = pytest.mark.anyio


class Pipe:
    """An outbox, and the end that its client reads from."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.gone = anyio.Event()
        self.outbox = Outbox(self.writing, self.gone.set)
        self.is_read = True

    async def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while sum(map(len, parts)) < size:
            parts.append(await anyio.to_thread.run_sync(os.read, self.reading, 65536))
        return b"".join(parts)

    def hang_up(self) -> None:
        """Nobody reads any more; whoever still writes is told so."""
        if self.is_read:
            os.close(self.reading)
            self.is_read = False


@asynccontextmanager
async def pipe() -> AsyncIterator[Pipe]:
    made = Pipe()
    try:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(made.outbox.run)
                yield made
                tasks.cancel_scope.cancel()
    finally:
        made.hang_up()
        os.close(made.writing)


async def test_each_message_is_one_line_in_order() -> None:
    async with pipe() as client:
        client.outbox.send(b'{"a":\r\n 1}')
        client.outbox.send(b'{"b":2}')
        expected = b'{"a":   1}\n{"b":2}\n'
        assert await client.read(len(expected)) == expected
        await client.outbox.flush()


async def test_a_client_that_does_not_read_holds_up_nobody() -> None:
    async with pipe() as client:
        message = b'"%b"' % (b"x" * 1_000_000)
        count = CROWDED_BYTES // len(message) + 2
        for _ in range(count):
            client.outbox.send(message)  # far more than fits into the pipe
        with anyio.move_on_after(0.1) as waiting:
            await client.outbox.room()
        assert waiting.cancelled_caught
        got = await client.read(count * (len(message) + 1))
        assert got == (message + b"\n") * count
        await client.outbox.room()
        await client.outbox.flush()


async def test_a_client_that_is_gone() -> None:
    async with pipe() as client:
        client.hang_up()
        client.outbox.send(b"{}")
        await client.gone.wait()
        client.outbox.send(b"{}")
        await client.outbox.flush()
        await client.outbox.room()


async def test_memory_is_bounded() -> None:
    async with pipe() as client:
        message = b'"%b"' % (b"x" * (MAX_UNSENT_BYTES // 8))
        for _ in range(8):
            assert not client.gone.is_set()
            client.outbox.send(message)
        assert client.gone.is_set()
        await client.outbox.flush()
