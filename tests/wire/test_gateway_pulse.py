"""A gateway behind ``gateway-stdio --gateway`` that hangs, and one that only takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from open_mcp_gateway.errors import GatewayError, UpstreamBroken, UpstreamTimeout
from open_mcp_gateway.outbound import pulse
from open_mcp_gateway.outbound.gateway import gateway_entry, gateway_opener
from open_mcp_gateway.outbound.peer import Manner, Peer
from open_mcp_gateway.outbound.settings import OutboundSettings
from open_mcp_gateway.protocol.eras import Era
from tests.wire.remotes import (
    CALL,
    Line,
    RawServer,
    Request,
    ask,
    modern,
    plain,
    raw_server,
    sessions,
    start,
)

pytestmark = pytest.mark.anyio

HEALTH = "/under/health"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


class Gateway:
    """Leaves calls of tools unanswered until ``go``."""

    def __init__(self, *, health: str | None) -> None:
        """``health`` is the status that it says it is there with. Empty: it breaks off; None: it is
        silent."""
        self.health = health
        self.go = asyncio.Event()

    async def behave(self, request: Request, line: Line) -> None:
        if request.target == HEALTH:
            await self._say(line)
        elif request.method == "tools/call":
            await self.go.wait()
            await line.result(request)
        else:
            await plain(request, line)

    async def _say(self, line: Line) -> None:
        if self.health is None:
            await line.gone()
        elif self.health:
            await line.reply(b"{}", self.health)
        else:
            await line.cut()


@asynccontextmanager
async def through(
    gateway: Gateway, era: Era, settings: OutboundSettings | None = None
) -> AsyncIterator[tuple[RawServer, Peer]]:
    """A peer by way of ``gateway``."""
    wrap = modern if era is Era.MODERN else sessions
    inner = wrap(gateway.behave)

    async def behave(request: Request, line: Line) -> None:
        await (gateway.behave if request.target == HEALTH else inner)(request, line)

    async with raw_server(behave) as server:
        entry = gateway_entry(f"http://127.0.0.1:{server.port}/under/", "x", None)
        opener = gateway_opener(settings or OutboundSettings(), {}, key_hint="")
        peer = await opener(entry, Manner(era=era))
        try:
            yield server, peer
        finally:
            await peer.aclose()


def asked(server: RawServer) -> int:
    return sum(request.target == HEALTH for request in server.requests)


@pytest.mark.parametrize("era", [Era.MODERN, Era.LEGACY])
async def test_calls_through_a_gateway_that_hangs_end(
    monkeypatch: pytest.MonkeyPatch, era: Era
) -> None:
    monkeypatch.setattr(pulse, "PAUSE_S", 0.05)
    monkeypatch.setattr(pulse, "ANSWER_S", 0.2)
    async with through(Gateway(health=None), era) as (_, peer):
        lost: list[GatewayError] = []
        peer.on_lost(lost.append)
        calls = [start(peer, "tools/call", CALL)[1] for _ in range(2)]
        for call in calls:
            with pytest.raises(UpstreamBroken, match=r"not answered anything.*taken effect"):
                await call.message()
        assert len(lost) == 1


@pytest.mark.parametrize("era", [Era.MODERN, Era.LEGACY])
@pytest.mark.parametrize("health", ["200 OK", "404 Not Found", "503 Service Unavailable", ""])
async def test_a_long_call_goes_on_while_its_gateway_says_anything(
    monkeypatch: pytest.MonkeyPatch, era: Era, health: str
) -> None:
    """Even what breaks off is no silence."""
    monkeypatch.setattr(pulse, "PAUSE_S", 0.02)
    gateway = Gateway(health=health)
    async with through(gateway, era) as (server, peer):
        call = start(peer, "tools/call", CALL)[1]
        await server.saw(lambda: asked(server) >= 5)
        assert not call.settled
        gateway.go.set()
        assert b'"result"' in await call.message()


async def test_a_question_that_finds_no_connection_free_is_no_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pulse, "PAUSE_S", 0.02)
    monkeypatch.setattr(pulse, "ANSWER_S", 0.02)
    gateway = Gateway(health=None)
    only_one = OutboundSettings(max_connections_per_origin=1)
    async with through(gateway, Era.MODERN, only_one) as (server, peer):
        _, call = start(peer, "tools/call", CALL)
        await server.saw(lambda: "tools/call" in server.methods())
        with pytest.raises(UpstreamTimeout, match="could not be sent"):
            await ask(peer, "prompts/list", within_s=0.3)
        assert asked(server) == 0
        gateway.go.set()
        assert b'"result"' in await call.message()
