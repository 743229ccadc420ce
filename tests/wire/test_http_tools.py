"""Headers that repeat a tool's arguments, and refusals that are no business of the caller."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from open_mcp_gateway.errors import GatewayError, UpstreamBroken
from open_mcp_gateway.outbound.verdicts import EraVerdicts
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.jsonrpc import Call
from open_mcp_gateway.protocol.mirrored import NOTHING, Mirrored
from tests.wire.remotes import (
    DISCOVERED,
    Behaviour,
    Line,
    Request,
    answer_to,
    ask,
    entry_for,
    event,
    modern,
    open_at,
    raw_server,
    sessions,
    start,
    start_call,
    stream,
)

pytestmark = pytest.mark.anyio

GOOD = {"name": "x", "inputSchema": {"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}}
PLAIN = {"name": "plain", "inputSchema": {"type": "object"}, "vendor": 1.50}
BAD = {"name": "bad", "inputSchema": {"properties": {"a": {"type": "number", "x-mcp-header": "A"}}}}
CALL = b'{"name":"x","arguments":{"a":"eu"}}'
MISMATCH = b'{"code":-32020,"message":"Header mismatch","data":{"header":"Mcp-Param-A"}}'


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


def pages(*lists: list[dict[str, Any]]) -> Callable[[Request], bytes]:
    """Answers to ``tools/list``; the second page has the empty cursor, which is one like others."""

    def result(request: Request) -> bytes:
        cursor = request.json["params"].get("cursor")
        number = {None: 0, "": 1}[cursor] if cursor in {None, ""} else int(cursor)
        page: dict[str, Any] = {"tools": lists[number], "ttlMs": 0}
        if number + 1 < len(lists):
            page["nextCursor"] = "" if number == 0 else str(number + 1)
        return json.dumps(page).encode()

    return result


def with_tools(behave: Behaviour, tools: Callable[[Request], bytes]) -> Behaviour:
    """A modern server that lists tools."""

    async def all_of_it(request: Request, line: Line) -> None:
        if request.method == "server/discover":
            await line.result(request, DISCOVERED.replace(b"{}", b'{"tools":{}}'))
        elif request.method == "tools/list":
            await line.result(request, tools(request))
        else:
            await behave(request, line)

    return all_of_it


async def plain(request: Request, line: Line) -> None:
    await line.result(request)


def refusing_once(error: bytes, status: str = "400 Bad Request") -> Behaviour:
    refused: list[Request] = []

    async def behave(request: Request, line: Line) -> None:
        if refused:
            await line.result(request, b'{"ok":true}')
        else:
            refused.append(request)
            await line.reply(b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (request.id, error), status)

    return behave


async def test_arguments_are_repeated_from_the_first_call_on() -> None:
    async with raw_server(with_tools(plain, pages([PLAIN], [], [GOOD]))) as server:
        peer = await open_at(server.url)
        await ask(peer, "tools/call", CALL)
        seen = server.requests[-1]
        assert seen.headers["mcp-param-a"] == "eu"
        assert server.methods().count("tools/list") == 3
        await ask(peer, "tools/call", b'{"name":"x","arguments":{"a":null}}')
        assert "mcp-param-a" not in server.requests[-1].headers
        await ask(peer, "tools/call", b'{"name":"plain","arguments":{"a":"eu"}}')
        assert "mcp-param-a" not in server.requests[-1].headers
        assert server.methods().count("tools/list") == 3
        assert peer.mirrored("x") == (Mirrored(("a",), "A", "string"),)
        assert peer.mirrored("plain") == NOTHING
        assert peer.mirrored("unheard-of") is None
        await peer.aclose()


async def test_calls_of_other_kinds_do_not_wait_for_the_tools() -> None:
    listed = asyncio.Event()
    tools = pages([GOOD])

    async def behave(request: Request, line: Line) -> None:
        if request.method == "tools/list":
            await listed.wait()
        await served(request, line)

    served = with_tools(plain, tools)
    async with raw_server(behave) as server:
        peer = await open_at(server.url)
        _, called = start(peer, "tools/call", CALL)
        given_up, gone = start(peer, "tools/call", CALL)
        await ask(peer, "prompts/list")
        assert "tools/call" not in server.methods()
        given_up.cancel("enough")
        listed.set()
        await called.message()
        assert server.methods().count("tools/call") == 1
        assert not gone.settled
        await peer.aclose()


async def test_the_tools_can_be_waited_for() -> None:
    async with raw_server(with_tools(plain, pages([PLAIN], [GOOD]))) as server:
        peer = await open_at(server.url)
        listed = asyncio.Event()
        assert peer.wait_for_tools(listed.set)
        assert not listed.is_set()
        await asyncio.wait_for(listed.wait(), 60)
        assert peer.mirrored("x") is not None
        assert not peer.wait_for_tools(listed.set)
        await peer.aclose()
    async with raw_server(sessions(plain)) as server:
        peer = await open_at(server.url)
        assert not peer.wait_for_tools(listed.set)
        await peer.aclose()


async def test_nobody_waits_for_the_tools_of_a_server_that_is_gone() -> None:
    async def behave(request: Request, line: Line) -> None:
        if request.method == "tools/list":
            await line.gone()
        await served(request, line)

    served = with_tools(plain, pages([]))
    async with raw_server(behave) as server:
        peer = await open_at(server.url)
        late = asyncio.Event()
        assert peer.wait_for_tools(late.set)
        await peer.aclose()
        await asyncio.wait_for(late.wait(), 60)


async def test_a_server_that_does_not_list_its_tools_is_called_all_the_same() -> None:
    async def behave(request: Request, line: Line) -> None:
        if request.method == "tools/list":
            await line.gone()
        await served(request, line)

    served = with_tools(plain, pages([]))
    async with raw_server(behave) as server:
        peer = await open_at(server.url)
        await ask(peer, "tools/call", CALL)
        await peer.aclose()


async def test_tools_that_break_the_rules_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    async with raw_server(with_tools(plain, pages([GOOD, BAD, PLAIN]))) as server:
        with caplog.at_level(logging.WARNING):
            peer = await open_at(server.url)
            for _ in range(2):
                listed = json.loads(await ask(peer, "tools/list"))["result"]
                assert listed == {"tools": [GOOD, PLAIN], "ttlMs": 0}
        told = [record for record in caplog.records if "passed over" in record.message]
        assert len(told) == 1
        assert told[0].__dict__["tool"] == "bad"
        await peer.aclose()


async def test_a_list_of_good_tools_passes_byte_for_byte() -> None:
    odd = b'{ "tools" : [ {"name":"x","inputSchema":{"x":1.50}, "vendor":"\\u00e9"} ], "ttlMs":0}'
    async with raw_server(with_tools(plain, lambda _: odd)) as server:
        peer = await open_at(server.url)
        assert odd in await ask(peer, "tools/list")
        await peer.aclose()


async def test_a_listing_on_its_way_to_a_caller_teaches_as_well() -> None:
    lists: list[dict[str, Any]] = [PLAIN]
    async with raw_server(with_tools(plain, pages(lists))) as server:
        peer = await open_at(server.url)
        await ask(peer, "tools/call", b'{"name":"plain"}')
        lists.append(GOOD)
        await ask(peer, "tools/list")
        await ask(peer, "tools/call", CALL)
        assert server.requests[-1].headers["mcp-param-a"] == "eu"
        await peer.aclose()


@pytest.mark.parametrize("status", ["400 Bad Request", "200 OK"])
async def test_a_header_mismatch_is_mended_and_tried_once_more(status: str) -> None:
    lists: list[dict[str, Any]] = []
    served = with_tools(refusing_once(MISMATCH, status), pages(lists))
    async with raw_server(served) as server:
        peer = await open_at(server.url)
        await server.saw(lambda: "tools/list" in server.methods())
        lists.append(GOOD)
        assert json.loads(await ask(peer, "tools/call", CALL))["result"] == {"ok": True}
        calls = [r for r in server.requests if r.method == "tools/call"]
        assert [r.headers.get("mcp-param-a") for r in calls] == [None, "eu"]
        assert calls[0].json["id"] == calls[1].json["id"]
        await peer.aclose()


@pytest.mark.parametrize("as_event", [False, True])
async def test_a_header_mismatch_that_stays_is_the_gateways_own_failure(as_event: bool) -> None:
    async def refusing(request: Request, line: Line) -> None:
        body = b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (request.id, MISMATCH)
        if as_event:
            await stream(line, event(body))
        else:
            await line.reply(body, "400 Bad Request")

    async with raw_server(with_tools(refusing, pages([GOOD]))) as server:
        peer = await open_at(server.url)
        for method in ("tools/call", "prompts/get"):
            with pytest.raises(UpstreamBroken, match=r"does not accept the request.*-32020"):
                await ask(peer, method, CALL)
            assert server.methods().count(method) == 2
        assert peer.inflight == 0
        await peer.aclose()


async def test_an_unsupported_version_is_negotiated_once_more() -> None:
    error = b'{"code":-32022,"message":"v","data":{"supported":["2026-07-28"],"requested":"x"}}'
    async with raw_server(modern(refusing_once(error))) as server:
        peer = await open_at(server.url)
        assert json.loads(await ask(peer, "tools/call", CALL))["result"] == {"ok": True}
        await peer.aclose()
    async with raw_server(modern(plain)) as server:
        peer = await open_at(server.url)

        async def refusing(request: Request, line: Line) -> None:
            body = b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (request.id, error)
            await line.reply(body, "400 Bad Request")

        server.behave = refusing
        with pytest.raises(UpstreamBroken, match="-32022"):
            await ask(peer, "tools/call", CALL)
        await peer.aclose()


async def test_a_server_that_became_legacy_only_is_lost() -> None:
    error = b'{"code":-32022,"message":"v","data":{"supported":["2025-11-25"]}}'
    verdicts = EraVerdicts()
    async with raw_server(modern(plain)) as server:
        peer = await open_at(server.url, verdicts=verdicts)
        lost: asyncio.Queue[GatewayError] = asyncio.Queue()
        peer.on_lost(lost.put_nowait)

        async def legacy(request: Request, line: Line) -> None:
            body = b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (request.id, error)
            await line.reply(body, "400 Bad Request")

        server.behave = legacy
        with pytest.raises(UpstreamBroken, match="refused the protocol version"):
            await ask(peer, "tools/call", CALL)
        assert "no longer speaks" in (await asyncio.wait_for(lost.get(), 60)).public
        assert verdicts.speaks(entry_for(server.url), Era.MODERN) is None
        await peer.aclose()


async def test_a_change_of_the_tools_is_looked_at_once() -> None:
    lists: list[dict[str, Any]] = [PLAIN]
    changed = asyncio.Event()

    async def listening(request: Request, line: Line) -> None:
        if request.method != "subscriptions/listen":
            await line.result(request)
            return
        await stream(line, b": on\n\n", end=False)
        await changed.wait()
        note = b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{}}'
        data = event(note) * 3 + event(answer_to(request, b'{"resultType":"complete"}'))
        await line.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))

    async with raw_server(with_tools(listening, pages(lists))) as server:
        peer = await open_at(server.url)
        await ask(peer, "tools/call", CALL)
        listens = [
            start_call(peer, Call("subscriptions/listen", b"%d" % n), within_s=float("inf"))[1]
            for n in range(3)
        ]
        lists.append(GOOD)
        changed.set()
        for outcome in listens:
            await outcome.message()
            assert len(outcome.heard) == 3
        await server.saw(lambda: server.methods().count("tools/list") == 2)
        await ask(peer, "prompts/list")  # answered after the listing, whose request came first
        await ask(peer, "tools/call", CALL)
        assert server.requests[-1].headers["mcp-param-a"] == "eu"
        assert server.methods().count("tools/list") == 2
        await peer.aclose()
