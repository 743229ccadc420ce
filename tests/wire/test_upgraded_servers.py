"""A server in whose place a newer one stands, which speaks what the old one did not."""

from __future__ import annotations

import json
from typing import Any

import anyio.to_thread
import pytest

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.app import running
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.clock import SystemClock
from open_mcp_gateway.config.model import Config
from open_mcp_gateway.errors import EraNotSpoken, UpstreamBroken
from open_mcp_gateway.inbound.management import ReloadReport
from open_mcp_gateway.outbound.peer import Manner
from open_mcp_gateway.outbound.verdicts import EraVerdicts
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.supervisor.fleet import Fleet
from tests.wire.conftest import MakeClient
from tests.wire.faces import face
from tests.wire.mcp_client import Client, Reply, remote
from tests.wire.remotes import (
    INITIALIZED,
    Behaviour,
    Line,
    Request,
    ask,
    entry_for,
    modern,
    open_at,
    permit_for,
    plain,
    raw_server,
    sessions,
    stream,
)

pytestmark = pytest.mark.anyio

STATELESS = Manner(era=Era.MODERN)
SESSION = Manner(era=Era.LEGACY)


async def _no_reload() -> ReloadReport:
    raise AssertionError("nothing is reloaded here")


@pytest.mark.parametrize("how", ["start", "restart", "stop"])
async def test_who_starts_restarts_or_stops_a_server_has_it_asked_again(how: str) -> None:
    async with raw_server(sessions(plain)) as server:
        entry = entry_for(server.url)
        snapshot, clock = Snapshot({entry.spec.id: entry}), SystemClock()
        async with running(
            Config(), snapshot, environ={}, clock=clock, reload=_no_reload
        ) as gateway:
            fleet, permit = gateway.fleet, permit_for(entry)
            with pytest.raises(EraNotSpoken):
                await fleet.ready(permit, STATELESS)
            if how == "restart":
                await fleet.ready(permit, SESSION)
            server.behave = _both_eras
            await _told(fleet, permit, how)
            lease = await fleet.ready(permit, STATELESS)
            assert lease.peer.handshake.era is Era.MODERN


async def _told(fleet: Fleet, permit: Permit, how: str) -> None:
    match how:
        case "start":
            await fleet.start(permit)
        case "restart":
            await fleet.restart(permit)
        case _:
            await fleet.stop(permit)


async def test_a_server_that_forgot_its_sessions_is_asked_again() -> None:
    async with raw_server(sessions(plain)) as server:
        verdicts = EraVerdicts()
        with pytest.raises(EraNotSpoken):
            await open_at(server.url, STATELESS, verdicts=verdicts)
        peer = await open_at(server.url, SESSION, verdicts=verdicts)
        server.behave = _both_eras
        await ask(peer, "tools/list")
        await peer.aclose()
        newer = await open_at(server.url, STATELESS, verdicts=verdicts)
        assert newer.handshake.era is Era.MODERN
        await newer.aclose()


_stateless = modern(plain)


async def _both_eras(request: Request, line: Line) -> None:
    """Of the sessions of its predecessor it knows none."""
    if request.headers.get("mcp-session-id", "new") != "new":
        await line.reply(b"", "404 Not Found")
    elif request.method == "initialize":
        await line.result(request, INITIALIZED, "Mcp-Session-Id: new\r\n")
    elif request.method == "notifications/initialized":
        await line.reply(b"", "202 Accepted")
    elif request.verb == "POST":
        await _stateless(request, line)
    else:
        await line.reply(b"", "405 Method Not Allowed")


_MISSING = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Missing session ID"}}'
_in_sessions = sessions(plain)


def _sessions_only(status: str, body: bytes) -> Behaviour:
    """What is said outside a session is answered like this."""

    async def behave(request: Request, line: Line) -> None:
        outside = request.verb == "POST" and "mcp-session-id" not in request.headers
        if outside and request.method != "initialize":
            await line.reply(body, status)
        else:
            await _in_sessions(request, line)

    return behave


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("400 Bad Request", _MISSING),
        ("404 Not Found", b""),
        ("404 Not Found", b"<h1>Not Found</h1>"),
        ("405 Method Not Allowed", b""),
        ("410 Gone", b""),
    ],
)
async def test_a_call_refused_by_a_server_of_the_other_era_waits_for_what_it_speaks(
    client: MakeClient, status: str, body: bytes
) -> None:
    later = _sessions_only(status, body)
    async with raw_server(modern(plain)) as server:

        def use() -> tuple[int, Any]:
            with face("hot", remote("x", server.url)) as front:
                caller = client(front, "x")
                assert caller.modern("tools/list").status == 200
                server.behave = later
                reply = caller.modern("tools/call", {"name": "a", "arguments": {}})
                return reply.status, reply.error

        answered, error = await anyio.to_thread.run_sync(use)
        assert (answered, error["code"]) == (400, -32022)
        assert error["data"]["supported"] == ["2025-11-25"]
        assert server.methods().count("tools/call") == 1


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed", "410 Gone"])
async def test_a_call_refused_by_what_stood_in_for_a_server_goes_on_with_it(
    client: MakeClient, status: str
) -> None:
    """As while a server is deployed anew behind something that answers in its absence."""
    refusals = iter([status, status])

    async def absent(request: Request, line: Line) -> None:
        refusal = next(refusals, None)
        if refusal is None:
            await _stateless(request, line)
        else:
            await line.reply(b"", refusal)

    async with raw_server(modern(plain)) as server:

        def use() -> tuple[int, bool]:
            with face("hot", remote("x", server.url)) as front:
                caller = client(front, "x")
                assert caller.modern("tools/list").status == 200
                server.behave = absent
                reply = caller.modern("tools/call", {"name": "a", "arguments": {}})
                return reply.status, "result" in reply.message

        assert await anyio.to_thread.run_sync(use) == (200, True)
        assert server.methods().count("tools/call") == 2


async def test_a_server_that_forgot_a_session_with_a_state_is_asked_again() -> None:
    async with raw_server(sessions(plain)) as server:
        verdicts = EraVerdicts()
        with pytest.raises(EraNotSpoken):
            await open_at(server.url, STATELESS, verdicts=verdicts)
        peer = await open_at(server.url, Manner(era=Era.LEGACY, owner="a"), verdicts=verdicts)
        await ask(peer, "tools/call", b'{"name":"a"}')
        server.behave = _both_eras
        with pytest.raises(UpstreamBroken, match="lost its session"):
            await ask(peer, "tools/list")
        await peer.aclose()
        newer = await open_at(server.url, STATELESS, verdicts=verdicts)
        assert newer.handshake.era is Era.MODERN
        await newer.aclose()


# From sessions to requests without one


_UNSUPPORTED = (
    b'{"jsonrpc":"2.0","id":%b,"error":{"code":-32022,"message":"Unsupported protocol version",'
    b'"data":{"supported":["2026-07-28"],"requested":"2025-11-25"}}}'
)
_ENVELOPE = {"jsonrpc": "2.0", "id": 1, "server_id": "x", "method": "tools/call"}
_TOOL = {"name": "a", "arguments": {}}


def _stateless_only(status: str, body: bytes) -> Behaviour:
    """Whatever is not a stateless request is answered like this."""

    async def behave(request: Request, line: Line) -> None:
        if request.verb != "POST":
            await line.reply(b"", "405 Method Not Allowed")
        elif request.headers.get("mcp-protocol-version") != "2026-07-28":
            await line.reply(body % request.id if b"%b" in body else body, status)
        else:
            await _stateless(request, line)

    return behave


_REFUSALS = [
    ("400 Bad Request", _UNSUPPORTED),
    ("400 Bad Request", b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no"}}'),
    ("405 Method Not Allowed", b""),
]


def _envelope(caller: Client) -> Reply:
    body = json.dumps({**_ENVELOPE, "params": _TOOL}).encode()
    return caller.send(body, path=b"/mcp")


@pytest.mark.parametrize(("status", "body"), _REFUSALS)
@pytest.mark.parametrize("first", ["session", "envelope", "own session"])
async def test_a_server_that_became_stateless_is_used_as_what_it_is(
    client: MakeClient, first: str, status: str, body: bytes
) -> None:
    async with raw_server(sessions(plain)) as server:

        def use() -> None:
            with face("hot", remote("x", server.url)) as front:
                asks: dict[str, Any] = {"elicitation": {}} if first.startswith("own") else {}
                caller, other = client(front, "x").initialize(**asks), client(front, "x")
                assert "result" in caller.call("a").message
                assert other.modern("tools/call", _TOOL).error["code"] == -32022
                server.behave = _stateless_only(status, body)
                if first == "envelope":
                    assert "result" in _envelope(other).message
                error = caller.call("a").error
                assert error["code"] == -32022, error
                assert error["message"].endswith("it speaks 2026-07-28")
                assert other.modern("tools/call", _TOOL).status == 200
                error = client(front, "x").begin().error
                assert error["data"]["supported"] == ["2026-07-28"]
                assert "result" in _envelope(other).message

        await anyio.to_thread.run_sync(use)
        calls = [one for one in server.requests if one.body and one.method == "tools/call"]
        taken = [one for one in calls if one.headers["mcp-protocol-version"] == "2026-07-28"]
        assert len(taken) == 2 + (first == "envelope")


async def test_a_server_that_became_stateless_is_noticed_by_the_end_of_its_stream(
    client: MakeClient,
) -> None:
    """By nobody's call."""
    open_streams: list[Line] = []

    async def opened(_request: Request, line: Line) -> None:
        open_streams.append(line)
        await stream(line, b"retry: 1\n\n", end=False)
        await line.gone()

    async with raw_server(sessions(plain, opened)) as server:

        def begin(caller: Client) -> None:
            assert "result" in caller.initialize().call("a").message

        def later(caller: Client) -> None:
            assert caller.modern("tools/call", _TOOL).status == 200

        with face("hot", remote("x", server.url)) as front:
            await anyio.to_thread.run_sync(begin, client(front, "x"))
            server.behave = _stateless_only("400 Bad Request", _UNSUPPORTED)
            open_streams[0].writer.close()
            await server.saw(lambda: "server/discover" in server.methods()[3:])
            await anyio.to_thread.run_sync(later, client(front, "x"))


async def test_a_session_that_is_lost_to_a_stateless_server_ends_like_that(
    client: MakeClient,
) -> None:
    """The server says 404 first, as to any session that it does not know."""
    refusing = _stateless_only("400 Bad Request", _UNSUPPORTED)

    async def forgetting(request: Request, line: Line) -> None:
        if "mcp-session-id" in request.headers:
            await line.reply(b"", "404 Not Found")
        else:
            await refusing(request, line)

    async with raw_server(sessions(plain)) as server:

        def use() -> None:
            with face("hot", remote("x", server.url)) as front:
                caller = client(front, "x").initialize()
                assert "result" in caller.call("a").message
                server.behave = forgetting
                error = caller.ask("tools/list").error
                assert error["code"] == -32022
                assert error["message"].endswith("it speaks 2026-07-28")

        await anyio.to_thread.run_sync(use)


NOT_ALLOWED = "405 Method Not Allowed"


def absent(status: str) -> Behaviour:
    """Two requests are refused by something else; after that the server is there again."""
    refusals, inner = iter([status, status]), sessions(plain)

    async def behave(request: Request, line: Line) -> None:
        refusal = next(refusals, None)
        if refusal is None:
            await inner(request, line)
        else:
            await line.reply(b"", refusal)

    return behave


@pytest.mark.parametrize("status", [NOT_ALLOWED, "410 Gone"])
async def test_a_call_of_a_session_refused_by_what_stood_in_for_a_server_goes_on(
    client: MakeClient, status: str
) -> None:
    """As the call without a session above."""
    async with raw_server(sessions(plain)) as server:

        def use() -> None:
            with face("hot", remote("x", server.url)) as front:
                caller = client(front, "x").initialize()
                assert "result" in caller.call("a").message
                server.behave = absent(status)
                assert "result" in caller.call("a").message

        await anyio.to_thread.run_sync(use)
        assert server.methods().count("tools/call") == 3


async def test_a_subscription_that_goes_on_is_kept(client: MakeClient) -> None:
    """Refused in the same way, it is heard of at its outcome alone."""
    async with raw_server(sessions(plain)) as server:

        def use() -> None:
            with face("hot", remote("x", server.url)) as front:
                caller = client(front, "x").initialize()
                assert "result" in caller.call("a").message
                server.behave = absent(NOT_ALLOWED)
                subscribed = caller.ask("resources/subscribe", {"uri": "test://a"})
                assert "result" in subscribed.message
                (session,) = front.gateway.sessions._sessions.values()
                assert session.core.subscriptions == {"test://a"}
                assert "result" in caller.call("a").message
                assert "resources/unsubscribe" not in server.methods()

        await anyio.to_thread.run_sync(use)
