"""Where one HTTP request ends and the next begins, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import pytest

from tests.rawhttp import request
from tests.wire.faces import (
    ALL,
    AUTH,
    HOT,
    JSON,
    Face,
    body_of,
    call,
    echo,
    echoed,
    face,
    receive_all,
    released,
    server,
)

HEALTH: Final = request(b"/health")
BARE: Final = request(b"/servers")
"""Without a key: 401."""

CHUNKED: Final = (b"Transfer-Encoding", b"chunked")
READS_TRAILERS_AS_HEADERS: Final = "asgi-httptools"
"""uvicorn's class, not ours; see the docstring of ``inbound/asgi.py``."""


@pytest.fixture(scope="module", params=ALL)
def front(request: pytest.FixtureRequest) -> Iterator[Face]:
    with face(request.param, server("echo", "echo"), server("late", "late_answers")) as running:
        yield running
        running.at_rest()


@pytest.fixture(scope="module", params=HOT)
def hot(request: pytest.FixtureRequest) -> Iterator[Face]:
    """For what only the program's own class promises."""
    with face(request.param, server("echo", "echo"), server("late", "late_answers")) as running:
        yield running
        running.at_rest()


def chunked(*pieces: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    """A body in chunks, with its end."""
    chunks = [b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces]
    return b"".join([*chunks, b"0\r\n", trailers, b"\r\n"])


def head(*headers: tuple[bytes, bytes], path: bytes = b"/mcp") -> bytes:
    return request(path, AUTH, JSON, *headers, method=b"POST")


# Connections


def test_one_connection_many_requests(front: Face) -> None:
    with front.connect() as wire:
        for number in range(20):
            wire.send(echo(f"text {number}", message_id=number))
            assert echoed(wire.receive()) == (number, f"text {number}")
            wire.send(HEALTH)
            assert wire.receive().all("connection") == []


@pytest.mark.parametrize("target", [b"/health", b"/servers"])
def test_close_when_asked_to(front: Face, target: bytes) -> None:
    with front.connect() as wire:
        wire.send(request(target, (b"Connection", b"close")))
        assert wire.receive().all("connection") == ["close"]
        assert wire.ended()


def test_http_1_0_gets_one_answer(front: Face) -> None:
    raw = call("echo", method="ping").replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    with front.connect() as wire:
        wire.send(raw)
        answer = wire.receive()
        assert answer.status == 200
        assert json.loads(answer.body) == {"jsonrpc": "2.0", "id": 1, "result": {}}
        assert wire.ended()


def test_http_1_0_cannot_keep_the_connection(hot: Face) -> None:
    with hot.connect() as wire:
        wire.send(request(b"/health", (b"Connection", b"keep-alive"), version=b"1.0") + HEALTH)
        assert [answer.status for answer in receive_all(wire)] == [200]


def test_head_has_the_length_but_not_the_body(front: Face) -> None:
    with front.connect() as wire:
        for target in (b"/health", b"/servers"):
            wire.send(request(target, AUTH))
            got = wire.receive()
            wire.send(request(target, AUTH, method=b"HEAD"))
            answer = wire.receive(b"HEAD")
            assert (answer.status, answer.all("content-length")) == (
                got.status,
                [str(len(got.body))],
            )


def test_nothing_follows_a_request_that_closes(hot: Face) -> None:
    closing = request(b"/health", (b"Connection", b"close"))
    with hot.connect() as wire:
        wire.send(HEALTH + closing + HEALTH * 3)
        assert [answer.status for answer in receive_all(wire)] == [200, 200]


# Pipelining


def test_a_hundred_in_one_packet(front: Face) -> None:
    texts = [f"number {number} " + "x" * (number * 13) for number in range(100)]
    with front.connect() as wire:
        wire.send(b"".join(echo(text, message_id=text[:12]) for text in texts))
        for text in texts:
            assert echoed(wire.receive()) == (text[:12], text)


def test_one_refused_in_the_middle(front: Face) -> None:
    refused = request(b"/mcp", JSON, method=b"POST", body=body_of(echo("refused")))
    with front.connect() as wire:
        wire.send(echo("first") + refused + BARE + echo("last"))
        assert echoed(wire.receive()) == (1, "first")
        assert wire.receive().status == 401
        assert wire.receive().status == 401
        assert echoed(wire.receive()) == (1, "last")


def test_a_fast_answer_waits_for_the_slow_one_before_it(front: Face) -> None:
    slow = echo("slow", server_id="late", message_id="slow")
    with front.connect() as wire:
        wire.send(slow + HEALTH + echo("fast", message_id="fast"))
        front.until(lambda: front.used("late")[1] == 1)
        with released(front):
            assert echoed(wire.receive()) == ("slow", "slow")
        assert wire.receive().body == b'{"status":"ok"}'
        assert echoed(wire.receive()) == ("fast", "fast")


def test_more_than_is_read_ahead(hot: Face) -> None:
    """While the first is open nothing of the others is lost, and reading goes on afterwards."""
    with hot.connect() as wire:
        wire.send(echo("slow", server_id="late"))
        hot.until(lambda: hot.used("late")[1] == 1)
        for number in range(60):
            wire.send(echo("y" * 5_000, message_id=number))
        with released(hot):
            assert echoed(wire.receive()) == (1, "slow")
        assert [echoed(wire.receive())[0] for _ in range(60)] == list(range(60))


def test_a_large_body_behind_an_open_request(hot: Face) -> None:
    big = "z" * 3_000_000
    with hot.connect() as wire:
        wire.send(echo("slow", server_id="late"))
        hot.until(lambda: hot.used("late")[1] == 1)
        wire.connection.setblocking(False)
        rest = echo(big, message_id="big")
        rest = rest[wire.connection.send(rest) :]
        (connection,) = hot.connections()
        hot.until(lambda: connection.flow.read_paused)
        assert (
            hot.inside(
                lambda: connection.intake.reading is not None and connection.intake.reading.size
            )
            < 1e6
        )
        wire.connection.settimeout(20)
        with released(hot):
            assert echoed(wire.receive()) == (1, "slow")
        wire.send(rest)
        assert echoed(wire.receive()) == ("big", big)


# Bodies


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_chunks(front: Face, size: int) -> None:
    body = body_of(echo("chunked " * 30))
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    with front.connect() as wire:
        wire.send(head(CHUNKED) + chunked(*pieces) + HEALTH)
        assert echoed(wire.receive()) == (1, "chunked " * 30)
        assert wire.receive().body == b'{"status":"ok"}'


def test_chunk_extensions_mean_nothing(front: Face) -> None:
    body = body_of(echo("extended"))
    with front.connect() as wire:
        wire.send(head(CHUNKED) + chunked(body, extension=b';a="b";c=d') + HEALTH)
        assert echoed(wire.receive()) == (1, "extended")
        assert wire.receive().status == 200


@pytest.mark.parametrize(
    ("trailer", "status"),
    [
        (b"X-Server-ID: echo", 400),
        (b"X-Request-Id: from-the-trailer", 400),
        (b"Origin: null", 400),
        (b"Expect: 100-continue", 400),
        (b"Content-Type: text/plain", 400),
    ],
)
def test_trailers_mean_nothing(front: Face, trailer: bytes, status: int) -> None:
    if front.name == READS_TRAILERS_AS_HEADERS:
        return
    body = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    with front.connect() as wire:
        trailers = trailer + b"\r\n"
        wire.send(head(CHUNKED, path=b"/rpc") + chunked(body, trailers=trailers) + HEALTH)
        answer = wire.receive()
        assert answer.status == status
        assert b"name the server in one X-Server-ID header" in answer.body
        assert answer.all("x-request-id") != ["from-the-trailer"]
        assert answer.all("access-control-allow-origin") == []
        assert wire.receive().status == 200


def test_a_key_in_a_trailer_opens_nothing(front: Face) -> None:
    if front.name == READS_TRAILERS_AS_HEADERS:
        return
    raw = request(b"/mcp", JSON, CHUNKED, method=b"POST")
    trailers = b"%b: %b\r\nAuthorization: Bearer %b\r\n" % (*AUTH, AUTH[1])
    assert front.ask(raw + chunked(body_of(echo("x")), trailers=trailers)).status == 401


def test_a_byte_at_a_time(front: Face) -> None:
    with front.connect() as wire:
        for raw in (echo("tiny"), head(CHUNKED) + chunked(*(body_of(echo("tiny")),))):
            for number in range(len(raw)):
                wire.send(raw[number : number + 1])
            assert echoed(wire.receive()) == (1, "tiny")


def test_every_place_to_cut(hot: Face) -> None:
    """A pipelined pair in two packets, cut at each byte in turn."""
    body = body_of(echo("one"))
    pair = head(CHUNKED) + chunked(body[:9], body[9:], trailers=b"A: b\r\n") + echo("two")
    with hot.connect() as wire:
        for cut in range(1, len(pair)):
            wire.send(pair[:cut])
            wire.send(pair[cut:])
            assert echoed(wire.receive()) == (1, "one")
            assert echoed(wire.receive()) == (1, "two")


@pytest.mark.parametrize("size", [70_000, 300_000, 2_000_000])
def test_large_bodies_leave_the_connection_usable(front: Face, size: int) -> None:
    with front.connect() as wire:
        for _ in range(3):
            wire.send(echo("x" * size) + HEALTH)
            assert len(echoed(wire.receive())[1]) == size
            assert wire.receive().status == 200


def test_large_bodies_one_behind_the_other(front: Face) -> None:
    sizes = [90_000, 10, 200_000, 64_000, 65_536, 300_000]
    with front.connect() as wire:
        wire.send(b"".join(echo("x" * size) for size in sizes))
        assert [len(echoed(wire.receive())[1]) for _ in sizes] == sizes


# Expect: 100-continue

EXPECT: Final = (b"Expect", b"100-continue")


def split(raw: bytes) -> tuple[bytes, bytes]:
    first, _, rest = raw.partition(b"\r\n\r\n")
    return first + b"\r\n\r\n", rest


@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue"])
def test_the_body_is_asked_for(front: Face, value: bytes) -> None:
    body = body_of(echo("asked for"))
    first, rest = split(request(b"/mcp", AUTH, JSON, (b"Expect", value), method=b"POST", body=body))
    with front.connect() as wire:
        for _ in range(2):
            wire.send(first)
            assert wire.receive().status == 100
            wire.send(rest)
            assert echoed(wire.receive()) == (1, "asked for")


@pytest.mark.parametrize("framing", [(b"Content-Length", b"50"), CHUNKED], ids=["length", "chunks"])
def test_nobody_is_asked_who_may_not_come_in(front: Face, framing: tuple[bytes, bytes]) -> None:
    with front.connect() as wire:
        wire.send(request(b"/mcp", JSON, EXPECT, framing, method=b"POST"))
        assert wire.receive().status == 401


def test_a_body_not_asked_for_is_no_request(hot: Face) -> None:
    """Whether the refused client sends its body or not, what it sends is never taken for one."""
    hidden = HEALTH
    length = (b"Content-Length", b"%d" % len(hidden))
    for sent in (b"", hidden):
        with hot.connect() as wire:
            wire.send(request(b"/mcp", JSON, EXPECT, length, method=b"POST"))
            answer = wire.receive()
            assert (answer.status, answer.all("connection")) == (401, ["close"])
            wire.send(sent)
            assert receive_all(wire) == []


def test_the_invitation_waits_for_its_turn(hot: Face) -> None:
    body = body_of(echo("expected"))
    first, rest = split(request(b"/mcp", AUTH, JSON, EXPECT, method=b"POST", body=body))
    with hot.connect() as wire:
        wire.send(echo("slow", server_id="late") + first)
        hot.until(lambda: hot.used("late")[1] == 1)
        with released(hot):
            assert echoed(wire.receive()) == (1, "slow")
        assert wire.receive().status == 100
        wire.send(rest)
        assert echoed(wire.receive()) == (1, "expected")


@pytest.mark.parametrize(
    "raw",
    [
        request(b"/health", EXPECT),
        request(b"/servers", AUTH, EXPECT),
        request(b"/servers", AUTH, (b"Expect", b"the-unexpected"), (b"Content-Length", b"0")),
        call("echo", EXPECT, method="ping").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    ],
    ids=["open", "no body", "unknown", "1.0"],
)
def test_no_invitation_without_a_use(hot: Face, raw: bytes) -> None:
    assert hot.ask(raw).status == 200


# Requests to speak something else

H2C: Final = (
    (b"Connection", b"Upgrade, HTTP2-Settings"),
    (b"Upgrade", b"h2c"),
    (b"HTTP2-Settings", b"AAMAAABkAARAAAAAAAIAAAAA"),
)
WEBSOCKET: Final = (
    (b"Connection", b"Upgrade"),
    (b"Upgrade", b"websocket"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
)


@pytest.mark.parametrize("wish", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
def test_an_upgrade_is_not_made(front: Face, wish: tuple[tuple[bytes, bytes], ...]) -> None:
    assert front.ask(request(b"/health", *wish)).status == 200
    assert front.ask(request(b"/mcp", *wish)).status == 401
    assert front.ask(request(b"/mcp", AUTH, *wish)).status == 405


@pytest.mark.parametrize("wish", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
def test_a_body_with_the_wish_to_upgrade_is_read(
    hot: Face, wish: tuple[tuple[bytes, bytes], ...]
) -> None:
    """As Java's HttpClient and curl --http2 send it."""
    body = body_of(echo("stay"))
    raw = request(b"/mcp", AUTH, JSON, *wish, method=b"POST", body=body)
    in_chunks = head(*wish, CHUNKED) + chunked(body[:5], body[5:])
    with hot.connect() as wire:
        wire.send(raw + HEALTH + in_chunks + raw)
        assert echoed(wire.receive()) == (1, "stay")
        assert wire.receive().status == 200
        assert echoed(wire.receive()) == (1, "stay")
        assert echoed(wire.receive()) == (1, "stay")
        for cut in range(1, len(raw), 7):
            wire.send(raw[:cut])
            wire.send(raw[cut:])
            assert echoed(wire.receive()) == (1, "stay")


def test_connect_makes_no_tunnel(hot: Face) -> None:
    for headers, status in (((), 401), ((AUTH,), 404)):
        with hot.connect() as wire:
            wire.send(HEALTH + request(b"localhost:22", *headers, method=b"CONNECT") + HEALTH)
            assert [answer.status for answer in receive_all(wire)] == [200, status]


def test_http_2_by_prior_knowledge(hot: Face) -> None:
    with hot.connect() as wire:
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        assert [answer.status for answer in receive_all(wire)] == [400]


def test_answers_stay_apart(front: Face) -> None:
    """The bytes of several answers, as they come: nothing between them."""
    with front.connect() as wire:
        wire.send(HEALTH * 3 + request(b"/health", (b"Connection", b"close")))
        raw = b""
        while more := wire.connection.recv(65536):
            raw += more
    starts = [place for place in range(len(raw)) if raw.startswith(b"HTTP/1.1 200", place)]
    assert len(starts) == 4
    assert starts[0] == 0
    for one, after in pairwise(starts):
        assert raw[one:after].endswith(b'\r\n\r\n{"status":"ok"}')


@pytest.mark.parametrize("codings", [[b"gzip, chunked"], [b"gzip", b"chunked"]])
def test_codings_that_nobody_undoes_are_refused(hot: Face, codings: list[bytes]) -> None:
    """The chunks would be put together, and what is in them taken for what it is not."""
    headers = [(b"Transfer-Encoding", coding) for coding in codings]
    raw = request(b"/mcp", AUTH, JSON, *headers, method=b"POST") + b"2\r\n{}\r\n0\r\n\r\n"
    answer = hot.ask(raw)
    assert answer.status == 501
    assert json.loads(answer.body)["code"] == "unknown_transfer_coding"
