"""Finding out which of the three HTTP transports a server speaks: real servers and odd ones."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import pytest

from open_mcp_gateway.catalog.model import EraChoice
from open_mcp_gateway.errors import (
    GatewayError,
    UpstreamBroken,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from open_mcp_gateway.outbound.verdicts import EraVerdicts, Verdict
from open_mcp_gateway.protocol.eras import Era
from tests.wire.remotes import (
    ADD,
    DISCOVERED,
    Behaviour,
    Line,
    RawServer,
    Request,
    ask,
    entry_for,
    http_and_sse,
    modern,
    open_at,
    plain,
    raw_server,
    real_server,
    sessions,
    start,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


def sum_in(answer: bytes) -> object:
    return json.loads(answer)["result"]["structuredContent"]["result"]


# Real servers


@pytest.mark.parametrize("shape", ["json", "stream"])
@pytest.mark.parametrize(
    ("era", "version"),
    [
        (EraChoice.AUTO, "2026-07-28"),
        (EraChoice.MODERN, "2026-07-28"),
        (EraChoice.LEGACY, "2025-11-25"),
    ],
)
async def test_a_server_of_both_eras(era: EraChoice, version: str, shape: str) -> None:
    async with real_server("mcp2", "http_mcp2.py", "PORT", shape) as port:
        verdicts = EraVerdicts()
        url = f"http://127.0.0.1:{port}/mcp"
        peer = await open_at(url, era=era, verdicts=verdicts)
        assert peer.handshake.version == version
        assert peer.pid is None
        calls = [start(peer, "tools/call", ADD)[1] for _ in range(20)]
        for call in calls:
            assert sum_in(await call.message()) == 5
        read = await ask(peer, "resources/read", '{"uri":"test://greeting/ÿ"}'.encode())
        assert json.loads(read)["result"]["contents"][0]["text"] == "hello"
        assert "error" in json.loads(await ask(peer, "no/such/method"))
        with pytest.raises(UpstreamTimeout):
            await ask(peer, "tools/call", b'{"name":"forever","arguments":{}}', within_s=0.2)
        await peer.probe()
        await ask(peer, "tools/list")
        await peer.aclose()


async def test_the_url_without_its_last_slash_or_with_one_too_many() -> None:
    async with real_server("mcp2", "http_mcp2.py", "PORT") as port:
        peer = await open_at(f"http://127.0.0.1:{port}/mcp/")
        assert sum_in(await ask(peer, "tools/call", ADD)) == 5
        await peer.aclose()
        with pytest.raises(UpstreamUnavailable, match=r"no MCP endpoint .*/nowhere \(HTTP 404\)"):
            await open_at(f"http://127.0.0.1:{port}/nowhere")


@pytest.mark.parametrize("shape", ["json", "stream"])
async def test_a_server_of_sessions(shape: str) -> None:
    async with real_server("mcp1", "http_mcp1.py", "http", "PORT", shape) as port:
        verdicts = EraVerdicts()
        url = f"http://127.0.0.1:{port}/mcp"
        peer = await open_at(url, verdicts=verdicts)
        assert verdicts.recall(entry_for(url)) == Verdict(era=Era.LEGACY, flavour="session")
        assert sum_in(await ask(peer, "tools/call", ADD)) == 5
        chatty = await ask(peer, "tools/call", b'{"name":"chatty","_meta":{"progressToken":1}}')
        assert json.loads(chatty)["result"]["content"][0]["text"] == "done"
        if shape == "stream":
            asks = await ask(peer, "tools/call", b'{"name":"asks"}')
            assert json.loads(asks)["result"]["content"][0]["text"] == "the client answered"
        await peer.probe()
        await peer.aclose()
        with pytest.raises(UpstreamUnavailable, match="era: modern"):
            await open_at(url, era=EraChoice.MODERN)


async def test_a_server_of_http_and_sse() -> None:
    async with real_server("mcp1", "http_mcp1.py", "sse", "PORT") as port:
        verdicts = EraVerdicts()
        url = f"http://127.0.0.1:{port}/sse"
        peer = await open_at(url, verdicts=verdicts)
        assert verdicts.recall(entry_for(url)) == Verdict(era=Era.LEGACY, flavour="sse")
        assert peer.handshake.era is Era.LEGACY
        calls = [start(peer, "tools/call", ADD)[1] for _ in range(20)]
        for call in calls:
            assert sum_in(await call.message()) == 5
        asks = await ask(peer, "tools/call", b'{"name":"asks"}')
        assert json.loads(asks)["result"]["content"][0]["text"] == "the client answered"
        with pytest.raises(UpstreamTimeout):
            await ask(peer, "tools/call", b'{"name":"forever"}', within_s=0.2)
        await peer.probe()
        await peer.aclose()


async def test_a_server_that_ends_during_a_call() -> None:
    async with real_server("mcp1", "http_mcp1.py", "sse", "PORT") as port:
        peer = await open_at(f"http://127.0.0.1:{port}/sse")
        lost: list[GatewayError] = []
        peer.on_lost(lost.append)
        _, outcome = start(peer, "tools/call", b'{"name":"forever"}')
        await ask(peer, "ping")
    # The stream of the answer may break first, or the POST that carried the call.
    with pytest.raises(UpstreamBroken, match=r"event stream|closed the connection"):
        await outcome.message()
    assert len(lost) == 1
    await peer.aclose()


# Verdicts and outages


async def test_a_remembered_era_is_asked_for_first() -> None:
    verdicts = EraVerdicts()
    async with raw_server(sessions(plain)) as server:
        for expected in (["server/discover", "initialize"], ["initialize"]):
            server.requests.clear()
            peer = await open_at(server.url, verdicts=verdicts)
            assert server.methods()[: len(expected)] == expected
            await peer.aclose()


async def test_a_verdict_that_stopped_holding_is_found_anew() -> None:
    verdicts = EraVerdicts()
    async with raw_server(modern(plain)) as server:
        await (await open_at(server.url, verdicts=verdicts)).aclose()
        server.behave = sessions(plain)
        peer = await open_at(server.url, verdicts=verdicts)
        assert peer.handshake.era is Era.LEGACY
        await peer.aclose()
        server.behave = http_and_sse()
        peer = await open_at(server.url, verdicts=verdicts)
        assert peer.handshake.version == "2024-11-05"
        await peer.aclose()


async def down(_request: Request, line: Line) -> None:
    await line.reply(b"<html>", "503 Service Unavailable", "text/html")


async def cut(_request: Request, line: Line) -> None:
    await line.cut()


async def unauthorized(_request: Request, line: Line) -> None:
    await line.reply(b"{}", "401 Unauthorized")


@pytest.mark.parametrize(
    ("behave", "text"),
    [
        (down, "HTTP 503"),
        (cut, "closed the connection without answering"),
        (unauthorized, r"refused the gateway's credentials \(HTTP 401\)"),
    ],
)
async def test_an_outage_is_no_verdict(behave: Behaviour, text: str) -> None:
    verdicts = EraVerdicts()
    async with raw_server(modern(plain)) as server:
        await (await open_at(server.url, verdicts=verdicts)).aclose()
        before = verdicts.recall(entry_for(server.url))
        server.requests.clear()
        server.behave = behave
        with pytest.raises(UpstreamUnavailable, match=text) as caught:
            await open_at(server.url, verdicts=verdicts)
        assert "taken effect" not in caught.value.public  # nobody's call was made yet
        assert set(server.methods()) == {"server/discover"}
        assert verdicts.recall(entry_for(server.url)) == before


def discovering(status: str, error: bytes) -> tuple[Behaviour, list[Request]]:
    """Refuses discovery once with ``error``, then answers it; sessions work too."""
    asked: list[Request] = []
    opened = sessions(plain)

    async def behave(request: Request, line: Line) -> None:
        if not request.body or request.method != "server/discover":
            await opened(request, line)
            return
        asked.append(request)
        if len(asked) == 1:
            body = b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (request.id, error)
            await line.reply(body, status)
        else:
            await line.result(request, DISCOVERED)

    return behave, asked


async def test_a_modern_error_is_a_modern_verdict() -> None:
    error = b'{"code":-32022,"message":"v","data":{"supported":["2026-07-28"],"requested":"x"}}'
    behave, asked = discovering("400 Bad Request", error)
    async with raw_server(behave) as server:
        peer = await open_at(server.url)
        assert peer.handshake.era is Era.MODERN
        assert len(asked) == 2
        await peer.aclose()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("400 Bad Request", b'{"code":-32022,"message":"v","data":{"supported":["2025-11-25"]}}'),
        ("400 Bad Request", b'{"code":-32600,"message":"Missing session ID"}'),
        ("200 OK", b'{"code":-32601,"message":"Method not found"}'),
        ("200 OK", b'{"code":-32602,"message":"Invalid request parameters"}'),
        ("400 Bad Request", b'"not an object"'),
    ],
)
async def test_other_errors_mean_sessions(status: str, error: bytes) -> None:
    behave, _ = discovering(status, error)
    async with raw_server(behave) as server:
        peer = await open_at(server.url)
        assert peer.handshake.era is Era.LEGACY
        await peer.aclose()


async def test_no_version_in_common_is_said_clearly() -> None:
    async def future(request: Request, line: Line) -> None:
        await line.result(request, b'{"supportedVersions":["2030-01-01"],"capabilities":{}}')

    async with raw_server(future) as server:
        with pytest.raises(UpstreamUnavailable, match="2030-01-01"):
            await open_at(server.url)


async def test_a_web_page_is_no_server() -> None:
    async def page(_request: Request, line: Line) -> None:
        await line.reply(b"<html></html>", kind="text/html")

    async with raw_server(page) as server:
        with pytest.raises(UpstreamUnavailable, match="answered with text/html instead of JSON"):
            await open_at(server.url)


@pytest.mark.parametrize("url", ["ftp://a/", "http://", "nonsense"])
async def test_unusable_urls_are_refused(url: str) -> None:
    with pytest.raises(UpstreamUnavailable, match="cannot be reached"):
        await open_at(url)


async def test_an_unusable_proxy_is_refused_without_its_credentials() -> None:
    environ = {"HTTPS_PROXY": "socks5://us:test-key-1@p"}
    with pytest.raises(UpstreamUnavailable, match="HTTPS_PROXY") as caught:
        await open_at("https://far.test/", environ=environ)
    assert "test-key-1" not in caught.value.public


# Nothing left behind


async def left_over(server: RawServer) -> None:
    """Wait until every connection to the server is closed, and see that no task of ours is left."""
    await asyncio.wait_for(asyncio.gather(*server.tasks, return_exceptions=True), 60)
    own = asyncio.current_task()
    names = [
        task.get_coro().__qualname__  # type: ignore[union-attr]
        for task in asyncio.all_tasks()
        if task is not own and not task.done()
    ]
    assert not [name for name in names if "Pool" in name or "Peer" in name]


@pytest.mark.parametrize("wrap", [modern, sessions, lambda _: http_and_sse()])
async def test_closing_leaves_nothing_behind(wrap: Callable[[Behaviour], Behaviour]) -> None:
    async with raw_server(wrap(plain)) as server:
        peer = await open_at(server.url)
        calls = [start(peer, "tools/list")[1] for _ in range(4)]
        for call in calls:
            await call.message()
        await peer.aclose()
        await left_over(server)


@pytest.mark.parametrize("method", ["server/discover", "initialize", "notifications/initialized"])
async def test_a_cancelled_opening_leaves_nothing_behind(method: str) -> None:
    opened = sessions(plain)

    async def stuck(request: Request, line: Line) -> None:
        if request.method == method:
            await line.gone()
        else:
            await opened(request, line)

    async with raw_server(stuck) as server:
        opening = asyncio.ensure_future(open_at(server.url))
        await server.saw(lambda: method in server.methods())
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await left_over(server)


async def test_a_failed_opening_leaves_nothing_behind() -> None:
    async with raw_server(http_and_sse("http://evil.test/")) as server:
        with pytest.raises(UpstreamUnavailable):
            await open_at(server.url)
        await left_over(server)


async def test_closing_does_not_wait_for_a_server_that_ignores_the_goodbye() -> None:
    opened = sessions(plain)

    async def deaf(request: Request, line: Line) -> None:
        if request.verb == "DELETE":
            await line.gone()
        else:
            await opened(request, line)

    async with raw_server(deaf) as server:
        peer = await open_at(server.url)
        began_s = time.monotonic()
        await peer.aclose()
        assert time.monotonic() - began_s < 20
        await left_over(server)
