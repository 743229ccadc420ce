"""``POST /rpc``, and what becomes of calls when callers are many, slow, or gone."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.rawhttp import Answer, Wire, request
from tests.wire.faces import ALL, AUTH, JSON, Face, call, echo, echoed, face, server

PING: Final = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
PONG: Final = b'{"jsonrpc":"2.0","id":1,"result":{}}'
SERVER: Final = b"X-Server-ID"


@pytest.fixture(scope="module", params=ALL)
def front(request: pytest.FixtureRequest) -> Iterator[Face]:
    servers = (
        server("echo", "echo"),
        server("second", "echo_modern"),
        server("mute", "never_answers"),
        server("dying", "crash_mid_call"),
        server("slow", "slow_start", env={"TEST_SLOW_START_S": "60"}),
        server("late", "late_answers"),
    )
    with face(request.param, *servers) as running:
        yield running
        running.at_rest()


def rpc(*headers: tuple[bytes, bytes], body: bytes = PING) -> bytes:
    return request(b"/rpc", AUTH, JSON, *headers, method=b"POST", body=body)


# The server in the header


@pytest.mark.parametrize("name", [b"X-Server-ID", b"x-server-id", b"X-SERVER-ID"])
@pytest.mark.parametrize("value", [b"echo", b" echo", b"echo \t"])
def test_the_header_names_the_server(front: Face, name: bytes, value: bytes) -> None:
    answer = front.ask(rpc((name, value)))
    assert (answer.status, answer.body) == (200, PONG)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((SERVER, b""),),
        ((SERVER, b"echo"), (SERVER, b"echo")),
        ((SERVER, b"echo"), (SERVER, b"second")),
        ((b"X_Server_ID", b"echo"),),
        ((b"X-Server-Id-", b"echo"),),
    ],
    ids=["missing", "empty", "twice", "two", "underscores", "longer"],
)
def test_it_has_to_be_there_once(front: Face, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    answer = front.ask(rpc(*headers))
    assert answer.status == 400
    message = json.loads(answer.body)
    assert message["id"] == 1
    assert message["error"]["code"] == -32600
    assert "X-Server-ID" in message["error"]["message"]


@pytest.mark.parametrize(
    "value", [b"nobody", b"echo,second", b"ECHO", b"\xc3\xa9", b"echo/../echo"]
)
def test_an_unknown_server(front: Face, value: bytes) -> None:
    answer = front.ask(rpc((SERVER, value)))
    assert answer.status == 404
    message = json.loads(answer.body)
    assert (message["id"], message["error"]["code"]) == (1, -32001)


def test_the_header_counts_and_not_the_body(front: Face) -> None:
    """One place decides which server is meant, and that place is what is authorized."""
    body = b'{"server_id":"mute","id":1,"method":"ping"}'
    assert front.ask(rpc((SERVER, b"echo"), body=body)).body == PONG


def test_the_method_and_the_query_do_not(front: Face) -> None:
    raw = request(b"/rpc?server_id=second", AUTH, JSON, method=b"POST", body=PING)
    assert front.ask(raw).status == 400
    assert front.ask(request(b"/rpc", AUTH, (SERVER, b"echo"))).all("allow") == ["POST"]


def test_a_notification(front: Face) -> None:
    body = b'{"jsonrpc":"2.0","method":"notifications/rpc"}'
    answer = front.ask(rpc((SERVER, b"echo"), body=body))
    assert (answer.status, answer.body, answer.all("content-length")) == (202, b"", ["0"])


# Many callers


def test_five_hundred_connections_and_every_answer_to_its_own_caller(front: Face) -> None:
    asyncio.run(_crowd(front, connections=500, calls=6))
    front.at_rest()


async def _crowd(front: Face, *, connections: int, calls: int) -> None:
    everybody_in = asyncio.Barrier(connections)

    async def one(name: int) -> None:
        reader, writer = await asyncio.open_connection(front.host, front.port)
        await everybody_in.wait()
        for number in range(calls):
            text = f"{name}/{number}"
            message_id: object = text if number % 2 else number
            server_id = ("echo", "second")[(name + number) % 2]
            writer.write(echo(text, message_id=message_id, server_id=server_id))
            assert echoed(await _answer(reader)) == (message_id, text)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one(name) for name in range(connections)))


async def _answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers["content-length"]))
    return Answer(int(head[0].split()[1]), tuple(headers.items()), body)


def test_one_connection_with_callers_of_two_servers(front: Face) -> None:
    with front.connect() as wire:
        names = [("echo", "second")[number % 2] for number in range(60)]
        raw = [echo(name, message_id=n, server_id=name) for n, name in enumerate(names)]
        wire.send(b"".join(raw))
        assert [echoed(wire.receive()) for _ in names] == list(enumerate(names))


# Callers that are gone


def leave_politely(wire: Wire) -> None:
    wire.close()


def half_close(wire: Wire) -> None:
    wire.connection.shutdown(socket.SHUT_WR)


def reset(wire: Wire) -> None:
    wire.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()


def cancelled(front: Face) -> list[dict[str, Any]]:
    return [one for one in front.seen("mute") if one["method"] == "notifications/cancelled"]


@pytest.mark.parametrize("leave", [leave_politely, half_close, reset])
@pytest.mark.parametrize("path", ["mcp", "rpc"])
def test_a_call_whose_caller_is_gone_is_cancelled(front: Face, leave: Any, path: str) -> None:
    message = call("mute", params={"name": "x"})
    if path == "rpc":
        body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}'
        message = rpc((SERVER, b"mute"), body=body)
    front.ask(call("mute", method="ping"))
    before = len(cancelled(front))
    with front.connect() as wire:
        wire.send(message)
        front.until(lambda: front.used("mute") == (1, 1))
        leave(wire)
        front.at_rest()
        if leave is half_close:
            assert wire.receive().status == 0
    assert [one["params"]["reason"] for one in cancelled(front)[before:]] == ["client disconnected"]


def test_what_is_queued_behind_it_never_begins(front: Face) -> None:
    if front.name == "asgi-httptools":
        return  # uvicorn's class stops reading at the second request, so it sees nobody leave
    front.ask(call("mute", method="ping"))
    before = front.seen("echo")
    note = b'{"server_id":"echo","method":"notifications/after"}'
    with front.connect() as wire:
        after = request(b"/mcp", AUTH, JSON, method=b"POST", body=note)
        wire.send(call("mute", params={"name": "x"}) + after)
        front.until(lambda: front.used("mute") == (1, 1))
    front.at_rest()
    assert front.seen("echo") == before


def test_a_caller_that_leaves_while_its_server_starts(front: Face) -> None:
    with front.connect() as wire:
        wire.send(call("slow", method="ping"))
        front.until(lambda: front.inside(lambda: _waiting(front, "slow")) == 1)
    front.until(lambda: front.inside(lambda: _waiting(front, "slow")) == 0)


def _waiting(front: Face, server_id: str) -> int:
    """Callers that wait for a server to come up."""
    for keeper in front.gateway.fleet._keepers.values():
        for instance in keeper._site.instances:
            if instance.server_id == server_id:
                return instance.waiting
    return 0


def test_a_caller_that_leaves_in_the_middle_of_its_request(front: Face) -> None:
    raw = echo("half")
    for cut in (1, 40, len(raw) - 1):
        with front.connect() as wire:
            wire.send(raw[:cut])
    assert front.ask(echo("next")).status == 200
    front.until(lambda: not front.connections())


def test_a_crowd_that_leaves_at_once(front: Face) -> None:
    front.ask(call("mute", method="ping"))
    before = len(cancelled(front))
    wires = [socket.create_connection((front.host, front.port)) for _ in range(100)]
    for wire in wires:
        wire.sendall(call("mute", params={"name": "x"}))
    front.until(lambda: front.used("mute") == (100, 100))
    for wire in wires:
        wire.close()
    front.at_rest()
    assert len(cancelled(front)) == before + 100
    assert front.ask(call("mute", method="ping")).body == PONG


def test_an_answer_that_comes_after_its_caller_has_left(front: Face) -> None:
    """``late`` answers a call when the next one comes; the first caller is gone by then."""
    with front.connect() as wire:
        wire.send(echo("gone", server_id="late"))
        front.until(lambda: front.used("late")[1] == 1)
    front.at_rest()
    with front.connect() as wire, front.connect() as other:
        wire.send(echo("second", server_id="late", message_id="second"))
        front.until(lambda: front.used("late")[1] == 1)
        other.send(echo("third", server_id="late"))
        assert echoed(wire.receive()) == ("second", "second")
    front.at_rest()


def test_a_crash_is_told_to_everybody_who_waits(front: Face) -> None:
    front.ask(call("dying", method="ping"))
    wires = [socket.create_connection((front.host, front.port), 60) for _ in range(20)]
    for number, wire in enumerate(wires):
        wire.sendall(call("dying", params={"name": "x"}, message_id=number))
    for number, wire in enumerate(wires):
        answer = Wire(wire)
        told = answer.receive()
        assert told.status == 502
        assert json.loads(told.body)["id"] == number
        answer.close()
    front.at_rest()


def test_a_head_request_ends_like_any_other(front: Face) -> None:
    """No handler takes HEAD on an MCP path, and its refusal has no body."""
    with front.connect() as wire:
        wire.send(request(b"/mcp", AUTH, method=b"HEAD") + request(b"/health"))
        assert wire.receive(b"HEAD").status == 405
        assert wire.receive().status == 200
