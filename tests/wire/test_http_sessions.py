"""Sessions that servers forget, and verdicts that stop holding."""

from __future__ import annotations

import pytest

from open_mcp_gateway.errors import (
    GatewayError,
    UpstreamBroken,
    UpstreamUnavailable,
)
from open_mcp_gateway.outbound.verdicts import EraVerdicts
from tests.wire.remotes import (
    CALL,
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


@pytest.mark.parametrize(
    "after",
    [
        replying(b"", "404 Not Found"),
        replying(
            b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no session"}}',
            "400 Bad Request",
        ),
    ],
)
async def test_a_server_that_is_modern_no_more_is_lost_and_asked_anew(after: Behaviour) -> None:
    verdicts = EraVerdicts()
    async with raw_server(modern(plain)) as server:
        peer = await open_at(server.url, verdicts=verdicts)
        assert verdicts.recall(entry_for(server.url)) is not None
        lost: list[GatewayError] = []
        peer.on_lost(lost.append)
        server.behave = after
        with pytest.raises(UpstreamBroken, match="no longer speaks as it did"):
            await ask(peer, "tools/call", CALL)
        assert len(lost) == 1
        assert verdicts.recall(entry_for(server.url)) is None
        with pytest.raises(UpstreamUnavailable):
            start(peer, "tools/list")
        await peer.aclose()
