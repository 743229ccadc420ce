"""Sessions that servers end without the 404 of the specification, and what only looks like that."""

from __future__ import annotations

import asyncio

import pytest

from open_mcp_gateway.errors import GatewayError, UpstreamBroken
from open_mcp_gateway.outbound.peer import Manner
from open_mcp_gateway.protocol.eras import Era
from tests.wire.remotes import (
    CALL,
    Behaviour,
    Line,
    Request,
    Room,
    ask,
    open_at,
    plain,
    raw_server,
    sessions,
    start,
    stream,
)

pytestmark = pytest.mark.anyio

BAD = "400 Bad Request"
TEXT = b"Invalid session ID"
ALONE = Manner(era=Era.LEGACY, owner="a")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


def error(code: int, message: bytes = b"No valid session ID", raw_id: bytes = b"OWN") -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"error":{"code":%d,"message":"%b"}}' % (
        raw_id,
        code,
        message,
    )


def forgetful(body: bytes, on_get: Behaviour | None = None) -> tuple[Behaviour, list[str]]:
    """Knows nothing of session s1 any more; ``ran`` has the calls that were carried out."""
    ran: list[str] = []

    async def behave(request: Request, line: Line) -> None:
        if request.headers["mcp-session-id"] == "s1":
            await line.reply(body.replace(b"OWN", request.id), BAD)
        else:
            ran.append(request.method)
            await line.result(request)

    return sessions(behave, on_get), ran


FORGOTTEN = [error(-32000), error(-32000, raw_id=b"null"), TEXT, b""]


@pytest.mark.parametrize("body", FORGOTTEN)
async def test_calls_of_a_session_refused_with_400_go_on_in_a_new_one(body: bytes) -> None:
    behave, ran = forgetful(body)
    async with raw_server(behave) as server:
        peer = await open_at(server.url)
        lost: list[GatewayError] = []
        peer.on_lost(lost.append)
        calls = [start(peer, "tools/call", CALL)[1] for _ in range(3)]
        calls.append(start(peer, "tools/list")[1])
        for call in calls:
            assert b'"result"' in await call.message()
        assert ran.count("tools/call") == 3
        assert ran.count("tools/list") == 1
        assert not lost
        await peer.aclose()
        ended = [one.headers["mcp-session-id"] for one in server.requests if one.verb == "DELETE"]
        assert ended == ["s2", "s3"]


@pytest.mark.parametrize("body", FORGOTTEN)
async def test_a_health_check_finds_a_session_that_is_refused_with_400(body: bytes) -> None:
    behave, ran = forgetful(body)
    async with raw_server(behave) as server:
        peer = await open_at(server.url)
        await asyncio.wait_for(peer.probe(), 60)
        assert ran[-1] == "ping"
        assert b'"result"' in await ask(peer, "tools/call", CALL)
        assert server.requests[-1].headers["mcp-session-id"] == "s3"
        await peer.aclose()


async def test_a_session_with_a_state_is_lost_and_nothing_was_done_in_it() -> None:
    behave, ran = forgetful(error(-32000))
    async with raw_server(behave) as server:
        peer = await open_at(server.url, ALONE)
        lost: list[GatewayError] = []
        peer.on_lost(lost.append)
        with pytest.raises(UpstreamBroken, match=r"lost its session; call again$"):
            await ask(peer, "tools/call", CALL)
        assert len(lost) == 1
        assert ran == ["ping"]
        await peer.aclose()


@pytest.mark.parametrize("body", [error(-32602), error(-32601), b"nonsense"])
async def test_one_bad_request_leaves_the_session_alone(body: bytes) -> None:
    async def behave(request: Request, line: Line) -> None:
        if request.method == "tools/call":
            await line.reply(body.replace(b"OWN", request.id), BAD)
        else:
            await line.result(request)

    async with raw_server(sessions(behave)) as server:
        peer = await open_at(server.url)
        if body.startswith(b"{"):
            assert b'"error"' in await ask(peer, "tools/call", CALL)
        else:
            with pytest.raises(UpstreamBroken, match="HTTP 400"):
                await ask(peer, "tools/call", CALL)
        await ask(peer, "tools/list")
        assert server.methods().count("initialize") == 1
        assert server.methods().count("ping") == (0 if b"-32601" in body else 1)
        await peer.aclose()


async def test_a_server_that_refuses_ping_in_any_session_keeps_its_sessions() -> None:
    async def behave(request: Request, line: Line) -> None:
        if request.method == "tools/list":
            await line.result(request)
        else:
            await line.reply(error(-32600, b"No such thing").replace(b"OWN", request.id), BAD)

    async with raw_server(sessions(behave)) as server:
        peer = await open_at(server.url, ALONE)
        for _ in range(2):
            assert b"-32600" in await ask(peer, "tools/call", CALL)
            await peer.probe()
        await ask(peer, "tools/list")
        assert server.requests[-1].headers["mcp-session-id"] == "s1"
        assert server.methods().count("initialize") == 2
        await peer.aclose()


async def test_a_call_with_an_answer_of_its_own_is_not_repeated() -> None:
    """Its session ended after it."""
    ran: list[str] = []

    async def behave(request: Request, line: Line) -> None:
        session = request.headers["mcp-session-id"]
        if request.method == "tools/call":
            ran.append(session)
            await line.reply(error(-32000, b"It broke").replace(b"OWN", request.id), BAD)
        elif session == "s1":
            await line.reply(error(-32000).replace(b"OWN", request.id), BAD)
        else:
            await line.result(request)

    async with raw_server(sessions(behave)) as server:
        peer = await open_at(server.url)
        assert b"It broke" in await ask(peer, "tools/call", CALL)
        await ask(peer, "tools/list")
        assert ran == ["s1"]
        assert server.requests[-1].headers["mcp-session-id"] == "s3"
        await peer.aclose()


async def test_a_call_refused_after_its_session_was_found_over_goes_on_too() -> None:
    go = asyncio.Event()
    ran: list[bytes] = []

    async def behave(request: Request, line: Line) -> None:
        if request.headers["mcp-session-id"] == "s1":
            if b"slow" in request.body:
                await go.wait()
            await line.reply(error(-32000).replace(b"OWN", request.id), BAD)
        else:
            ran.append(request.body)
            await line.result(request)

    async with raw_server(sessions(behave)) as server:
        peer = await open_at(server.url)
        _, slow = start(peer, "tools/call", b'{"name":"slow"}')
        await server.saw(lambda: "tools/call" in server.methods())
        await ask(peer, "tools/call", CALL)
        go.set()
        assert b'"result"' in await slow.message()
        assert sum(b"slow" in body for body in ran) == 1
        await peer.aclose()


async def test_a_server_that_refuses_every_session_is_asked_twice_at_most() -> None:
    """It takes what is asked for the gateway's own sake, and no more."""

    async def behave(request: Request, line: Line) -> None:
        session = request.headers["mcp-session-id"]
        if request.method == "ping" and session != "s1":
            await line.result(request)
        else:
            await line.reply(error(-32000).replace(b"OWN", request.id), BAD)

    async with raw_server(sessions(behave)) as server:
        peer = await open_at(server.url)
        assert b"-32000" in await ask(peer, "tools/call", CALL)
        assert server.methods().count("tools/call") == 2
        await peer.aclose()


@pytest.mark.parametrize("body", [error(-32000, raw_id=b"null"), TEXT])
async def test_who_only_listens_is_in_a_new_session_after_a_400(body: bytes) -> None:
    gets: list[str] = []
    first: list[Line] = []
    up = asyncio.Event()

    async def opened(request: Request, line: Line) -> None:
        gets.append(request.headers["mcp-session-id"])
        if gets.count("s1") > 1:
            await line.reply(body, BAD)
            return
        first.append(line)
        await stream(line, b"retry: 1\n\n", end=False)
        up.set()
        await line.gone()

    behave, _ = forgetful(body, opened)
    async with raw_server(behave) as server:
        peer = await open_at(server.url)
        peer.attend(Room())
        await asyncio.wait_for(up.wait(), 60)
        first[0].writer.close()
        await server.saw(lambda: "s3" in gets)
        assert gets == ["s1", "s1", "s3"]
        await peer.aclose()


async def test_an_outage_is_no_word_about_a_session() -> None:
    async def behave(request: Request, line: Line) -> None:
        if request.method == "initialize":
            await line.reply(b"", "503 Service Unavailable")
        else:
            await line.reply(error(-32000).replace(b"OWN", request.id), BAD)

    async with raw_server(sessions(plain)) as server:
        peer = await open_at(server.url)
        lost: list[GatewayError] = []
        peer.on_lost(lost.append)
        server.behave = behave
        assert b"-32000" in await ask(peer, "tools/call", CALL)
        assert not lost
        server.behave = sessions(plain)
        assert b'"result"' in await ask(peer, "tools/call", CALL)
        await peer.aclose()
