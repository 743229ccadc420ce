"""The 2024-11-05 transport, byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from open_mcp_gateway.errors import (
    GatewayError,
    UpstreamBroken,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from open_mcp_gateway.outbound import pool, sse_channel
from open_mcp_gateway.outbound.settings import OutboundSettings
from open_mcp_gateway.outbound.verdicts import EraVerdicts
from open_mcp_gateway.protocol.eras import Era
from tests.wire.remotes import (
    CALL,
    DISCOVERED,
    Line,
    RawServer,
    Request,
    answer_to,
    ask,
    http_and_sse,
    open_at,
    raw_server,
    start,
)

pytestmark = pytest.mark.anyio

QUICK = b'{"name":"quick","arguments":{}}'


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


async def test_asked_in_order_and_remembered() -> None:
    verdicts = EraVerdicts()
    async with raw_server(http_and_sse()) as server:
        for _ in range(2):
            peer = await open_at(server.url, verdicts=verdicts)
            await ask(peer, "tools/call", CALL)
            await peer.aclose()
        verbs = [(request.verb, request.target) for request in server.requests]
        handshake = [("GET", "/mcp")] + [("POST", "/messages?id=1")] * 3
        assert verbs == [("POST", "/mcp"), ("POST", "/mcp"), *handshake, *handshake]


async def test_a_path_that_ends_in_sse_is_asked_with_get_first() -> None:
    async with raw_server(http_and_sse()) as server:
        peer = await open_at(f"http://127.0.0.1:{server.port}/x/sse?key=1")
        assert server.requests[0].verb == "GET"
        await peer.aclose()


async def test_a_path_that_ends_in_sse_may_be_modern_all_the_same() -> None:
    async def no_get(request: Request, line: Line) -> None:
        if request.verb == "GET":
            await line.reply(b"", "405 Method Not Allowed")
        else:
            await line.result(request, DISCOVERED)

    async with raw_server(no_get) as server:
        peer = await open_at(f"http://127.0.0.1:{server.port}/sse")
        assert peer.handshake.era is Era.MODERN
        await peer.aclose()


async def test_an_endpoint_at_another_origin_is_refused() -> None:
    async with raw_server(http_and_sse("http://evil.test/messages")) as server:
        with pytest.raises(UpstreamUnavailable, match=r"another origin, http://evil\.test"):
            await open_at(server.url, headers={"Authorization": "Bearer test-key-1"})


async def test_a_post_that_is_refused_fails_its_call_alone() -> None:
    async def refuse(_request: Request, line: Line, _stream: Line) -> None:
        await line.reply(b"no", "500 Oops", "text/plain")

    async with raw_server(http_and_sse(on_call=refuse)) as server:
        peer = await open_at(server.url)
        with pytest.raises(UpstreamBroken, match="HTTP 500"):
            await ask(peer, "tools/call", CALL)
        await ask(peer, "tools/list")
        await peer.aclose()


async def unknown(_request: Request, line: Line, _stream: Line | None = None) -> None:
    await line.reply(b"no session", "404 Not Found", "text/plain")


def pings(server: RawServer, count: int) -> Callable[[], bool]:
    return lambda: server.methods().count("ping") == count


async def test_a_session_that_is_not_known_to_one_call_may_be_to_others() -> None:
    async with raw_server(http_and_sse(on_call=unknown)) as server:
        peer = await open_at(server.url)
        lost: list[GatewayError] = []
        peer.on_lost(lost.append)
        for count in (1, 2):
            _, other = start(peer, "tools/list")
            with pytest.raises(UpstreamBroken, match=r"does not know the session.*call again"):
                await ask(peer, "tools/call", CALL)
            await server.saw(pings(server, count))
            await other.message()
            await ask(peer, "tools/list")
        assert not lost
        await peer.aclose()


async def test_a_forgotten_session_loses_the_peer() -> None:
    async with raw_server(http_and_sse()) as server:
        peer = await open_at(server.url)
        lost: asyncio.Queue[GatewayError] = asyncio.Queue()
        peer.on_lost(lost.put_nowait)
        server.behave = unknown
        with pytest.raises(UpstreamBroken):
            await ask(peer, "tools/call", CALL)
        assert "forgotten the session" in (await asyncio.wait_for(lost.get(), 10)).public
        await peer.aclose()


async def test_a_silent_or_broken_answer_to_the_ping_is_no_word_about_the_session() -> None:
    async def cut(request: Request, line: Line) -> None:
        if request.method == "ping":
            await line.cut()
        await unknown(request, line)

    async with raw_server(http_and_sse()) as server:
        peer = await open_at(server.url)
        well, server.behave = server.behave, cut
        for count in (1, 2):
            with pytest.raises(UpstreamBroken):
                await ask(peer, "tools/call", CALL)
            await server.saw(pings(server, count))
        server.behave = well
        await ask(peer, "tools/list")
        await peer.aclose()


async def cut_stream(_request: Request, line: Line, stream: Line) -> None:
    await line.reply(b"", "202 Accepted")
    await stream.send(b'event: message\ndata: {"jsonrpc":"2.0",')
    await stream.cut()


async def end_stream(_request: Request, line: Line, stream: Line) -> None:
    await line.reply(b"", "202 Accepted")
    stream.writer.close()


async def endless_event(_request: Request, line: Line, stream: Line) -> None:
    await line.reply(b"", "202 Accepted")
    while True:
        await stream.send(b"data: " + b"x" * 1000 + b"\n")


@pytest.mark.parametrize("how", [cut_stream, end_stream, endless_event])
async def test_a_stream_that_breaks_fails_what_is_in_flight(
    how: Callable[[Request, Line, Line], Awaitable[None]],
) -> None:
    async with raw_server(http_and_sse(on_call=how)) as server:
        peer = await open_at(server.url, settings=OutboundSettings(max_message_bytes=20_000))
        lost: list[GatewayError] = []
        peer.on_lost(lost.append)
        with pytest.raises(UpstreamBroken):
            await ask(peer, "tools/call", CALL)
        assert len(lost) == 1
        with pytest.raises(UpstreamUnavailable):
            start(peer, "tools/list")
        await peer.aclose()


async def test_nothing_overtakes_the_initialized_notification() -> None:
    release = asyncio.Event()
    inner = http_and_sse()

    async def slow_to_accept(request: Request, line: Line) -> None:
        if request.body and request.method == "notifications/initialized":
            await release.wait()
        await inner(request, line)

    async with raw_server(slow_to_accept) as server:
        peer = await open_at(server.url)
        _, outcome = start(peer, "tools/list")
        await server.saw(lambda: "notifications/initialized" in server.methods())
        assert "tools/list" not in server.methods()
        release.set()
        await outcome.message()
        await peer.aclose()


async def test_a_notification_that_nobody_takes_holds_up_the_calls_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse_channel, "BARRIER_S", 0.05)
    inner = http_and_sse()

    async def deaf(request: Request, line: Line) -> None:
        if request.body and request.method == "notifications/initialized":
            await line.gone()
        else:
            await inner(request, line)

    async with raw_server(deaf) as server:
        peer = await open_at(server.url)
        await ask(peer, "tools/list")
        await peer.aclose()


async def test_a_post_without_a_response_keeps_its_connection_no_longer_than_its_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether the call was answered on the stream, or ended otherwise."""
    monkeypatch.setattr(sse_channel, "LOOK_S", 0.05)
    monkeypatch.setattr(pool, "DRAIN_S", 0.1)
    gone: asyncio.Queue[bytes] = asyncio.Queue()

    async def on_the_stream_alone(request: Request, line: Line, stream: Line) -> None:
        if b"quick" in request.body:
            await stream.send(b"event: message\ndata: " + answer_to(request) + b"\n\n")
        await line.gone()
        gone.put_nowait(request.id)

    # One connection is the stream's, and calls that left theirs busy would block the last one.
    settings = OutboundSettings(max_connections_per_origin=4)
    async with raw_server(http_and_sse(on_call=on_the_stream_alone)) as server:
        peer = await open_at(server.url, settings=settings)
        kept, lasting = start(peer, "tools/call", CALL)
        await server.saw(lambda: server.methods().count("tools/call") == 1)
        assert b'"ok"' in await ask(peer, "tools/call", QUICK)
        called_off, _ = start(peer, "tools/call", CALL)
        await server.saw(lambda: server.methods().count("tools/call") == 3)
        called_off.cancel("enough")
        ended = {await asyncio.wait_for(gone.get(), 60) for _ in range(2)}
        ids = [request.id for request in server.requests if request.method == "tools/call"]
        assert ended == set(ids[1:])
        for _ in range(3):
            assert b'"ok"' in await ask(peer, "tools/call", QUICK)
        assert not lasting.settled
        kept.cancel("enough")
        await peer.aclose()


async def test_what_waits_for_a_connection_is_not_sent_once_its_call_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse_channel, "LOOK_S", 0.05)
    monkeypatch.setattr(sse_channel, "BARRIER_S", 0.05)

    async def respond_late(request: Request, line: Line, stream: Line) -> None:
        if b"quick" in request.body:
            await line.reply(b"", "202 Accepted")
            await stream.send(b"event: message\ndata: " + answer_to(request) + b"\n\n")
        else:
            await line.gone()

    settings = OutboundSettings(max_connections_per_origin=2)
    async with raw_server(http_and_sse(on_call=respond_late)) as server:
        peer = await open_at(server.url, settings=settings)
        holding, _ = start(peer, "tools/call", CALL)
        await server.saw(lambda: server.methods().count("tools/call") == 1)
        with pytest.raises(UpstreamTimeout):
            await ask(peer, "prompts/get", CALL, within_s=0.2)
        holding.cancel("enough")
        assert b'"ok"' in await ask(peer, "tools/call", QUICK)
        assert "prompts/get" not in server.methods()
        await peer.aclose()


async def cut_off(_request: Request, line: Line, _stream: Line) -> None:
    await line.cut()


async def cut_in_the_body(_request: Request, line: Line, _stream: Line) -> None:
    await line.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 500\r\n\r\nx")
    await line.cut()


async def accepted_and_over(_request: Request, line: Line, stream: Line) -> None:
    await line.reply(b"", "202 Accepted")
    stream.writer.close()


async def accepted_and_odd(request: Request, line: Line, stream: Line) -> None:
    await line.reply(b"", "202 Accepted")
    odd = b'{"jsonrpc":"1.0","id":%b,"result":{}}' % request.id
    await stream.send(b"event: message\ndata: " + odd + b"\n\n")


@pytest.mark.parametrize(
    "how", [cut_off, cut_in_the_body, accepted_and_over, accepted_and_odd, unknown]
)
async def test_a_handshake_that_fails_leaves_no_call_in_doubt(
    how: Callable[[Request, Line, Line], Awaitable[None]],
) -> None:
    streams: list[Line] = []
    inner = http_and_sse()

    async def behave(request: Request, line: Line) -> None:
        if request.verb == "GET":
            streams.append(line)
        if request.target.startswith("/messages") and request.method == "initialize":
            await how(request, line, streams[-1])
        else:
            await inner(request, line)

    async with raw_server(behave) as server:
        with pytest.raises(UpstreamUnavailable) as caught:
            await open_at(server.url)
        assert "effect" not in caught.value.public
        assert "during the call" not in caught.value.public
    async with raw_server(http_and_sse(on_call=how)) as server:
        peer = await open_at(server.url)
        with pytest.raises(UpstreamBroken) as broken:
            await ask(peer, "tools/call", CALL)
        assert ("taken effect" in broken.value.public) is (how is not unknown)
        await peer.aclose()
