"""What belongs to a call besides its answer: progress, log messages, questions, subscriptions."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec import Raw

from open_mcp_gateway.errors import UpstreamBroken, UpstreamTimeout
from open_mcp_gateway.outbound.peer import Manner
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming, decode_incoming
from tests.wire.remotes import (
    CALL,
    Behaviour,
    Line,
    Outcome,
    Request,
    Room,
    answer_to,
    ask,
    event,
    modern,
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

SESSION = Manner(era=Era.LEGACY, capabilities=b'{"sampling":{}}', owner="client-1")
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


def note(method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode()


def question(raw_id: object, method: str, **params: Any) -> bytes:
    message = {"jsonrpc": "2.0", "id": raw_id, "method": method, "params": params}
    return json.dumps(message).encode()


def answer(result: bytes = b'{"roots":[]}') -> Incoming:
    return decode_incoming(b'{"jsonrpc":"2.0","id":1,"result":%b}' % result)


def meta_of(request: Request) -> dict[str, Any]:
    meta = request.json["params"]["_meta"]
    assert isinstance(meta, dict)
    return meta


async def more(line: Line, *events: bytes, end: bool = True) -> None:
    """Go on with a stream that was left open."""
    for data in events:
        await line.send(b"%x\r\n%b\r\n" % (len(data), data))
    if end:
        await line.send(b"0\r\n\r\n")


# Progress and log messages


@pytest.mark.parametrize("wrap", [modern, sessions])
async def test_progress_carries_the_callers_own_token(wrap: Any) -> None:
    async def reporting(request: Request, line: Line) -> None:
        token = meta_of(request)["progressToken"]
        events = [
            event(note("notifications/progress", progressToken=token, progress=1, vendor=[1, 2])),
            event(note("notifications/progress", progressToken="other", progress=2)),
            event(note("notifications/progress", progressToken=token + 1000, progress=3)),
            event(answer_to(request)),
        ]
        await stream(line, *events)

    async with raw_server(wrap(reporting)) as server:
        peer = await open_at(server.url)
        for raw in (b'"my-token"', b"7"):
            call = Call("tools/call", b"1", params_of(CALL), progress_token=Raw(raw))
            _, outcome = start_call(peer, call)
            await outcome.message()
            params = {"progressToken": json.loads(raw), "progress": 1, "vendor": [1, 2]}
            assert [heard["params"] for heard in outcome.heard] == [params]
        sent = [meta_of(r)["progressToken"] for r in server.requests if r.method == "tools/call"]
        assert len(set(sent)) == 2
        await peer.aclose()


async def test_a_caller_without_a_token_hears_no_progress() -> None:
    async def reporting(request: Request, line: Line) -> None:
        assert "progressToken" not in meta_of(request)
        progress = note("notifications/progress", progressToken=request.json["id"], progress=1)
        await stream(line, event(progress), event(answer_to(request)))

    async with raw_server(modern(reporting)) as server:
        peer = await open_at(server.url)
        _, outcome = start(peer, "tools/call", CALL)
        await outcome.message()
        assert outcome.heard == []
        await peer.aclose()


async def test_stateless_log_messages_only_go_to_who_asked_for_them() -> None:
    async def logging(request: Request, line: Line) -> None:
        await stream(
            line,
            event(note("notifications/message", level="info", data="x")),
            event(note("notifications/vendor/thing", data="y")),
            event(answer_to(request)),
        )

    async with raw_server(modern(logging)) as server:
        peer = await open_at(server.url)
        for level, methods in (
            (None, ["notifications/vendor/thing"]),
            (Raw(b'"info"'), ["notifications/message", "notifications/vendor/thing"]),
        ):
            call = Call("tools/call", b"1", params_of(CALL), log_level=level)
            _, outcome = start_call(peer, call)
            await outcome.message()
            assert [heard["method"] for heard in outcome.heard] == methods
        assert meta_of(server.requests[-1])["io.modelcontextprotocol/logLevel"] == "info"
        await peer.aclose()


async def test_a_stateless_caller_says_its_own_capabilities() -> None:
    async def plain(request: Request, line: Line) -> None:
        await line.result(request)

    async with raw_server(modern(plain)) as server:
        peer = await open_at(server.url)
        params = params_of(b'{"name":"x","_meta":{"vendor/a":1}}')
        capabilities = Raw(b'{"elicitation":{"form":{}}}')
        await start_call(peer, Call("tools/call", b"1", params, capabilities=capabilities))[
            1
        ].message()
        meta = meta_of(server.requests[-1])
        assert meta["vendor/a"] == 1
        assert meta["io.modelcontextprotocol/clientCapabilities"] == {"elicitation": {"form": {}}}
        assert meta["io.modelcontextprotocol/clientInfo"]["name"] == "open-mcp-gateway"
        await ask(peer, "tools/call", CALL)
        assert meta_of(server.requests[-1])["io.modelcontextprotocol/clientCapabilities"] == {}
        await peer.aclose()


async def test_a_cancelled_call_hears_nothing_more_of_the_same_chunk() -> None:
    async def chatty(request: Request, line: Line) -> None:
        one = event(note("notifications/vendor/thing"))
        await stream(line, one * 3 + event(answer_to(request)))

    class Leaving(Outcome):
        def related(self, message: bytes, incoming: Incoming) -> None:
            super().related(message, incoming)
            ticket.cancel("enough")

    async with raw_server(modern(chatty)) as server:
        peer = await open_at(server.url)
        outcome = Leaving()
        ticket, _ = start_call(peer, Call("tools/call", b"1"), outcome=outcome)
        await outcome.until(lambda: bool(outcome.heard))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await outcome.message()
        assert len(outcome.heard) == 1
        await peer.aclose()


# Batches (2025-03-26 basic#batching)


def batch(*messages: bytes) -> bytes:
    return b" [" + b", ".join(messages) + b"]"


@pytest.mark.parametrize("whole", [True, False])
async def test_a_batch_is_taken_apart(whole: bool) -> None:
    """Each message goes where it would go by itself; an answer to another call goes nowhere."""

    async def batching(request: Request, line: Line) -> None:
        token = json.loads(request.id)
        foreign = b'{"jsonrpc":"2.0","id":99,"result":{"foreign":true}}'
        progress = note("notifications/progress", progressToken=token, progress=1)
        sent = batch(progress, foreign, question("q", "roots/list"), answer_to(request))
        if whole:
            await line.reply(sent)
        else:
            await stream(line, event(batch(foreign)), event(sent))

    async with raw_server(sessions(batching)) as server:
        peer = await open_at(server.url, SESSION)
        call = Call("tools/call", b"1", params_of(CALL), progress_token=Raw(b'"t"'))
        _, outcome = start_call(peer, call)
        assert json.loads(await outcome.message())["result"] == {"ok": True}
        (heard,) = outcome.heard
        assert heard["params"] == {"progressToken": "t", "progress": 1}
        assert [one.method for one in outcome.questions] == ["roots/list"]
        await ask(peer, "ping")
        await peer.aclose()


@pytest.mark.parametrize("sent", [b"[]", b"[1]", b'[{"jsonrpc":"2.0","id":99,"result":{}}]'])
@pytest.mark.parametrize("whole", [True, False])
async def test_a_batch_without_the_answer_is_none(sent: bytes, whole: bool) -> None:
    async def batching(_: Request, line: Line) -> None:
        await (line.reply(sent) if whole else stream(line, event(sent)))

    async with raw_server(sessions(batching)) as server:
        peer = await open_at(server.url, SESSION)
        with pytest.raises(UpstreamBroken, match="the call may have taken effect"):
            await ask(peer, "tools/call", CALL)
        await peer.aclose()


async def test_a_batch_on_the_stream_of_no_call_is_taken_apart() -> None:
    async def on_get(_: Request, line: Line) -> None:
        changes = (f"notifications/{kind}/list_changed" for kind in ("tools", "prompts"))
        await stream(line, event(batch(*map(note, changes))), end=False)

    async with raw_server(sessions(plain, on_get)) as server:
        peer = await open_at(server.url, SESSION)
        room = Room()
        peer.attend(room)
        await room.until(lambda: len(room.heard) == 2)
        assert room.methods()[1] == "notifications/prompts/list_changed"
        await peer.aclose()


# Questions


async def test_a_question_on_a_calls_stream_goes_to_its_caller_and_back() -> None:
    async def asking(request: Request, line: Line) -> None:
        asked = [event(question(raw_id, "roots/list", a=1)) for raw_id in ("q", 5)]
        await stream(line, *asked, end=False)
        await server.saw(lambda: len(answers()) == 2)
        await more(line, event(answer_to(request)))

    def answers() -> list[Any]:
        return [r.json for r in server.requests if r.body and not r.method]

    async with raw_server(sessions(asking)) as server:
        peer = await open_at(server.url, SESSION)
        _, outcome = start(peer, "tools/call", CALL)
        await outcome.until(lambda: len(outcome.questions) == 2)
        first, second = outcome.questions
        assert (first.method, bytes(first.raw_id), second.raw_id) == ("roots/list", b'"q"', b"5")
        assert json.loads(bytes(first.params)) == {"a": 1}  # type: ignore[arg-type]
        first.answer(answer())
        first.answer(answer(b"{}"))
        first.refuse(-1, "late")
        second.answer(decode_incoming(b'{"id":1,"error":{"code":-1,"message":"no","data":[1]}}'))
        await outcome.message()
        assert answers() == [
            {"jsonrpc": "2.0", "id": "q", "result": {"roots": []}},
            {"jsonrpc": "2.0", "id": 5, "error": {"code": -1, "message": "no", "data": [1]}},
        ]
        posted = [r for r in server.requests if r.body and not r.method]
        assert {r.headers["mcp-session-id"] for r in posted} == {"s1"}
        await peer.aclose()


async def test_a_question_called_off_is_not_answered() -> None:
    called_off = asyncio.Event()

    async def asking(request: Request, line: Line) -> None:
        await stream(
            line,
            event(question("q", "roots/list")),
            event(note("notifications/cancelled", requestId="q")),
            end=False,
        )
        await called_off.wait()
        await more(line, event(answer_to(request)))

    async with raw_server(sessions(asking)) as server:
        peer = await open_at(server.url, SESSION)
        room = Room()
        peer.attend(room)
        _, outcome = start(peer, "tools/call", CALL)
        await room.until(lambda: room.methods() == ["notifications/cancelled"])
        outcome.questions[0].answer(answer())
        called_off.set()
        await outcome.message()
        await ask(peer, "ping")
        assert not [r for r in server.requests if r.body and not r.method]
        await peer.aclose()


async def test_a_stateless_server_cannot_ask() -> None:
    async def asking(request: Request, line: Line) -> None:
        await stream(line, event(question("q", "roots/list")), event(answer_to(request)))

    async with raw_server(modern(asking)) as server:
        peer = await open_at(server.url)
        _, outcome = start(peer, "tools/call", CALL)
        await outcome.message()
        assert outcome.questions == []
        assert all(request.method for request in server.requests)
        await peer.aclose()


# Subscriptions


def listening(*events: bytes, final: bytes | None = None) -> Behaviour:
    async def behave(request: Request, line: Line) -> None:
        raw_id = request.json["id"]
        marked = [data.replace(b'"ID"', b"%d" % raw_id) for data in events]
        if final is not None:
            marked.append(event(answer_to(request, final.replace(b'"ID"', b"%d" % raw_id))))
        await stream(line, *marked)

    return behave


async def test_a_subscription_carries_the_callers_own_id() -> None:
    tag = {SUBSCRIPTION: "ID", "vendor/x": 1}
    behave = listening(
        event(note("notifications/subscriptions/acknowledged", notifications={}, _meta=tag)),
        event(note("notifications/prompts/list_changed", _meta=tag)),
        event(note("notifications/resources/list_changed")),
        final=json.dumps({"resultType": "complete", "_meta": tag}).encode(),
    )
    async with raw_server(modern(behave)) as server:
        peer = await open_at(server.url)
        for raw in (b'"mine"', b"77"):
            call = Call("subscriptions/listen", raw, params_of(b'{"notifications":{}}'))
            _, outcome = start_call(peer, call, within_s=float("inf"))
            final = json.loads(await outcome.message())["result"]
            own = json.loads(raw)
            assert final["_meta"] == {SUBSCRIPTION: own, "vendor/x": 1}
            assert [heard["params"]["_meta"][SUBSCRIPTION] for heard in outcome.heard] == [own] * 3
            assert type(outcome.heard[0]["params"]["_meta"][SUBSCRIPTION]) is type(own)
        await peer.aclose()


async def test_a_subscription_that_breaks_off_fails() -> None:
    async with raw_server(modern(listening())) as server:
        peer = await open_at(server.url)
        _, outcome = start(peer, "subscriptions/listen", b"{}", within_s=float("inf"))
        with pytest.raises(UpstreamBroken, match="ended its event stream"):
            await outcome.message()
        await peer.aclose()


async def test_a_subscription_that_is_called_off_ends_well() -> None:
    behave = listening(event(note("notifications/cancelled", requestId="ID")))
    async with raw_server(modern(behave)) as server:
        peer = await open_at(server.url)
        call = Call("subscriptions/listen", b'"mine"')
        _, outcome = start_call(peer, call, within_s=float("inf"))
        result = json.loads(await outcome.message())["result"]
        assert result == {"resultType": "complete", "_meta": {SUBSCRIPTION: "mine"}}
        await peer.aclose()


# Deadlines that move


async def test_a_deadline_moves_both_ways() -> None:
    go_on = asyncio.Event()

    async def slow(request: Request, line: Line) -> None:
        await go_on.wait()
        await line.result(request)

    async with raw_server(modern(slow)) as server:
        peer = await open_at(server.url)
        loop = asyncio.get_running_loop()
        later, patient = start(peer, "tools/call", CALL, within_s=0.1)
        later.extend(loop.time() + 10)
        sooner, hasty = start(peer, "tools/call", CALL, within_s=60)
        sooner.extend(loop.time() + 0.2)
        with pytest.raises(UpstreamTimeout):
            await hasty.message()
        assert not patient.settled
        go_on.set()
        await patient.message()
        later.extend(loop.time())
        await peer.aclose()
