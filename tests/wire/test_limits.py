"""Too much, too long, too slow: what a client may not do, and that it is told so, over sockets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Final

import pytest

from open_mcp_gateway.inbound.handlers import MANAGEMENT_BODY_BYTES
from open_mcp_gateway.inbound.hot import (
    ANSWER_READ_S,
    DRAIN_S,
    FIRST_BYTE_S,
    KEEP_ALIVE_S,
    REQUEST_READ_S,
    Connection,
)
from tests.rawhttp import Answer, Wire, request
from tests.wire.faces import ALL, AUTH, HOT, JSON, Face, call, echo, echoed, face, server

LIMIT: Final = 100_000
CHUNKED: Final = (b"Transfer-Encoding", b"chunked")
HEALTH: Final = request(b"/health")


@pytest.fixture(scope="module", params=ALL)
def front(request: pytest.FixtureRequest) -> Iterator[Face]:
    servers = (server("echo", "echo"), server("mute", "never_answers"))
    with face(request.param, *servers, max_body_bytes=LIMIT) as running:
        yield running
        running.at_rest()


@pytest.fixture(scope="module", params=HOT)
def hot(request: pytest.FixtureRequest) -> Iterator[Face]:
    servers = (server("echo", "echo"), server("mute", "never_answers"))
    with face(request.param, *servers, max_body_bytes=LIMIT) as running:
        yield running
        running.at_rest()


@pytest.fixture(scope="module", params=HOT)
def roomy(request: pytest.FixtureRequest) -> Iterator[Face]:
    """With room for bodies of megabytes."""
    with face(request.param, server("echo", "echo"), server("huge", "huge_reply")) as running:
        yield running
        running.at_rest()


@pytest.fixture(scope="module", params=ALL)
def spacious(request: pytest.FixtureRequest) -> Iterator[Face]:
    """As ``roomy``, behind every class."""
    with face(request.param) as running:
        yield running


def post(*headers: tuple[bytes, bytes], path: bytes = b"/mcp") -> bytes:
    """The head of a request whose body, if any, is sent by hand."""
    return request(path, AUTH, JSON, *headers, method=b"POST")


def assert_too_large(answer: Answer) -> None:
    assert answer.status == 413, answer
    body = json.loads(answer.body)
    assert body["error"] in ("Content Too Large", "Request Entity Too Large")
    assert body["code"] == "too_large"
    assert str(LIMIT) in body["message"]


# Bodies


def test_a_body_of_exactly_the_limit(front: Face) -> None:
    body = call("echo", method="ping").partition(b"\r\n\r\n")[2].ljust(LIMIT)
    with front.connect() as wire:
        wire.send(request(b"/mcp", AUTH, JSON, method=b"POST", body=body))
        assert wire.receive().status == 200
        wire.send(post(CHUNKED) + b"%x\r\n%b\r\n0\r\n\r\n" % (LIMIT, body))
        assert wire.receive().status == 200


@pytest.mark.parametrize("length", [LIMIT + 1, 10**9, 2**62, 2**63, 10**19])
def test_too_long_by_its_own_account(front: Face, length: int) -> None:
    """Answered before one byte of it was sent."""
    with front.connect() as wire:
        wire.send(post((b"Content-Length", b"%d" % length)))
        assert_too_large(wire.receive())


def test_white_space_does_not_hide_a_length(front: Face) -> None:
    with front.connect() as wire:
        wire.send(post((b"Content-Length", b" %d \t" % (LIMIT + 1))))
        assert_too_large(wire.receive())


def test_too_long_in_chunks(front: Face) -> None:
    """Answered before the end of it, which never comes."""
    chunk = b"2710\r\n%b\r\n" % (b" " * 10_000)
    with front.connect() as wire:
        wire.send(post(CHUNKED) + chunk * 11)
        assert_too_large(wire.receive())


@pytest.mark.parametrize(
    "target", [b"/mcp", b"/rpc", b"/auth/explain", b"/servers/echo/start", b"/nowhere"]
)
def test_the_size_is_looked_at_before_the_route(front: Face, target: bytes) -> None:
    with front.connect() as wire:
        wire.send(post((b"Content-Length", b"%d" % (LIMIT + 1)), path=target))
        assert_too_large(wire.receive())


def test_no_invitation_for_too_much(front: Face) -> None:
    with front.connect() as wire:
        expect = (b"Expect", b"100-continue")
        wire.send(post((b"Content-Length", b"%d" % (LIMIT + 1)), expect))
        assert_too_large(wire.receive())


EXPLAIN: Final = b"/auth/explain"


def assert_over_own_limit(answer: Answer) -> None:
    assert answer.status == 413, answer
    told = json.loads(answer.body)
    expected = f"the body is over {MANAGEMENT_BODY_BYTES} bytes, the most for this path"
    assert (told["code"], told["message"]) == ("too_large", expected)


@pytest.mark.parametrize("expects", [(), ((b"Expect", b"100-continue"),)], ids=["", "expects"])
def test_too_long_for_its_path(spacious: Face, expects: tuple[tuple[bytes, bytes], ...]) -> None:
    """Answered before one byte of it was sent, the first time and when the same head comes again
    that was let in with a shorter body."""
    with spacious.connect() as wire:
        for _ in range(3):
            wire.send(post((b"Content-Length", b"1"), path=EXPLAIN) + b"[")
            assert wire.receive().status == 400
        too_long = (b"Content-Length", b"%d" % (MANAGEMENT_BODY_BYTES + 1))
        wire.send(post(too_long, *expects, path=EXPLAIN))
        assert_over_own_limit(wire.receive())


def test_too_long_for_its_path_in_chunks(spacious: Face) -> None:
    """Answered before the end of it, which never comes."""
    size = MANAGEMENT_BODY_BYTES // 2
    chunk = b"%x\r\n%b\r\n" % (size, b" " * size)
    with spacious.connect() as wire:
        wire.send(post(CHUNKED, path=EXPLAIN) + chunk * 2 + b"1\r\n[\r\n")
        assert_over_own_limit(wire.receive())


def test_the_most_that_a_path_takes(spacious: Face) -> None:
    size = MANAGEMENT_BODY_BYTES
    with spacious.connect() as wire:
        for _ in range(2):
            wire.send(post((b"Content-Length", b"%d" % size), path=EXPLAIN) + b"[" * size)
            assert wire.receive().status == 400
            wire.send(post(CHUNKED, path=EXPLAIN) + b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"[" * size))
            assert wire.receive().status == 400


def test_too_long_for_its_path_and_nobody_knows_whose(spacious: Face) -> None:
    too_long = (b"Content-Length", b"%d" % (MANAGEMENT_BODY_BYTES + 1))
    with spacious.connect() as wire:
        wire.send(request(EXPLAIN, JSON, too_long, method=b"POST"))
        assert wire.receive().status == 401


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("key", [True, False], ids=["key", "no key"])
def test_the_answer_arrives_though_the_client_first_sends_everything(
    hot: Face, framing: str, key: bool
) -> None:
    """Clients that read only after their last byte get the answer and not a reset."""
    size = 4_000_000
    chunk = b"%x\r\n%b\r\n" % (size // 10, b" " * (size // 10))
    headers = (b"Content-Length", b"%d" % size) if framing == "length" else CHUNKED
    body = b" " * size if framing == "length" else chunk * 10 + b"0\r\n\r\n"
    raw = request(b"/mcp", *((AUTH,) if key else ()), JSON, headers, method=b"POST")
    with hot.connect() as wire:
        wire.connection.sendall(raw)
        for start in range(0, len(body), 50_000):
            wire.connection.sendall(body[start : start + 50_000])  # raises if it was reset
        answer = wire.receive()
        assert answer.status == (413 if key else 401)
        assert answer.all("connection") == ["close"]
        assert wire.ended()


def test_a_little_too_much_keeps_the_connection() -> None:
    with face("hot", server("echo", "echo"), max_body_bytes=200) as small, small.connect() as wire:
        for _ in range(3):
            wire.send(echo("x" * 500))
            assert wire.receive().status == 413
            wire.send(echo("fits"))
            assert echoed(wire.receive()) == (1, "fits")


def test_the_body_of_a_refused_request_is_skipped(hot: Face) -> None:
    """What it holds is never a request, and the next one on the connection is served."""
    with hot.connect() as wire:
        for _ in range(3):
            wire.send(request(b"/mcp", JSON, method=b"POST", body=HEALTH * 100))
            answer = wire.receive()
            assert (answer.status, answer.all("connection")) == (401, [])
            wire.send(echo("next"))
            assert echoed(wire.receive()) == (1, "next")


@pytest.mark.parametrize("framing", [(b"Content-Length", b"50000"), CHUNKED])
def test_open_routes_wait_for_no_body(front: Face, framing: tuple[bytes, bytes]) -> None:
    asked = (b"Access-Control-Request-Method", b"POST")
    preflight = request(
        b"/mcp", (b"Origin", b"http://a.example"), asked, framing, method=b"OPTIONS"
    )
    for raw, status in ((request(b"/health", framing), 200), (preflight, 204)):
        with front.connect() as wire:
            wire.send(raw)
            assert wire.receive().status == status


def test_bodies_of_strangers_are_not_kept(hot: Face) -> None:
    with hot.connect() as wire:
        wire.send(request(b"/health", (b"Content-Length", b"60000")) + b"x" * 59_999)
        assert wire.receive().status == 200
        (connection,) = hot.connections()
        hot.until(lambda: hot.inside(lambda: _read(connection)) == 59_999)
        assert (
            hot.inside(lambda: connection.intake.reading and len(connection.intake.reading.body))
            == 0
        )
        wire.send(b"x" + HEALTH)
        assert wire.receive().status == 200


def _read(connection: Connection) -> int:
    return 0 if connection.intake.reading is None else connection.intake.reading.size


# Heads

HUGE: Final = {
    "one value": b"X-A: " + b"a" * 300_000 + b"\r\n",
    "one name": b"a" * 300_000 + b": x\r\n",
    "many": b"".join(b"X-%d: a\r\n" % number for number in range(20_000)),
    "endless": b"X-A: " + b"a" * 2_000_000,
}


def assert_head_too_large(wire: Wire) -> None:
    answer = wire.receive()
    assert answer.status == 431, answer
    body = json.loads(answer.body)
    assert body["error"] == "Request Header Fields Too Large"
    assert body["code"] == "head_too_large"
    assert answer.all("connection") == ["close"]
    assert wire.ended()


@pytest.mark.parametrize("lines", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize("step", [1_000, 65_536, 10_000_000])
def test_huge_heads(hot: Face, lines: bytes, step: int) -> None:
    raw = b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n"
    with hot.connect() as wire:
        for start in range(0, len(raw), step):
            wire.connection.sendall(raw[start : start + step])
        assert_head_too_large(wire)


def test_a_huge_request_line(hot: Face) -> None:
    with hot.connect() as wire:
        wire.send(request(b"/health?" + b"a" * 300_000))
        assert_head_too_large(wire)


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "in pieces"])
def test_the_limit_of_heads_is_exact(hot: Face, at_once: bool) -> None:
    """Whatever the packets are, and whatever came before on the connection."""
    plain = len(b"GET") + len(b"/health") + len(b"host") + len(b"localhost") + 4
    room = 64 * 1024 - plain - len(b"x-a") - 4
    with hot.connect() as wire:
        for size, status in ((room, 200), (room + 1, 431)):
            raw = HEALTH * 3 + request(b"/health", (b"X-A", b"a" * size))
            step = len(raw) if at_once else 30_000
            for start in range(0, len(raw), step):
                wire.send(raw[start : start + step])
            assert [wire.receive().status for _ in range(3)] == [200] * 3
            assert wire.receive().status == status


def test_a_head_over_the_limit_in_plain_asgi() -> None:
    with face("asgi-httptools") as front:
        answer = front.ask(request(b"/health", (b"X-A", b"a" * 70_000)))
        assert answer.status == 431
        assert json.loads(answer.body)["code"] == "head_too_large"


@pytest.mark.parametrize(
    "more",
    [b"0\r\n" + b"A: b\r\n" * 50_000, b"0\r\nA: " + b"b" * 300_000, b"5;a=" + b"b" * 300_000],
    ids=["trailers", "trailer", "extension"],
)
def test_endless_ends_of_bodies(hot: Face, more: bytes) -> None:
    """No part of a message makes the gateway gather bytes without end."""
    with hot.connect() as wire:
        wire.connection.sendall(post(CHUNKED) + b"2\r\n{}\r\n" + more)
        assert_head_too_large(wire)


def test_trailers_that_are_not_endless(hot: Face) -> None:
    body = b'{"server_id":"echo","method":"ping"}'
    with hot.connect() as wire:
        for _ in range(3):
            trailers = b"A: b\r\n" * 5_000
            wire.send(post(CHUNKED) + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, trailers))
            assert wire.receive().status == 200


# Time


def sweep(front: Face, seconds: float) -> None:
    """What the sweep would do if ``seconds`` had passed."""
    for connection in front.connections():
        now_s = front.inside(connection.loop.time)
        front.portal.call(connection.close_if_quiet, now_s + seconds)


def test_an_idle_connection_ends(hot: Face) -> None:
    with hot.connect() as wire:
        for raw in (HEALTH, echo("busy"), request(b"/servers"), echo("x" * 70_000)):
            wire.send(raw)
            wire.receive()
            sweep(hot, KEEP_ALIVE_S - 1)
        wire.send(HEALTH)
        assert wire.receive().status == 200
        sweep(hot, KEEP_ALIVE_S + 1)
        assert wire.ended()


def test_a_connection_without_a_request_ends(hot: Face) -> None:
    with hot.connect() as wire:
        hot.until(lambda: len(hot.connections()) == 1)
        sweep(hot, FIRST_BYTE_S - 1)
        wire.send(HEALTH)
        assert wire.receive().status == 200
        sweep(hot, KEEP_ALIVE_S - 1)
        wire.send(HEALTH)
        assert wire.receive().status == 200
    with hot.connect() as wire:
        hot.until(lambda: len(hot.connections()) == 1)
        sweep(hot, FIRST_BYTE_S + 1)
        assert wire.ended()


@pytest.mark.parametrize(
    "part",
    [
        b"G",
        b"GET /health HTTP/1.1\r\nHost: loc",
        post((b"Content-Length", b"20")) + b"{",
        post(CHUNKED) + b"5\r\n{}",
        request(b"/mcp", JSON, (b"Content-Length", b"20"), method=b"POST") + b"{",
    ],
    ids=["first byte", "head", "body", "chunk", "refused"],
)
def test_a_request_that_never_ends_is_given_up(hot: Face, part: bytes) -> None:
    with hot.connect() as wire:
        wire.send(HEALTH)
        wire.receive()
        wire.send(part)
        (connection,) = hot.connections()
        hot.until(lambda: hot.inside(lambda: connection.intake.begun))
        sweep(hot, REQUEST_READ_S - 1)
        assert hot.connections() == [connection]
        sweep(hot, REQUEST_READ_S + 1)
        if part.startswith(request(b"/mcp", JSON, method=b"POST")[:40]) and AUTH[1] not in part:
            assert wire.receive().status == 401
        assert wire.ended()


def test_a_client_that_waits_for_its_answer_is_not_idle(hot: Face) -> None:
    with hot.connect() as wire:
        wire.send(call("mute", params={"name": "x"}) + b"GET /hea")
        hot.until(lambda: hot.used("mute") == (1, 1))
        sweep(hot, 10**6)
        assert len(hot.connections()) == 1
        assert hot.used("mute") == (1, 1)
    hot.at_rest()


# Clients that do not read

BIG: Final = 1_000_000


def test_a_slow_reader_gets_everything_in_the_end(roomy: Face) -> None:
    """Meanwhile answers do not pile up: nothing more is read or begun than fits."""
    raw = b"".join(echo("x" * BIG, message_id=number) for number in range(30))
    with roomy.connect() as wire:
        (connection,) = _only(roomy, wire)
        sender = threading.Thread(target=wire.send, args=(raw,))
        sender.start()
        roomy.until(lambda: roomy.inside(lambda: connection.flow.write_paused))
        roomy.until(lambda: roomy.inside(lambda: connection.active is None))
        assert sender.is_alive(), "everything was taken from a client that reads nothing"
        assert roomy.inside(connection.transport.get_write_buffer_size) < 3 * BIG
        for number in range(30):
            message_id, text = echoed(wire.receive())
            assert (message_id, len(text)) == (number, BIG)
        sender.join()


def _only(front: Face, wire: Wire) -> list[Connection]:
    """The gateway's end of ``wire``, once nothing is left of the connections before it."""
    port = wire.connection.getsockname()[1]
    front.until(lambda: [one.client and one.client[1] for one in front.connections()] == [port])
    return front.connections()


def stuff(front: Face, wire: Wire, connection: Connection) -> None:
    """Leave the gateway with more to say than this client takes."""
    big = call("huge", params={"name": "any", "arguments": {"size": BIG}})
    wire.send(big * 16)
    front.until(lambda: front.inside(lambda: connection.flow.write_paused))
    front.until(lambda: front.inside(lambda: connection.active is None))


def test_who_takes_nothing_is_given_up(roomy: Face) -> None:
    with roomy.connect() as wire:
        (connection,) = _only(roomy, wire)
        stuff(roomy, wire, connection)
        sweep(roomy, ANSWER_READ_S - 1)
        assert roomy.connections() == [connection]
        sweep(roomy, ANSWER_READ_S + 1)
        roomy.until(lambda: not roomy.connections())


def test_who_takes_a_little_is_not(roomy: Face) -> None:
    with roomy.connect() as wire:
        (connection,) = _only(roomy, wire)
        stuff(roomy, wire, connection)
        sweep(roomy, 0)
        before = roomy.inside(connection.transport.get_write_buffer_size)
        while roomy.inside(connection.transport.get_write_buffer_size) == before:
            assert wire.connection.recv(65_536)
        sweep(roomy, ANSWER_READ_S + 1)
        assert roomy.connections() == [connection]


def test_a_stopping_gateway_has_less_patience() -> None:
    with (
        face("hot", server("huge", "huge_reply")) as front,
        front.connect() as stuffed,
        front.connect() as partial,
    ):
        partial.send(post((b"Content-Length", b"20")))
        front.until(lambda: any(one.intake.reading is not None for one in front.connections()))
        reader = next(one for one in front.connections() if one.intake.reading is not None)
        stuff(front, stuffed, next(one for one in front.connections() if one is not reader))
        for one in front.connections():
            front.inside(one.shutdown)
        sweep(front, DRAIN_S - 1)
        assert len(front.connections()) == 2
        sweep(front, DRAIN_S + 1)
        front.until(lambda: not front.connections())
