"""A server in whose place a newer one stands, which speaks what the old one did not."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
import pytest

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.app import running
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.clock import SystemClock
from open_mcp_gateway.config.model import Config
from open_mcp_gateway.errors import EraNotSpoken
from open_mcp_gateway.inbound.management import ReloadReport
from open_mcp_gateway.outbound.peer import Manner
from open_mcp_gateway.outbound.verdicts import EraVerdicts
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.supervisor.fleet import Fleet
from tests.wire.conftest import MakeClient
from tests.wire.faces import face
from tests.wire.mcp_client import remote
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
