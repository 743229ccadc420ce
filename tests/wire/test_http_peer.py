"""One POST per call: what is sent, what counts as an answer, deadlines and cancellation."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest

from open_mcp_gateway.errors import (
    GatewayError,
    InternalError,
    UpstreamBroken,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from open_mcp_gateway.outbound.settings import OutboundSettings
from open_mcp_gateway.protocol.jsonrpc import Call
from tests.wire.remotes import (
    CALL,
    Behaviour,
    Line,
    Outcome,
    Request,
    answer_to,
    ask,
    entry_for,
    event,
    modern,
    open_at,
    params_of,
    permit_for,
    plain,
    raw_server,
    replying,
    sessions,
    start,
    stream,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


# What is sent


async def test_a_modern_request() -> None:
    async with raw_server(modern(plain)) as server:
        peer = await open_at(
            server.url + "?tenant=1",
            headers={
                "Authorization": "Bearer test-key-upstream",
                "X-Extra": "é",
                "accept": "text/html",
                "Content-Length": "3",
                "HOST": "evil.test",
            },
        )
        await ask(peer, "resources/read", b'{"uri":"test://\xc3\xa9","_meta":{"vendor/x":[1]}}')
        seen = server.requests[-1]
        assert (seen.verb, seen.target) == ("POST", "/mcp?tenant=1")
        assert seen.headers["mcp-protocol-version"] == "2026-07-28"
        assert seen.headers["mcp-method"] == "resources/read"
        assert seen.headers["mcp-name"] == "=?base64?dGVzdDovL8Op?="
        assert seen.headers["content-type"] == "application/json"
        assert seen.headers["accept"] == "application/json, text/event-stream"
        assert seen.headers["authorization"] == "Bearer test-key-upstream"
        assert seen.headers["x-extra"] == "\xe9"
        assert seen.headers["host"] == f"127.0.0.1:{server.port}"
        assert seen.headers["user-agent"].startswith("open-mcp-gateway/")
        body = json.loads(seen.body)
        assert body["method"] == "resources/read"
        assert body["params"]["uri"] == "test://é"
        assert body["params"]["_meta"] == {
            "vendor/x": [1],
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": body["params"]["_meta"][
                "io.modelcontextprotocol/clientInfo"
            ],
        }
        await peer.aclose()


async def test_a_request_in_a_session() -> None:
    async with raw_server(sessions(plain)) as server:
        peer = await open_at(server.url)
        await ask(peer, "tools/call", CALL)
        seen = server.requests[-1]
        assert seen.headers["mcp-session-id"] == "s1"
        assert seen.headers["mcp-protocol-version"] == "2025-11-25"
        assert "mcp-method" not in seen.headers
        assert json.loads(seen.body)["params"] == {"name": "x", "arguments": {}}
        notified = next(r for r in server.requests if r.method == "notifications/initialized")
        assert notified.headers["mcp-session-id"] == "s1"
        await peer.aclose()
        assert server.requests[-1].verb == "DELETE"
        assert server.requests[-1].headers["mcp-session-id"] == "s1"


async def test_userinfo_of_the_url_is_sent_as_credentials() -> None:
    async with raw_server(modern(plain)) as server:
        peer = await open_at(f"http://us:test-key@127.0.0.1:{server.port}/mcp")
        assert server.requests[0].headers["authorization"] == "Basic dXM6dGVzdC1rZXk="
        await peer.aclose()


@pytest.mark.parametrize(
    "headers", [{"X-A": "1\r\nX-Evil: 2"}, {"X-A": "\0"}, {"X A": "1"}, {"X-A": "snowman ☃"}]
)
async def test_headers_that_cannot_be_sent_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(UpstreamUnavailable, match="`headers`") as caught:
        await open_at("http://127.0.0.1:1/mcp", headers=headers)
    assert "Evil" not in caught.value.public


async def test_notifications_are_posted() -> None:
    async with raw_server(sessions(plain)) as server:
        peer = await open_at(server.url)
        permit = permit_for(entry_for(server.url))
        peer.notify(permit, Call("notifications/roots/list_changed", None))
        await server.saw(lambda: "notifications/roots/list_changed" in server.methods())
        assert server.requests[-1].headers["mcp-session-id"] == "s1"
        await peer.aclose()


async def test_a_permit_for_another_server_is_refused() -> None:
    async with raw_server(modern(plain)) as server:
        peer = await open_at(server.url)
        entry = entry_for(server.url)
        other = type(entry.spec)(id="other", runtime=entry.spec.runtime)  # type: ignore[arg-type]
        permit = permit_for(type(entry)(spec=other, shown=other, runtime_type="remote-http"))
        with pytest.raises(InternalError):
            peer.call(permit, Call("tools/list", b"1"), Outcome(), deadline_s=1e9)
        with pytest.raises(InternalError):
            peer.notify(permit, Call("notifications/x", None))
        await peer.aclose()


# What counts as an answer


async def chunked(request: Request, line: Line) -> None:
    body = answer_to(request)
    await line.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for start_ in range(0, len(body), 7):
        piece = body[start_ : start_ + 7]
        await line.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    await line.send(b"0\r\n\r\n")


async def until_close(request: Request, line: Line) -> None:
    head = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
    await line.send(head + answer_to(request))
    line.writer.close()


async def byte_by_byte(request: Request, line: Line) -> None:
    body = answer_to(request)
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    for byte in whole:
        await line.send(bytes([byte]))


async def zipped(request: Request, line: Line) -> None:
    await line.reply(gzip.compress(answer_to(request)), extra="Content-Encoding: gzip\r\n")


async def one_event(request: Request, line: Line) -> None:
    await stream(line, event(answer_to(request)))


async def events_before(request: Request, line: Line) -> None:
    note = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}'
    other = b'{"jsonrpc":"2.0","id":99999,"result":{"of":"another call"}}'
    await stream(
        line, b": keep-alive\n\n", b"id: 1\ndata:\n\n", event(note), event(other),
        b"event: odd\ndata: not JSON\n\n", event(answer_to(request)),
    )  # fmt: skip


async def stream_left_open(request: Request, line: Line) -> None:
    await stream(line, event(answer_to(request)), end=False)
    await line.gone()


@pytest.mark.parametrize(
    "behave",
    [chunked, until_close, byte_by_byte, zipped, one_event, events_before, stream_left_open],
)
async def test_answers_in_every_shape(behave: Behaviour) -> None:
    async with raw_server(modern(behave)) as server:
        peer = await open_at(server.url)
        for _ in range(3):
            assert json.loads(await ask(peer, "tools/call", CALL))["result"] == {"ok": True}
        await peer.aclose()


async def test_a_stream_left_open_does_not_keep_its_connection() -> None:
    gone = asyncio.Event()

    async def watched(request: Request, line: Line) -> None:
        await stream_left_open(request, line)
        gone.set()

    async with raw_server(modern(watched)) as server:
        peer = await open_at(server.url)
        await ask(peer, "tools/call", CALL)
        await asyncio.wait_for(gone.wait(), 60)
        await peer.aclose()


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "500 Oops"])
async def test_an_error_under_the_calls_id_is_the_answer_whatever_the_status(status: str) -> None:
    async def refusing(request: Request, line: Line) -> None:
        error = b'{"code":-32601,"message":"no","data":{"kept":1}}'
        body = b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (request.id, error)
        await line.reply(body, status)

    for wrap in (modern, sessions):
        async with raw_server(wrap(refusing)) as server:
            peer = await open_at(server.url)
            answer = json.loads(await ask(peer, "tools/call", CALL))
            assert answer["error"] == {"code": -32601, "message": "no", "data": {"kept": 1}}
            await peer.aclose()


async def test_an_error_without_the_calls_id_is_given_it() -> None:
    async def refusing(_request: Request, line: Line) -> None:
        body = b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"no"}}'
        await line.reply(body, "400 Bad Request")

    async with raw_server(sessions(refusing)) as server:
        peer = await open_at(server.url)
        answer = json.loads(await ask(peer, "tools/call", CALL))
        assert isinstance(answer["id"], int)
        assert answer["error"]["code"] == -32600
        await peer.aclose()


# Deadlines and cancellation


async def never(_request: Request, line: Line) -> None:
    await line.gone()


async def test_a_deadline_ends_the_modern_stream() -> None:
    gone = asyncio.Event()

    async def watched(request: Request, line: Line) -> None:
        await never(request, line)
        gone.set()

    async with raw_server(modern(watched)) as server:
        peer = await open_at(server.url)
        _, patient = start(peer, "tools/call", CALL, within_s=30)
        _, hasty = start(peer, "tools/call", CALL, within_s=0.1)
        with pytest.raises(UpstreamTimeout, match="'tools/call' in time; the call may have"):
            await hasty.message()
        await asyncio.wait_for(gone.wait(), 60)
        assert not patient.settled
        assert peer.inflight == 1
        assert "notifications/cancelled" not in server.methods()
        await peer.aclose()


@pytest.mark.parametrize("how", ["late", "closed"])
async def test_of_a_call_that_was_not_sent_nothing_is_in_doubt(how: str) -> None:
    settings = OutboundSettings(max_connections_per_origin=1)
    async with raw_server(modern(never)) as server:
        peer = await open_at(server.url, settings=settings)
        _, busy = start(peer, "tools/call", CALL, within_s=30)
        await server.saw(lambda: "tools/call" in server.methods())
        _, waiting = start(peer, "tools/call", CALL, within_s=0.05 if how == "late" else 30)
        if how == "late":
            with pytest.raises(UpstreamTimeout, match=r"could not be sent 'tools/call' in time$"):
                await waiting.message()
        await peer.aclose()
        with pytest.raises(UpstreamBroken, match="was stopped; the call may have taken effect"):
            await busy.message()
        if how == "closed":
            with pytest.raises(UpstreamBroken, match=r"was stopped$"):
                await waiting.message()
        assert server.methods().count("tools/call") == 1


async def test_deadlines_in_any_order_are_kept() -> None:
    async with raw_server(modern(never)) as server:
        peer = await open_at(server.url)
        calls = [start(peer, "tools/call", CALL, within_s=s)[1] for s in (0.3, 0.1, 0.2, 0.15)]
        for call in calls:
            with pytest.raises(UpstreamTimeout):
                await call.message()
        await peer.aclose()


async def test_cancelling_in_a_session_says_so() -> None:
    async with raw_server(sessions(never)) as server:
        peer = await open_at(server.url)
        ticket, outcome = start(peer, "tools/call", CALL)
        await server.saw(lambda: "tools/call" in server.methods())
        ticket.cancel("no longer needed")
        ticket.cancel("twice")
        server.behave = sessions(plain)
        await server.saw(lambda: "notifications/cancelled" in server.methods())
        sent = [json.loads(r.body) for r in server.requests if r.method in {"tools/call"}]
        told = json.loads(server.requests[-1].body)
        assert told["params"] == {"requestId": sent[0]["id"], "reason": "no longer needed"}
        assert not outcome.settled
        assert peer.inflight == 0
        await peer.aclose()
        assert not outcome.settled
        assert server.methods().count("notifications/cancelled") == 1


async def test_cancelling_a_finished_call_does_nothing() -> None:
    async with raw_server(sessions(plain)) as server:
        peer = await open_at(server.url)
        ticket, outcome = start(peer, "tools/call", CALL)
        await outcome.message()
        ticket.cancel("late")
        await ask(peer, "tools/list")
        assert "notifications/cancelled" not in server.methods()
        await peer.aclose()


async def test_closing_fails_what_is_in_flight_with_an_error_for_each() -> None:
    async with raw_server(sessions(never)) as server:
        peer = await open_at(server.url)
        lost: list[GatewayError] = []
        peer.on_lost(lost.append)
        calls = [start(peer, "tools/call", CALL)[1] for _ in range(3)]
        await server.saw(lambda: server.methods().count("tools/call") == 3)
        await peer.aclose()
        errors = set()
        for call in calls:
            with pytest.raises(UpstreamBroken, match="was stopped") as caught:
                await call.message()
            errors.add(id(caught.value))
        assert len(errors) == 3
        assert not lost
        with pytest.raises(UpstreamUnavailable):
            start(peer, "tools/list")
        await peer.aclose()


# Requests of the server


async def test_requests_on_a_calls_stream_are_answered() -> None:
    async def asking(request: Request, line: Line) -> None:
        if request.method == "tools/call":
            ping = b'{"jsonrpc":"2.0","id":"p","method":"ping"}'
            roots = b'{"jsonrpc":"2.0","id":5,"method":"roots/list"}'
            await stream(line, event(ping), event(roots), end=False)
            await server.saw(lambda: len(answers()) == 2)
            data = event(answer_to(request))
            await line.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))

    def answers() -> list[dict[str, object]]:
        bodies = [json.loads(request.body) for request in server.requests if request.body]
        return [body for body in bodies if "method" not in body]

    async def all_of_it(request: Request, line: Line) -> None:
        if b'"method"' in request.body:
            await opened(request, line)
        else:
            await line.reply(b"", "202 Accepted")

    opened = sessions(asking)
    async with raw_server(all_of_it) as server:
        peer = await open_at(server.url)
        _, outcome = start(peer, "tools/call", CALL)
        await outcome.until(lambda: bool(outcome.questions))
        outcome.questions[0].refuse(-32601, "no roots here")
        await outcome.message()
        by_id = {answer["id"]: answer for answer in answers()}
        assert by_id["p"]["result"] == {}
        error = by_id[5]["error"]
        assert isinstance(error, dict)
        assert error["code"] == -32601
        server.requests[:] = [r for r in server.requests if b'"method"' in r.body]
        await peer.aclose()


# Odds and ends


async def test_probing() -> None:
    for wrap, method in ((modern, "server/discover"), (sessions, "ping")):
        async with raw_server(wrap(plain)) as server:
            peer = await open_at(server.url)
            await peer.probe()
            assert server.methods()[-1] == method
            server.behave = replying(b"", "500 Oops")
            with pytest.raises(UpstreamBroken):
                await peer.probe()
            assert peer.inflight == 0
            await peer.aclose()


async def test_params_are_sent_as_they_came() -> None:
    async with raw_server(sessions(plain)) as server:
        peer = await open_at(server.url)
        arguments = b'{"name":"x","arguments":{"big":123456789012345678901234567890,"s":"\\u00e9"}}'
        await ask(peer, "tools/call", arguments)
        assert server.requests[-1].body.endswith(b'"params":' + arguments + b"}")
        assert params_of(arguments) is not None
        await peer.aclose()
