"""Sessions that servers forget, and verdicts that stop holding."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from open_mcp_gateway.errors import (
    GatewayError,
    UpstreamBroken,
    UpstreamUnavailable,
)
from open_mcp_gateway.outbound import http_session
from open_mcp_gateway.outbound.verdicts import EraVerdicts
from tests.wire.remotes import (
    CALL,
    INITIALIZED,
    SETTINGS,
    Behaviour,
    Line,
    Request,
    ask,
    entry_for,
    modern,
    open_at,
    plain,
    raw_server,
    replying,
    sessions,
    start,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


# Sessions lost


def forgetful(call_status: str = "404 Not Found") -> tuple[Behaviour, list[str]]:
    """Forgets session s1; ``log`` has the session of every call."""
    log: list[str] = []

    async def behave(request: Request, line: Line) -> None:
        log.append(request.headers["mcp-session-id"])
        if log[-1] == "s1":
            await line.reply(b'{"error":"session not found"}', call_status)
        else:
            await line.result(request)

    return sessions(behave), log


async def test_a_lost_session_is_opened_anew_and_reading_goes_on() -> None:
    behave, log = forgetful()
    async with raw_server(behave) as server:
        peer = await open_at(server.url)
        calls = [start(peer, "tools/list")[1] for _ in range(5)]
        for call in calls:
            await call.message()
        assert server.methods().count("initialize") == 2
        assert log.count("s2") == 5
        await peer.aclose()


async def test_a_call_that_acts_is_not_repeated_in_the_new_session() -> None:
    behave, log = forgetful()
    async with raw_server(behave) as server:
        peer = await open_at(server.url)
        with pytest.raises(UpstreamBroken, match=r"lost its session.*may have taken effect"):
            await ask(peer, "tools/call", CALL)
        await ask(peer, "tools/call", CALL)
        assert log == ["s1", "s2"]
        await peer.aclose()
        assert server.requests[-1].headers["mcp-session-id"] == "s2"


async def test_a_server_that_gives_no_new_session_is_lost() -> None:
    async def dead(_request: Request, line: Line) -> None:
        await line.reply(b"", "503 Service Unavailable")

    async def forgetting(_request: Request, line: Line) -> None:
        server.behave = dead
        await line.reply(b"", "404 Not Found")

    async with raw_server(sessions(forgetting)) as server:
        peer = await open_at(server.url)
        lost: list[GatewayError] = []
        peer.on_lost(lost.append)
        with pytest.raises(UpstreamBroken, match=r"gave no new one.*HTTP 503"):
            await ask(peer, "tools/list")
        assert len(lost) == 1
        late: list[GatewayError] = []
        peer.on_lost(late.append)
        assert len(late) == 1
        await peer.aclose()


async def test_no_room_for_a_new_session_leaves_nobody_waiting() -> None:
    """For the one connection there is, so much waits that ``initialize`` finds no place."""
    behave, _ = forgetful()
    narrow = replace(SETTINGS, max_connections_per_origin=1, max_send_buffer_bytes=2_430)
    async with raw_server(behave) as server:
        peer = await open_at(server.url, settings=narrow)
        long = b'{"name":"x","arguments":{"text":"%b"}}' % (b"x" * 1_800)
        # The second is shorter than ``initialize``, whose place it leaves.
        asked = ("tools/call", CALL), ("a", None), ("tools/call", long)
        calls = [start(peer, method, params)[1] for method, params in asked]
        lost: asyncio.Queue[GatewayError] = asyncio.Queue()
        peer.on_lost(lost.put_nowait)
        for call in calls:
            with pytest.raises(GatewayError, match="lost its session"):
                await asyncio.wait_for(call.message(), 60)
        assert "too many calls wait" in str(await asyncio.wait_for(lost.get(), 10))
        await peer.aclose()


async def test_a_server_that_forgets_every_session_is_asked_twice_at_most() -> None:
    async def forgetting(_request: Request, line: Line) -> None:
        await line.reply(b"", "404 Not Found")

    async with raw_server(sessions(forgetting)) as server:
        peer = await open_at(server.url)
        with pytest.raises(UpstreamBroken, match="lost its session"):
            await ask(peer, "tools/list")
        assert server.methods().count("tools/list") == 2
        await peer.aclose()


# Verdicts that stop holding


NO_SESSION = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no session"}}'


@pytest.mark.parametrize(
    "after",
    [replying(b"", "404 Not Found"), replying(NO_SESSION, "400 Bad Request")],
)
async def test_a_server_that_is_modern_no_more_is_lost_and_asked_anew(after: Behaviour) -> None:
    verdicts = EraVerdicts()
    async with raw_server(modern(plain)) as server:
        peer = await open_at(server.url, verdicts=verdicts)
        assert verdicts.recall(entry_for(server.url)) is not None
        lost: asyncio.Queue[GatewayError] = asyncio.Queue()
        peer.on_lost(lost.put_nowait)
        server.behave = after
        _, called = start(peer, "tools/call", CALL)
        why = await asyncio.wait_for(lost.get(), 60)
        assert "no longer speaks as it did" in why.public
        assert called.settled
        assert server.methods().count("server/discover") == 2
        assert verdicts.recall(entry_for(server.url)) is None
        with pytest.raises(UpstreamUnavailable):
            start(peer, "tools/list")
        await peer.aclose()


def refusal(code: int, raw_id: bytes = b"null") -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"error":{"code":%d,"message":"no"}}' % (raw_id, code)


@pytest.mark.parametrize(
    ("status", "body", "asked_again"),
    [
        ("503 Service Unavailable", refusal(-32000), False),
        ("503 Service Unavailable", b"", False),
        ("429 Too Many Requests", refusal(-32000), False),
        ("408 Request Timeout", refusal(-32000), False),
        ("400 Bad Request", refusal(-32000), True),
        ("404 Not Found", b"", True),
        ("400 Bad Request", refusal(-32022, b"OWN"), True),
    ],
)
async def test_an_odd_answer_to_one_call_leaves_the_others_alone(
    status: str, body: bytes, *, asked_again: bool
) -> None:
    go = asyncio.Event()

    async def behave(request: Request, line: Line) -> None:
        if request.method == "tools/call":
            await line.reply(body.replace(b"OWN", request.id), status)
        else:
            await go.wait()
            await line.result(request)

    verdicts = EraVerdicts()
    async with raw_server(modern(behave)) as server:
        peer = await open_at(server.url, verdicts=verdicts)
        lost: list[GatewayError] = []
        peer.on_lost(lost.append)
        _, other = start(peer, "resources/read", b'{"uri":"u"}')
        await server.saw(lambda: "resources/read" in server.methods())
        _, odd = start(peer, "tools/call", CALL)
        try:
            assert b'"error"' in await odd.message()
        except UpstreamBroken:
            assert b"OWN" in body or not body
        discoveries = 1 + asked_again
        await server.saw(lambda: server.methods().count("server/discover") == discoveries)
        go.set()
        assert b'"result"' in await other.message()
        await ask(peer, "prompts/list")
        assert server.methods().count("server/discover") == discoveries
        assert not lost
        assert verdicts.recall(entry_for(server.url)) is not None
        await peer.aclose()


async def test_an_outage_is_no_word_about_the_protocol() -> None:
    async with raw_server(modern(plain)) as server:
        peer = await open_at(server.url)
        lost: list[GatewayError] = []
        peer.on_lost(lost.append)

        async def down(request: Request, line: Line) -> None:
            odd = request.method == "tools/call"
            await line.reply(b"", "404 Not Found" if odd else "503 Service Unavailable")

        server.behave = down
        with pytest.raises(UpstreamBroken, match="no MCP endpoint"):
            await ask(peer, "tools/call", CALL)
        await server.saw(lambda: server.methods().count("server/discover") == 2)
        server.behave = modern(plain)
        assert b'"result"' in await ask(peer, "tools/call", CALL)
        assert not lost
        await peer.aclose()


async def test_closing_does_not_wait_for_what_a_server_says_again() -> None:
    async with raw_server(modern(plain)) as server:
        peer = await open_at(server.url)

        async def silent(request: Request, line: Line) -> None:
            if request.method == "server/discover":
                await line.gone()
            await line.reply(b"", "404 Not Found")

        server.behave = silent
        _, called = start(peer, "tools/call", CALL)
        await server.saw(lambda: server.methods().count("server/discover") == 2)
        await peer.aclose()
        with pytest.raises(UpstreamBroken):
            await called.message()


# The same where there are sessions


def nameless(behave: Behaviour) -> Behaviour:
    """A server of the session era that gives no session ids."""
    inner = sessions(behave)

    async def all_of_it(request: Request, line: Line) -> None:
        if request.method == "initialize":
            await line.result(request, INITIALIZED)
        else:
            await inner(request, line)

    return all_of_it


@pytest.mark.parametrize(
    ("wrap", "status"),
    [
        (nameless, "404 Not Found"),
        (nameless, "405 Method Not Allowed"),
        (nameless, "410 Gone"),
        (sessions, "405 Method Not Allowed"),
        (sessions, "410 Gone"),
    ],
)
@pytest.mark.parametrize("pong", [b"", refusal(-32601, b"OWN"), refusal(-32000)])
async def test_an_odd_answer_in_a_session_leaves_the_others_alone(
    wrap: Callable[[Behaviour], Behaviour], status: str, pong: bytes
) -> None:
    go = asyncio.Event()

    async def behave(request: Request, line: Line) -> None:
        if request.method == "tools/call":
            await line.reply(b"", status)
        elif request.method == "ping" and pong:
            await line.reply(pong.replace(b"OWN", request.id), "404 Not Found")
        elif request.method == "ping":
            await line.result(request)
        else:
            await go.wait()
            await line.result(request)

    verdicts = EraVerdicts()
    async with raw_server(wrap(behave)) as server:
        peer = await open_at(server.url, verdicts=verdicts)
        lost: list[GatewayError] = []
        peer.on_lost(lost.append)
        _, other = start(peer, "resources/read", b'{"uri":"u"}')
        await server.saw(lambda: "resources/read" in server.methods())
        with pytest.raises(UpstreamBroken, match="no MCP endpoint"):
            await ask(peer, "tools/call", CALL)
        await server.saw(lambda: "ping" in server.methods())
        go.set()
        assert b'"result"' in await other.message()
        await ask(peer, "prompts/list")
        assert not lost
        assert server.methods().count("initialize") == 1
        assert verdicts.recall(entry_for(server.url)) is not None
        await peer.aclose()


@pytest.mark.parametrize(("wrap", "status"), [(nameless, "404 Not Found"), (sessions, "410 Gone")])
async def test_a_server_that_has_no_endpoint_any_more_is_lost_and_asked_anew(
    wrap: Callable[[Behaviour], Behaviour], status: str
) -> None:
    verdicts = EraVerdicts()
    async with raw_server(wrap(plain)) as server:
        peer = await open_at(server.url, verdicts=verdicts)
        lost: asyncio.Queue[GatewayError] = asyncio.Queue()
        peer.on_lost(lost.put_nowait)
        server.behave = replying(b"", status)
        _, called = start(peer, "tools/call", CALL)
        why = await asyncio.wait_for(lost.get(), 10)
        assert "no longer speaks as it did" in why.public
        assert called.settled
        assert verdicts.recall(entry_for(server.url)) is None
        await peer.aclose()


async def test_closing_does_not_wait_for_a_ping_after_an_odd_answer() -> None:
    async with raw_server(nameless(plain)) as server:
        peer = await open_at(server.url)

        async def silent(request: Request, line: Line) -> None:
            if request.method == "ping":
                await line.gone()
            await line.reply(b"", "404 Not Found")

        server.behave = silent
        with pytest.raises(UpstreamBroken):
            await ask(peer, "tools/call", CALL)
        await server.saw(lambda: "ping" in server.methods())
        await peer.aclose()


# Sessions that nobody came to use


def what(request: Request) -> str:
    return request.method if request.body else request.verb


@pytest.mark.parametrize("how", ["refused", "cut", "given up", "given up on the stream"])
async def test_a_session_that_is_not_used_is_ended(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_session, "LISTEN_PATIENCE_S", 60.0)

    async def silent(_request: Request, line: Line) -> None:
        await line.gone()

    inner = sessions(plain, silent if how.endswith("stream") else None)

    async def behave(request: Request, line: Line) -> None:
        if not request.body or request.method != "notifications/initialized":
            await inner(request, line)
        elif how == "refused":
            await line.reply(b"", "500 Oops")
        elif how == "cut":
            await line.cut()
        elif how == "given up":
            await line.gone()
        else:
            await inner(request, line)

    async with raw_server(behave) as server:
        opening = asyncio.ensure_future(open_at(server.url))
        if how.startswith("given up"):
            last = "GET" if how.endswith("stream") else "notifications/initialized"
            await server.saw(lambda: last in map(what, server.requests))
            opening.cancel()
        with pytest.raises((UpstreamUnavailable, asyncio.CancelledError)):
            await opening
        ended = [one for one in server.requests if one.verb == "DELETE"]
        assert [one.headers["mcp-session-id"] for one in ended] == ["s1"]
