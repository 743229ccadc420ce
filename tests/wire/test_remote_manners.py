"""Servers opened in the manner of a client: real servers, and what belongs to calls to them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from open_mcp_gateway.catalog.model import EraChoice
from open_mcp_gateway.errors import EraNotSpoken, UpstreamUnavailable
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner
from open_mcp_gateway.outbound.verdicts import EraVerdicts
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.jsonrpc import Call, decode_incoming, encode
from tests.conformance.fixture_servers import listening
from tests.wire.remotes import (
    Behaviour,
    Line,
    Outcome,
    Request,
    Room,
    ask,
    entry_for,
    http_and_sse,
    modern,
    open_at,
    params_of,
    plain,
    raw_server,
    sessions,
    start_call,
)

pytestmark = pytest.mark.anyio

STATELESS = Manner(era=Era.MODERN)
SESSION = Manner(era=Era.LEGACY)
CAPABILITIES = b'{"elicitation":{},"roots":{},"sampling":{}}'
OWNED = Manner(era=Era.LEGACY, capabilities=CAPABILITIES, owner="client-1")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="module")
def dual(logs: Path) -> Iterator[str]:
    with listening("dual_everything", "http", logs / "dual") as url:
        yield url


@pytest.fixture(scope="module")
def modern_only(logs: Path) -> Iterator[str]:
    with listening("modern_everything", "http", logs / "modern") as url:
        yield url


@pytest.fixture(scope="module")
def legacy(logs: Path) -> Iterator[str]:
    with listening("legacy_everything", "http", logs / "legacy") as url:
        yield url


@pytest.fixture(scope="module")
def sse(logs: Path) -> Iterator[str]:
    with listening("legacy_everything", "sse", logs / "sse") as url:
        yield url


def tool(name: str, arguments: bytes = b"{}", **members: Any) -> Call:
    params = params_of(b'{"name":%b,"arguments":%b}' % (encode(name), arguments))
    return Call("tools/call", b'"c"', params, **members)


async def said(outcome: Outcome) -> str:
    """The text that a call answered with."""
    answer = json.loads(await outcome.message())
    text = answer["result"]["content"][0]["text"]
    assert isinstance(text, str)
    return text


# Eras


@pytest.mark.parametrize(
    ("manner", "version"),
    [
        (ANY_MANNER, "2026-07-28"),
        (STATELESS, "2026-07-28"),
        (SESSION, "2025-11-25"),
        (Manner(era=Era.LEGACY, version="2025-06-18"), "2025-06-18"),
        (Manner(era=Era.LEGACY, version="2024-11-05"), "2024-11-05"),
    ],
)
async def test_a_server_of_both_eras_is_spoken_to_as_asked(
    dual: str, manner: Manner, version: str
) -> None:
    verdicts = EraVerdicts()
    for _ in range(2):
        peer = await open_at(dual, manner, verdicts=verdicts)
        assert peer.handshake.version == version
        outcome = start_call(peer, tool("test_simple_text"))[1]
        assert "simple text" in await said(outcome)
        await peer.aclose()
    peer = await open_at(dual, verdicts=verdicts)
    assert peer.handshake.era is Era.MODERN
    await peer.aclose()


async def test_a_server_of_sessions_does_not_speak_the_other_era(legacy: str, sse: str) -> None:
    for url in (legacy, sse):
        verdicts = EraVerdicts()
        with pytest.raises(EraNotSpoken) as caught:
            await open_at(url, STATELESS, verdicts=verdicts)
        assert caught.value.spoken == ("2025-11-25",)
        assert verdicts.speaks(entry_for(url), Era.MODERN) is False
        peer = await open_at(url, SESSION, verdicts=verdicts)
        await ask(peer, "tools/list")
        await peer.aclose()


async def test_a_stateless_server_does_not_speak_the_other_era(modern_only: str) -> None:
    verdicts = EraVerdicts()
    with pytest.raises(EraNotSpoken) as caught:
        await open_at(modern_only, SESSION, verdicts=verdicts)
    assert caught.value.spoken == ("2026-07-28",)
    assert verdicts.speaks(entry_for(modern_only), Era.LEGACY) is False
    peer = await open_at(modern_only, STATELESS, verdicts=verdicts)
    await ask(peer, "tools/list")
    await peer.aclose()


def refusing_sessions(code: int, status: str = "400 Bad Request") -> Behaviour:
    """A modern server that answers ``initialize`` with an error, and has no other endpoint."""

    async def behave(request: Request, line: Line) -> None:
        if request.verb == "GET":
            await line.reply(b"", "405 Method Not Allowed")
        elif request.method == "initialize":
            error = b'{"code":%d,"message":"no"}' % code
            await line.reply(b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (request.id, error), status)
        else:
            await line.result(request)

    return modern(behave)


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "404 Not Found"])
async def test_refusals_of_a_session_that_make_a_verdict(status: str) -> None:
    for code in (-32022, -32600, -32601, -32602, -32000):
        async with raw_server(refusing_sessions(code, status)) as server:
            with pytest.raises(EraNotSpoken):
                await open_at(server.url, SESSION)


async def test_a_server_that_failed_inside_gave_no_verdict() -> None:
    async with raw_server(refusing_sessions(-32603)) as server:
        verdicts = EraVerdicts()
        with pytest.raises(UpstreamUnavailable, match="refused initialize") as caught:
            await open_at(server.url, SESSION, verdicts=verdicts)
        assert not isinstance(caught.value, EraNotSpoken)
        assert verdicts.speaks(entry_for(server.url), Era.LEGACY) is None


async def test_a_verdict_needs_no_second_look() -> None:
    for behave, manner in ((refusing_sessions(-32022), SESSION), (sessions(plain), STATELESS)):
        verdicts = EraVerdicts()
        async with raw_server(behave) as server:
            with pytest.raises(EraNotSpoken):
                await open_at(server.url, manner, verdicts=verdicts)
            asked = len(server.requests)
            with pytest.raises(EraNotSpoken):
                await open_at(server.url, manner, verdicts=verdicts)
            assert len(server.requests) == asked
            assert all(r.headers.get("mcp-session-id", "s1") == "s1" for r in server.requests)


async def test_what_the_catalog_says_is_final() -> None:
    async with raw_server(sessions(plain)) as server:
        with pytest.raises(EraNotSpoken) as caught:
            await open_at(server.url, STATELESS, era=EraChoice.LEGACY)
        assert "2025-11-25" in caught.value.spoken
        with pytest.raises(EraNotSpoken):
            await open_at(server.url, SESSION, era=EraChoice.MODERN)
        assert server.requests == []


@pytest.mark.parametrize("manner", [SESSION, STATELESS])
@pytest.mark.parametrize("status", ["500 Oops", "503 Service Unavailable", "401 Unauthorized"])
async def test_an_outage_says_nothing_about_an_era(manner: Manner, status: str) -> None:
    async def down(_request: Request, line: Line) -> None:
        await line.reply(b"", status)

    verdicts = EraVerdicts()
    async with raw_server(down) as server:
        with pytest.raises(UpstreamUnavailable) as caught:
            await open_at(server.url, manner, verdicts=verdicts)
        assert not isinstance(caught.value, EraNotSpoken)
        entry = entry_for(server.url)
        assert [verdicts.speaks(entry, era) for era in Era] == [None, None]


async def test_an_outage_between_two_questions_is_no_verdict() -> None:
    """It refuses the one era in words, and is not well when it is asked for the other."""
    opened = sessions(plain)

    async def half(request: Request, line: Line) -> None:
        if request.method == "server/discover":
            await opened(request, line)
        else:
            await line.reply(b"", "502 Bad Gateway")

    async with raw_server(half) as server:
        verdicts = EraVerdicts()
        with pytest.raises(UpstreamUnavailable) as caught:
            await open_at(server.url, STATELESS, verdicts=verdicts)
        assert not isinstance(caught.value, EraNotSpoken)
        assert verdicts.speaks(entry_for(server.url), Era.MODERN) is None


async def test_what_a_client_can_do_is_told_to_its_own_session_alone() -> None:
    async with raw_server(sessions(plain)) as server:
        await (await open_at(server.url, OWNED)).aclose()
        offered = next(r for r in server.requests if r.method == "initialize").json["params"]
        assert offered["capabilities"] == json.loads(CAPABILITIES)
        assert offered["clientInfo"]["name"] == "open-mcp-gateway"
    async with raw_server(http_and_sse()) as server:
        manner = Manner(era=Era.LEGACY, version="2024-11-05", capabilities=b'{"roots":{}}')
        await (await open_at(server.url, manner)).aclose()
        offered = next(r for r in server.requests if r.method == "initialize").json["params"]
        assert offered["capabilities"] == {"roots": {}}
        assert offered["protocolVersion"] == "2024-11-05"


# What belongs to a call


@pytest.mark.parametrize(
    ("server", "manner"),
    [("dual", STATELESS), ("dual", SESSION), ("legacy", SESSION), ("sse", SESSION)],
)
async def test_progress_of_a_call(
    server: str, manner: Manner, request: pytest.FixtureRequest
) -> None:
    peer = await open_at(request.getfixturevalue(server), manner)
    calls = [
        start_call(peer, tool("test_tool_with_progress", progress_token=Raw(raw)))[1]
        for raw in (b'"a"', b"1")
    ]
    for outcome, token in zip(calls, ("a", 1), strict=True):
        await outcome.message()
        told = [message["params"] for message in outcome.heard]
        assert [params["progress"] for params in told] == [0, 50, 100]
        assert {params["progressToken"] for params in told} == {token}
    await peer.aclose()


@pytest.mark.parametrize(
    ("server", "manner"), [("dual", STATELESS), ("dual", SESSION), ("legacy", SESSION)]
)
async def test_log_messages_of_a_call(
    server: str, manner: Manner, request: pytest.FixtureRequest
) -> None:
    peer = await open_at(request.getfixturevalue(server), manner)
    level = Raw(b'"debug"') if manner is STATELESS else None
    _, outcome = start_call(peer, tool("test_tool_with_logging", log_level=level))
    await outcome.message()
    assert [message["method"] for message in outcome.heard] == ["notifications/message"] * 3
    await peer.aclose()


@pytest.mark.parametrize("server", ["dual", "legacy"])
async def test_a_call_whose_stream_is_hung_up_goes_on(
    server: str, request: pytest.FixtureRequest
) -> None:
    peer = await open_at(request.getfixturevalue(server), SESSION)
    _, outcome = start_call(peer, tool("test_reconnection"))
    assert "waited for its client" in await said(outcome)
    await peer.aclose()


ANSWERS = {
    "sampling/createMessage": (
        b'{"role":"assistant","model":"m","content":{"type":"text","text":"spoken"}}'
    ),
    "elicitation/create": b'{"action":"accept","content":{"ok":true}}',
}


@pytest.mark.parametrize("server", ["dual", "legacy", "sse"])
@pytest.mark.parametrize(
    ("call", "method"),
    [
        (tool("test_sampling", b'{"prompt":"p"}'), "sampling/createMessage"),
        (tool("test_streaming_elicitation"), "elicitation/create"),
    ],
)
async def test_a_question_of_a_call_and_its_answer(
    server: str, call: Call, method: str, request: pytest.FixtureRequest
) -> None:
    peer = await open_at(request.getfixturevalue(server), OWNED)
    room = Room()
    peer.attend(room)
    _, outcome = start_call(peer, call)
    # Over HTTP+SSE there is one stream for all, and no telling which call it is about.
    hearer = room if server == "sse" else outcome
    await hearer.until(lambda: bool(hearer.questions))
    question = hearer.questions[0]
    assert question.method == method
    answer = b'{"jsonrpc":"2.0","id":1,"result":%b}' % ANSWERS[method]
    question.answer(decode_incoming(answer))
    text = await said(outcome)
    assert ("spoken" in text) == (method == "sampling/createMessage")
    await peer.aclose()


async def test_changes_reach_the_audience(dual: str, legacy: str, sse: str) -> None:
    for url in (dual, legacy, sse):
        peer = await open_at(url, SESSION)
        room = Room()
        peer.attend(room)
        _, outcome = start_call(peer, tool("test_trigger_tool_change"))
        await outcome.message()
        await room.until(functools.partial(bool, room.heard))
        assert room.methods() == ["notifications/tools/list_changed"]
        await peer.aclose()


async def test_a_subscription_to_changes(dual: str) -> None:
    peer = await open_at(dual, STATELESS)
    params = params_of(b'{"notifications":{"toolsListChanged":true}}')
    call = Call("subscriptions/listen", b'"mine"', params)
    ticket, listen = start_call(peer, call, within_s=float("inf"))
    await listen.until(lambda: bool(listen.heard))
    await start_call(peer, tool("test_trigger_tool_change"))[1].message()
    await listen.until(lambda: len(listen.heard) == 2)
    methods = [message["method"] for message in listen.heard]
    assert methods == [
        "notifications/subscriptions/acknowledged",
        "notifications/tools/list_changed",
    ]
    tag = "io.modelcontextprotocol/subscriptionId"
    assert {message["params"]["_meta"][tag] for message in listen.heard} == {"mine"}
    ticket.cancel("enough")
    assert not listen.settled
    await peer.aclose()


async def test_arguments_are_repeated_in_headers_that_the_server_checks(dual: str) -> None:
    peer = await open_at(dual, STATELESS)
    _, outcome = start_call(peer, tool("test_x_mcp_header", '{"region":"é "}'.encode()))
    assert await said(outcome) == "region=é "
    await peer.aclose()
