"""Streams of a session: the one that belongs to no call, and those that break and go on."""

from __future__ import annotations

import asyncio
import json

import pytest
from msgspec import Raw

from open_mcp_gateway.errors import GatewayError, UpstreamBroken
from open_mcp_gateway.outbound import http_resumptions, http_session, http_stream
from open_mcp_gateway.outbound.http_call import HttpCall
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner
from open_mcp_gateway.outbound.settings import OutboundSettings
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.jsonrpc import Call
from tests.wire.remotes import (
    CALL,
    INITIALIZED,
    Behaviour,
    Line,
    RawServer,
    Request,
    Room,
    answer_to,
    ask,
    event,
    open_at,
    params_of,
    plain,
    raw_server,
    sessions,
    start,
    start_call,
    stream,
)

pytestmark = pytest.mark.anyio

OWNED = Manner(era=Era.LEGACY, capabilities=b'{"roots":{}}', owner="client-1")
CHANGED = b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'
VENDOR = b'{"jsonrpc":"2.0","method":"notifications/vendor"}'
ROOTS = b'{"jsonrpc":"2.0","id":"q","method":"roots/list"}'
PING = b'{"jsonrpc":"2.0","id":"p","method":"ping"}'


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses short enough for tests."""
    monkeypatch.setattr(http_stream, "FIRST_RETRY_S", 0.01)


class Standing:
    """The server's side of the stream that belongs to no call."""

    def __init__(self, *, first: tuple[bytes, ...] = ()) -> None:
        self.first = first
        self.gets: list[Request] = []
        self.line: Line | None = None
        self.up = asyncio.Event()

    async def opened(self, request: Request, line: Line) -> None:
        self.gets.append(request)
        await stream(line, b": here\n\n", *self.first, end=False)
        self.line = line
        self.up.set()
        await line.gone()

    async def push(self, *events: bytes) -> None:
        await asyncio.wait_for(self.up.wait(), 60)
        assert self.line is not None
        for data in events:
            await self.line.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        self.up.clear()
        assert self.line is not None
        await self.line.send(b"0\r\n\r\n")
        self.line.writer.close()


def identified(event_id: str, message: bytes = b"", retry_ms: int | None = None) -> bytes:
    retry = b"" if retry_ms is None else b"retry: %d\n" % retry_ms
    return b"id: %b\n%bdata: %b\n\n" % (event_id.encode(), retry, message)


# What belongs to no call


async def test_the_stream_is_open_before_the_first_call() -> None:
    standing = Standing()
    async with raw_server(sessions(plain, standing.opened)) as server:
        peer = await open_at(server.url)
        seen = [(r.verb, r.method) for r in server.requests][-2:]
        assert seen == [("POST", "notifications/initialized"), ("GET", "")]
        get = standing.gets[0]
        assert get.headers["mcp-session-id"] == "s1"
        assert get.headers["accept"] == "text/event-stream"
        assert "last-event-id" not in get.headers
        await ask(peer, "tools/call", CALL)
        await peer.aclose()


async def test_a_server_without_such_a_stream_is_asked_once() -> None:
    async with raw_server(sessions(plain)) as server:
        peer = await open_at(server.url)
        for _ in range(3):
            await ask(peer, "tools/call", CALL)
        assert [r.verb for r in server.requests].count("GET") == 1
        await peer.aclose()


async def test_a_server_that_keeps_the_stream_waiting_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_session, "LISTEN_PATIENCE_S", 0.05)

    async def silent(_request: Request, line: Line) -> None:
        await line.gone()

    async with raw_server(sessions(plain, silent)) as server:
        peer = await open_at(server.url)
        await ask(peer, "tools/call", CALL)
        await peer.aclose()


async def test_notifications_and_questions_go_to_the_audience() -> None:
    standing = Standing()
    async with raw_server(sessions(plain, standing.opened)) as server:
        peer = await open_at(server.url)
        room = Room()
        peer.attend(room)
        assert peer.audience is room
        await standing.push(event(PING), event(CHANGED), event(b"not JSON"), event(ROOTS))
        await room.until(lambda: bool(room.questions))
        assert room.heard == [json.loads(CHANGED)]
        room.questions[0].refuse(-32000, "nobody there")
        await server.saw(lambda: len([r for r in server.requests if r.body and not r.method]) == 2)
        answers = [r.json for r in server.requests if r.body and not r.method]
        assert answers == [
            {"jsonrpc": "2.0", "id": "p", "result": {}},
            {"jsonrpc": "2.0", "id": "q", "error": {"code": -32000, "message": "nobody there"}},
        ]
        await peer.aclose()


async def test_without_an_audience_questions_are_refused() -> None:
    standing = Standing()
    async with raw_server(sessions(plain, standing.opened)) as server:
        peer = await open_at(server.url)
        await standing.push(event(CHANGED), event(ROOTS))
        await server.saw(lambda: any(r.body and not r.method for r in server.requests))
        assert server.requests[-1].json["error"]["code"] == -32601
        await peer.aclose()


async def test_what_a_server_asks_at_once_waits_for_the_audience() -> None:
    standing = Standing(first=(event(ROOTS), event(CHANGED), event(PING)))
    async with raw_server(sessions(plain, standing.opened)) as server:
        peer = await open_at(server.url, OWNED)
        await server.saw(lambda: any(r.body and not r.method for r in server.requests))
        assert server.requests[-1].json == {"jsonrpc": "2.0", "id": "p", "result": {}}
        room = Room()
        peer.attend(room)
        assert not room.questions
        await room.until(lambda: bool(room.heard))
        assert [question.method for question in room.questions] == ["roots/list"]
        await peer.aclose()


async def test_progress_on_that_stream_finds_its_call() -> None:
    standing = Standing()
    answer = asyncio.Event()

    async def slow(request: Request, line: Line) -> None:
        await answer.wait()
        await line.result(request)

    async with raw_server(sessions(slow, standing.opened)) as server:
        peer = await open_at(server.url)
        call = Call("tools/call", b"1", params_of(CALL), progress_token=Raw(b'"mine"'))
        _, outcome = start_call(peer, call)
        await server.saw(lambda: "tools/call" in server.methods())
        token = server.requests[-1].json["params"]["_meta"]["progressToken"]
        progress = (
            b'{"jsonrpc":"2.0","method":"notifications/progress",'
            b'"params":{"progressToken":%d,"progress":1}}'
        )
        await standing.push(event(progress % token))
        await outcome.until(lambda: bool(outcome.heard))
        assert outcome.heard[0]["params"] == {"progressToken": "mine", "progress": 1}
        answer.set()
        await outcome.message()
        await peer.aclose()


async def test_a_stream_that_ends_is_opened_again_where_it_ended() -> None:
    standing = Standing()
    async with raw_server(sessions(plain, standing.opened)) as server:
        peer = await open_at(server.url)
        room = Room()
        peer.attend(room)
        await standing.push(identified("a-7", CHANGED), b"id: lost\ndata: {")
        await room.until(lambda: len(room.heard) == 1)
        await standing.end()
        await standing.push(event(CHANGED))
        await room.until(lambda: len(room.heard) == 2)
        assert [get.headers.get("last-event-id") for get in standing.gets] == [None, "a-7"]
        assert standing.line is not None
        await standing.line.cut()
        standing.up.clear()
        await standing.push(event(CHANGED))
        await room.until(lambda: len(room.heard) == 3)
        await peer.aclose()


async def cut_short(_request: Request, line: Line) -> None:
    await stream(line, b": here\n\n")


async def test_a_stream_that_stood_is_soon_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_stream, "STOOD_S", 0.0)
    async with raw_server(sessions(plain, cut_short)) as server:
        peer = await open_at(server.url)
        # With pauses that double, so many would take minutes.
        await server.saw(lambda: sum(one.verb == "GET" for one in server.requests) == 16)
        await peer.aclose()


async def test_a_server_that_wants_no_pause_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_stream, "LEAST_RETRY_S", 60.0)
    ended = asyncio.Event()

    async def hasty(_request: Request, line: Line) -> None:
        await stream(line, identified("g-1", retry_ms=0))
        ended.set()

    async with raw_server(sessions(plain, hasty)) as server:
        peer = await open_at(server.url)
        await asyncio.wait_for(ended.wait(), 10)
        for _ in range(20):  # time enough for many
            await ask(peer, "tools/list")
        assert [one.verb for one in server.requests].count("GET") == 1
        await peer.aclose()


async def test_closing_ends_the_stream() -> None:
    gone = asyncio.Event()
    standing = Standing()

    async def opened(request: Request, line: Line) -> None:
        await standing.opened(request, line)
        gone.set()

    async with raw_server(sessions(plain, opened)) as server:
        peer = await open_at(server.url)
        await peer.aclose()
        await asyncio.wait_for(gone.wait(), 60)
        assert len(standing.gets) == 1


# Streams of calls that break


def breaking(*, goes_on: Behaviour, retry_ms: int | None = 20) -> Behaviour:
    """Ends every call's stream after a priming event; ``goes_on`` serves the GET."""

    async def behave(_request: Request, line: Line) -> None:
        await stream(line, identified("c-1", retry_ms=retry_ms))

    async def get(request: Request, line: Line) -> None:
        if "last-event-id" in request.headers:
            await goes_on(request, line)
        else:
            await line.reply(b"", "405 Method Not Allowed")

    return sessions(behave, get)


async def test_a_call_goes_on_where_its_stream_broke() -> None:
    seen: list[str] = []

    async def goes_on(request: Request, line: Line) -> None:
        seen.append(request.headers["last-event-id"])
        call = next(r for r in server.requests if r.method == "tools/call")
        if len(seen) == 1:
            await line.reply(b"", "503 Service Unavailable")
        elif len(seen) == 2:
            await stream(line, identified("c-2", VENDOR))
        elif len(seen) == 3:
            await line.cut()
        else:
            await stream(line, identified("c-3", answer_to(call)))

    async with raw_server(breaking(goes_on=goes_on)) as server:
        peer = await open_at(server.url)
        _, outcome = start(peer, "tools/call", CALL)
        assert json.loads(await outcome.message())["result"] == {"ok": True}
        assert seen == ["c-1", "c-1", "c-2", "c-2"]
        assert len(outcome.heard) == 1
        assert server.methods().count("tools/call") == 1
        await peer.aclose()


async def test_a_stream_that_never_goes_on_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_resumptions, "MAX_RESUMPTIONS", 3)
    tries: list[Request] = []

    async def goes_on(request: Request, line: Line) -> None:
        tries.append(request)
        await stream(line)

    async with raw_server(breaking(goes_on=goes_on)) as server:
        peer = await open_at(server.url)
        with pytest.raises(UpstreamBroken, match="ended its event stream without an answer"):
            await ask(peer, "tools/call", CALL)
        assert len(tries) == 3
        await peer.aclose()


async def test_a_server_that_cannot_go_on_says_so() -> None:
    async def goes_on(_request: Request, line: Line) -> None:
        await line.reply(b"", "400 Bad Request")

    async with raw_server(breaking(goes_on=goes_on)) as server:
        peer = await open_at(server.url)
        with pytest.raises(UpstreamBroken, match=r"does not go on with it \(HTTP 400\)"):
            await ask(peer, "tools/call", CALL)
        await peer.aclose()


async def test_a_stream_without_ids_cannot_go_on() -> None:
    async def behave(_request: Request, line: Line) -> None:
        await stream(line, event(CHANGED))

    async with raw_server(sessions(behave)) as server:
        peer = await open_at(server.url)
        with pytest.raises(UpstreamBroken, match="ended its event stream without an answer"):
            await ask(peer, "tools/call", CALL)
        await peer.aclose()


async def test_a_call_whose_server_died_in_its_stream_may_have_taken_effect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The call was delivered, whatever becomes of the attempts to go on with its stream."""
    monkeypatch.setattr(http_resumptions, "MAX_RESUMPTIONS", 3)

    async def die(_request: Request, line: Line) -> None:
        await stream(line, identified("c-1", retry_ms=20), end=False)
        door.close()
        await line.cut()

    async def cut(_request: Request, line: Line) -> None:
        await line.cut()

    server = RawServer(sessions(die, cut))
    door = await server.listen("127.0.0.1", None)
    try:
        peer = await open_at(server.url)
        with pytest.raises(UpstreamBroken, match=r"cannot be reached.*may have taken effect"):
            await ask(peer, "tools/call", CALL)
        await peer.aclose()
    finally:
        await server.stop(door)


@pytest.mark.parametrize("end", ["deadline", "close"])
async def test_a_call_that_waits_to_go_on_with_its_stream_may_have_taken_effect(end: str) -> None:
    async def behave(request: Request, line: Line) -> None:
        if request.method == "tools/call":
            await stream(line, identified("c-1", retry_ms=20))
        else:
            await line.gone()

    one = OutboundSettings(max_connections_per_origin=1)
    async with raw_server(sessions(behave)) as server:
        peer = await open_at(server.url, settings=one)
        ticket, outcome = start(peer, "tools/call", CALL)
        start(peer, "tools/list")
        await server.saw(lambda: "tools/list" in server.methods())
        assert isinstance(ticket, HttpCall)
        async with asyncio.timeout(10):
            while not ticket.peer.link.pool.waits(ticket):  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.01)
        if end == "deadline":
            ticket.extend(asyncio.get_running_loop().time())
        else:
            await peer.aclose()
        with pytest.raises(GatewayError, match="may have taken effect"):
            await outcome.message()
        await peer.aclose()


async def test_cancelling_while_the_stream_is_broken_says_so() -> None:
    async def goes_on(_request: Request, line: Line) -> None:
        await line.gone()

    async with raw_server(breaking(goes_on=goes_on, retry_ms=60_000)) as server:
        peer = await open_at(server.url)
        ticket, outcome = start(peer, "tools/call", CALL)
        await server.saw(lambda: "tools/call" in server.methods())
        call = next(r for r in server.requests if r.method == "tools/call")
        await ask_until_idle(server.requests)
        ticket.cancel("enough")
        await server.saw(lambda: "notifications/cancelled" in server.methods())
        assert server.requests[-1].json["params"]["requestId"] == call.json["id"]
        assert not outcome.settled
        await peer.aclose()


async def hangs(_request: Request, line: Line) -> None:
    await line.gone()


async def breaks_off(_request: Request, line: Line) -> None:
    await stream(line, event(CHANGED))


async def falls(_request: Request, line: Line) -> None:
    await line.cut()


async def gateway_timeout(_request: Request, line: Line) -> None:
    await line.reply(b"", "504 Gateway Timeout")


async def refuses(_request: Request, line: Line) -> None:
    await line.reply(b"", "422 Unprocessable Content")


@pytest.mark.parametrize(
    ("behave", "counts"),
    [
        (hangs, True),
        (breaks_off, True),
        (falls, True),
        (gateway_timeout, True),
        (refuses, False),
        (plain, False),
    ],
)
async def test_a_call_that_the_server_may_be_at_work_on_counts(
    behave: Behaviour, counts: bool
) -> None:
    async with raw_server(sessions(behave)) as server:
        peer = await open_at(server.url)
        ticket, outcome = start(peer, "tools/call", CALL)
        if behave is hangs:
            await server.saw(lambda: "tools/call" in server.methods())
            assert not peer.given_up_by_others("somebody else")
            ticket.cancel("enough")
        elif behave is plain:
            await outcome.message()
            ticket.cancel("too late")
        else:
            with pytest.raises(UpstreamBroken):
                await outcome.message()
        assert peer.given_up_by_others("somebody else") is counts
        assert not peer.given_up_by_others(outcome.whose)
        await peer.aclose()


async def test_a_call_that_was_never_sent_does_not_count() -> None:
    one = OutboundSettings(max_connections_per_origin=1)
    async with raw_server(sessions(hangs)) as server:
        peer = await open_at(server.url, settings=one)
        start(peer, "tools/list")
        await server.saw(lambda: "tools/list" in server.methods())
        ticket, _ = start(peer, "tools/call", CALL)
        ticket.cancel("enough")
        assert not peer.given_up_by_others("somebody else")
        await peer.aclose()


@pytest.mark.parametrize("manner", [ANY_MANNER, OWNED])
async def test_what_names_no_call_comes_with_one_of_a_shared_session(manner: Manner) -> None:
    async def behave(request: Request, line: Line) -> None:
        status = b'{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{"taskId":"t"}}'
        await stream(line, event(CHANGED), event(status), event(answer_to(request)))

    async with raw_server(sessions(behave)) as server:
        peer = await open_at(server.url, manner)
        room = Room()
        peer.attend(room)
        _, outcome = start(peer, "tools/call", CALL)
        await outcome.message()
        told, silent = (outcome.heard, room.heard) if manner.owner else (room.heard, outcome.heard)
        names = ["notifications/tools/list_changed", "notifications/tasks/status"]
        assert [message["method"] for message in told] == names
        assert silent == []
        await peer.aclose()


async def ask_until_idle(requests: list[Request]) -> None:
    """Give what is under way time to arrive: a few turns of the loop without a new request."""
    count = -1
    while count != len(requests):
        count = len(requests)
        await asyncio.sleep(0.05)


# Sessions lost


def forgetting(on_get: Behaviour | None = None) -> Behaviour:
    """Forgets the session on the first ``tools/list``."""

    async def behave(request: Request, line: Line) -> None:
        if request.method == "tools/list" and request.headers["mcp-session-id"] == "s1":
            await line.reply(b"", "404 Not Found")
        else:
            await line.result(request)

    return sessions(behave, on_get)


@pytest.mark.parametrize(
    ("manner", "before", "lost"),
    [
        (ANY_MANNER, "tools/call", False),
        (ANY_MANNER, "resources/subscribe", True),
        (ANY_MANNER, "logging/setLevel", True),
        (OWNED, "prompts/list", False),
        (OWNED, "tools/call", True),
    ],
)
async def test_a_session_with_a_state_is_not_silently_replaced(
    manner: Manner, before: str, lost: bool
) -> None:
    async with raw_server(forgetting()) as server:
        peer = await open_at(server.url, manner)
        heard: list[GatewayError] = []
        peer.on_lost(heard.append)
        await ask(peer, before, CALL)
        if lost:
            with pytest.raises(UpstreamBroken, match="lost its session"):
                await ask(peer, "tools/list")
        else:
            await ask(peer, "tools/list")
        assert len(heard) == int(lost)
        assert server.methods().count("initialize") == (1 if lost else 2)
        await peer.aclose()


async def test_the_stream_of_a_session_follows_the_session() -> None:
    standing = Standing()
    async with raw_server(forgetting(standing.opened)) as server:
        peer = await open_at(server.url, Manner(era=Era.LEGACY, version="2025-06-18"))
        await ask(peer, "tools/list")
        assert [get.headers["mcp-session-id"] for get in standing.gets] == ["s1", "s2"]
        offered = [r.json["params"] for r in server.requests if r.method == "initialize"]
        assert [params["protocolVersion"] for params in offered] == ["2025-06-18"] * 2
        room = Room()
        peer.attend(room)
        await standing.push(event(CHANGED))
        await room.until(lambda: bool(room.heard))
        await peer.aclose()


async def test_a_lost_session_with_a_state_is_noticed_on_its_stream() -> None:
    standing = Standing()
    gone = asyncio.Event()

    async def on_get(request: Request, line: Line) -> None:
        if standing.gets:
            await line.reply(b"", "404 Not Found")
        else:
            await standing.opened(request, line)

    async with raw_server(sessions(plain, on_get)) as server:
        peer = await open_at(server.url, OWNED)
        await ask(peer, "tools/call", CALL)
        peer.on_lost(lambda _: gone.set())
        await standing.end()
        await asyncio.wait_for(gone.wait(), 60)
        await peer.aclose()


ALL_LISTS = INITIALIZED.replace(
    b'"capabilities":{}',
    b'"capabilities":{"tools":{"listChanged":true},"prompts":{},"resources":{"listChanged":1}}',
)


async def test_who_only_listens_is_in_the_new_session_and_told_to_look_again() -> None:
    """Of a server that forgot the session, as one does that was restarted."""
    standing = Standing()
    inner = sessions(plain, standing.opened)

    async def restarted(request: Request, line: Line) -> None:
        if request.method == "initialize":
            session = server.methods().count("initialize")
            await line.result(request, ALL_LISTS, f"Mcp-Session-Id: s{session}\r\n")
        elif request.headers.get("mcp-session-id") == "s1" and standing.gets:
            await line.reply(b"", "404 Not Found")
        else:
            await inner(request, line)

    async with raw_server(restarted) as server:
        peer = await open_at(server.url)
        room = Room()
        peer.attend(room)
        await asyncio.wait_for(standing.up.wait(), 10)
        await standing.end()
        await room.until(lambda: bool(room.heard))
        assert room.methods() == ["notifications/tools/list_changed"]
        assert [get.headers["mcp-session-id"] for get in standing.gets] == ["s1", "s2"]
        await standing.push(event(CHANGED))
        await room.until(lambda: len(room.heard) == 2)
        assert "tools/list" not in server.methods()
        await peer.aclose()
