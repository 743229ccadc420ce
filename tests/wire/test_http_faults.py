"""Servers gone wrong over HTTP: each fault has its words, and costs only its own call."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable

import pytest

from open_mcp_gateway.errors import (
    UpstreamBroken,
    UpstreamUnavailable,
)
from open_mcp_gateway.outbound.settings import OutboundSettings
from tests.wire.remotes import (
    CALL,
    DISCOVERED,
    Behaviour,
    Line,
    Request,
    answer_to,
    ask,
    modern,
    open_at,
    plain,
    raw_server,
    replying,
    sessions,
    stream,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


def sending(make: Callable[[Request], bytes]) -> Behaviour:
    """Bytes, and then a goodbye."""

    async def behave(request: Request, line: Line) -> None:
        await line.send(make(request))
        line.writer.close()

    return behave


async def cut_in_body(request: Request, line: Line) -> None:
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + answer_to(request))
    await line.cut()


async def cut_in_event(_request: Request, line: Line) -> None:
    await stream(line, b'data: {"jsonrpc":"2.0",', end=False)
    await line.cut()


async def ended_stream(_request: Request, line: Line) -> None:
    await stream(line, b": nothing\n\n")


async def endless_event(_request: Request, line: Line) -> None:
    await stream(line, end=False)
    while True:
        await line.send(b"ff\r\n" + b"x" * 255 + b"\r\n")


async def endless_head(_request: Request, line: Line) -> None:
    await line.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await line.send(b"X-Header: " + b"x" * 1000 + b"\r\n")


async def endless_body(_request: Request, line: Line) -> None:
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while True:
        await line.send(b" " * 10_000)


BOMB = gzip.compress(bytes(30 * 1024 * 1024))
WRONG = [
    (cut_in_body, "broke off in the middle"),
    (cut_in_event, "broke off in the middle"),
    (ended_stream, "ended its event stream without an answer"),
    (endless_event, "sent too much at once"),
    (endless_head, "headers of over"),
    (endless_body, "sent an answer of over 100000 bytes"),
    (replying(BOMB, extra="Content-Encoding: gzip\r\n"), "sent an answer of over 100000 bytes"),
    (replying(b"x", extra="Content-Encoding: br\r\n"), "'br' was not asked for"),
    (replying(b"x", extra="Content-Encoding: gzip\r\n"), "cannot be read|broke off"),
    (replying(b""), "sent an empty answer"),
    (replying(b"", "204 No Content"), "sent an empty answer"),
    (replying(b"<html>", kind="text/html"), "answered with text/html instead of JSON"),
    (replying(b'{"a":', kind="application/json"), "not one whole JSON-RPC response"),
    (replying(b'{"jsonrpc":"2.0","id":1}'), "not one whole JSON-RPC response"),
    (replying(b"[" * 100_000), "not one whole JSON-RPC response"),
    (replying(b'{"jsonrpc":"2.0","id":77,"result":{}}'), "id of another call"),
    (replying(b"Internal Server Error", "500 Oops", "text/plain"), "HTTP 500"),
    (replying(b"", "429 Slow Down"), "HTTP 429"),
    (replying(b"{}", "401 Unauthorized"), r"refused the gateway's credentials \(HTTP 401\)"),
    (replying(b'{"error":"invalid_token"}', "401 Unauthorized"), "check `headers`"),
    (replying(b"", "403 Forbidden"), r"refused the gateway's credentials \(HTTP 403\)"),
    (replying(b"", "302 Found", extra="Location: http://evil.test/x?k=1\r\n"),
     r"redirects to another origin, http://evil.test; .*change `url`"),
    (replying(b"", "307 T", extra="Location: https://evil.test/x\r\n"), "another origin"),
    (replying(b"", "302 Found", extra="Location: /other?k=secret\r\n"), "/other; change `url`"),
    (replying(b"", "308 P", extra="Location: /mcp\r\n"), "redirects to"),
    (sending(lambda _: b"HTTP/1.1 200 OK\r\n"), "broke off"),
    (sending(lambda _: b""), "closed the connection without answering"),
    (sending(lambda _: b"220 smtp.example.test ESMTP\r\n"), "does not answer in HTTP"),
    (sending(lambda _: b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n"
                       b"Connection: Upgrade\r\n\r\n"), "does not answer in HTTP|broke off"),
]  # fmt: skip


@pytest.mark.parametrize(("behave", "text"), WRONG)
@pytest.mark.parametrize("wrap", [modern, sessions])
async def test_each_fault_has_its_words(
    behave: Behaviour, text: str, wrap: Callable[[Behaviour], Behaviour]
) -> None:
    async with raw_server(wrap(behave)) as server:
        settings = OutboundSettings(max_message_bytes=100_000)
        peer = await open_at(server.url, settings=settings)
        with pytest.raises(UpstreamBroken, match=text) as caught:
            await ask(peer, "tools/call", CALL)
        assert caught.value.public.startswith("Server 'x' ")
        assert "secret" not in caught.value.public
        refused = re.search("HTTP [34]|redirects to|not answer in HTTP", caught.value.public)
        assert ("may have taken effect" in caught.value.public) is (refused is None)
        assert server.methods().count("tools/call") in {1, 4}  # four: the redirect to itself
        assert peer.inflight == 0
        server.behave = wrap(plain)
        await ask(peer, "tools/list")  # the peer has not suffered
        await peer.aclose()


async def test_what_is_quoted_is_scrubbed() -> None:
    behave = replying(b"", "302 Found", extra="Location: /test-key-path/x\r\n")
    async with raw_server(modern(behave)) as server:
        peer = await open_at(server.url, secrets=("test-key-path",))
        with pytest.raises(UpstreamBroken, match=r"/\*\*\*/x"):
            await ask(peer, "tools/call", CALL)
        await peer.aclose()


@pytest.mark.parametrize("status", ["307 Temporary Redirect", "308 Permanent Redirect"])
async def test_redirects_within_the_origin_keep_body_and_headers(status: str) -> None:
    async def moved(request: Request, line: Line) -> None:
        if request.target == "/mcp":
            await line.reply(b"", status, extra="Location: /mcp/\r\n")
        else:
            await line.result(request, DISCOVERED)

    async with raw_server(moved) as server:
        peer = await open_at(server.url, headers={"Authorization": "Bearer test-key-1"})
        await ask(peer, "tools/call", CALL)
        assert [request.target for request in server.requests] == ["/mcp", "/mcp/", "/mcp/"]
        for request in server.requests:
            assert request.headers["authorization"] == "Bearer test-key-1"
        assert server.requests[0].body == server.requests[1].body
        await peer.aclose()


async def test_credentials_never_follow_to_another_origin() -> None:
    async with raw_server(modern(plain)) as other:
        behave = replying(b"", "307 T", extra=f"Location: {other.url}\r\n")
        async with raw_server(behave) as server:
            with pytest.raises(UpstreamUnavailable, match="another origin"):
                await open_at(server.url, headers={"Authorization": "Bearer test-key-1"})
        assert not other.requests
