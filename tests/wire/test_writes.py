"""What a turn of the event loop has for sockets is written at its end, in order and completely."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from open_mcp_gateway.writes import Writes

LOOPS = [
    pytest.param(uvloop.new_event_loop, id="uvloop"),
    pytest.param(asyncio.new_event_loop, id="asyncio"),
]
Loop = Callable[[], asyncio.AbstractEventLoop]


class Line:
    """A connection, and what came out at its other end."""

    def __init__(self, transport: asyncio.Transport, far: socket.socket) -> None:
        self.transport = transport
        self.far = far

    def arrived(self) -> bytes:
        try:
            return self.far.recv(1 << 20)
        except BlockingIOError:
            return b"(nothing)"


async def line() -> Line:
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
    return Line(transport, far)


def run(loop: Loop, body: Callable[[Writes, Line, Line], Awaitable[None]]) -> None:
    async def between() -> None:
        one, other = await line(), await line()
        try:
            await body(Writes(), one, other)
        finally:
            for each in (one, other):
                each.transport.abort()
            await asyncio.sleep(0.01)
            for each in (one, other):
                each.far.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(between())


@pytest.mark.parametrize("loop", LOOPS)
def test_written_at_the_end_of_the_turn_in_order(loop: Loop) -> None:
    async def body(writes: Writes, one: Line, other: Line) -> None:
        writes.add(one.transport, b"a")
        writes.add(other.transport, b"x")
        writes.add(one.transport, b"b")
        assert one.arrived() == other.arrived() == b"(nothing)"
        await asyncio.sleep(0)
        assert one.arrived() == b"ab"
        assert other.arrived() == b"x"
        writes.add(one.transport, b"c")
        await asyncio.sleep(0)
        assert one.arrived() == b"c"

    run(loop, body)


@pytest.mark.parametrize("loop", LOOPS)
def test_flushed_once_and_before_what_is_written_directly(loop: Loop) -> None:
    async def body(writes: Writes, one: Line, other: Line) -> None:
        writes.flush()
        writes.add(one.transport, b"a")
        writes.flush()
        one.transport.write(b"b")
        writes.add(one.transport, b"c")
        writes.add(other.transport, b"x")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert one.arrived() == b"abc"
        assert other.arrived() == b"x"

    run(loop, body)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_closed_one_does_not_keep_the_others_from_theirs(loop: Loop) -> None:
    async def body(writes: Writes, one: Line, other: Line) -> None:
        writes.add(one.transport, b"a")
        writes.add(other.transport, b"x")
        one.transport.abort()
        await asyncio.sleep(0)
        assert other.arrived() == b"x"

    run(loop, body)


@pytest.mark.parametrize("loop", LOOPS)
def test_more_than_the_socket_takes_at_once(loop: Loop) -> None:
    async def body(writes: Writes, one: Line, _: Line) -> None:
        wanted = b"".join(b"%07d\n" % number for number in range(1 << 17))
        writes.add(one.transport, wanted[:-3])
        writes.add(one.transport, wanted[-3:])
        got = bytearray()
        while len(got) < len(wanted):
            await asyncio.sleep(0)
            piece = one.arrived()
            got += b"" if piece == b"(nothing)" else piece
        assert got == wanted

    run(loop, body)
