"""Nonsense, and requests with two readings: never two out of one, and the sender is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

import pytest

from tests.rawhttp import request
from tests.wire.faces import AUTH, HOT, JSON, Face, echo, face, receive_all, released, server

HEALTH: Final = request(b"/health")
CHUNKED: Final = (b"Transfer-Encoding", b"chunked")


@pytest.fixture(scope="module", params=HOT)
def hot(request: pytest.FixtureRequest) -> Iterator[Face]:
    """Framing is the program's own class's; other servers have their own."""
    with face(request.param, server("echo", "echo"), server("late", "late_answers")) as running:
        yield running
        running.at_rest()


GARBAGE: Final = [
    b"\r\n\r\nhello\r\n\r\n",
    b"hello\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\0" * 100,
    b"GET /health HTTP/1.2\r\nHost: localhost\r\n\r\n",
    b"GET /health HTTP/3.0\r\nHost: localhost\r\n\r\n",
    b"GET /health\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /health HTTP/1.1 \r\nHost: localhost\r\n\r\n",
    b"GET /hea\x80lth HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"G\xe9T /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"get /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"BREW /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
]


@pytest.mark.parametrize("raw", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_told_so_and_ends_the_connection(hot: Face, raw: bytes) -> None:
    with hot.connect() as wire:
        wire.send(HEALTH + raw + HEALTH)
        answers = receive_all(wire)
    assert [answer.status for answer in answers] == [200, 400]
    last = answers[-1]
    assert last.all("connection") == ["close"]
    body = json.loads(last.body)
    assert (body["error"], body["code"]) == ("Bad Request", "malformed")
    assert body["request_id"] == last.all("x-request-id")[0]


HIDDEN: Final = request(b"/health")
LENGTH: Final = b"Content-Length: %d" % len(HIDDEN)
SMUGGLED: Final = {
    "length and chunks": (LENGTH, b"Transfer-Encoding: chunked", b"", b"0"),
    "chunks and length": (b"Transfer-Encoding: chunked", LENGTH, b"", b"0"),
    "two lengths": (b"Content-Length: 0", LENGTH, b""),
    "two equal lengths": (LENGTH, LENGTH, b""),
    "list of lengths": (b"Content-Length: 0, %d" % len(HIDDEN), b""),
    "signed length": (b"Content-Length: +%d" % len(HIDDEN), b""),
    "hexadecimal length": (b"Content-Length: 0x1", b""),
    "length with a space": (b"Content-Length : %d" % len(HIDDEN), b""),
    "length with a tab": (b"Content-Length\t: %d" % len(HIDDEN), b""),
    "negative length": (b"Content-Length: -1", b""),
    "huge length": (b"Content-Length: 99999999999999999999999", b""),
    "folded": (b"X-A: b", b" Content-Length: 0", LENGTH, b""),
    "folded with a tab": (b"Transfer-Encoding:", b"\tchunked", LENGTH, b""),
    "unknown coding": (b"Transfer-Encoding: xchunked", b"", b"0"),
    "chunks not last": (b"Transfer-Encoding: chunked, identity", b"", b"0"),
    "chunks twice": (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", b"", b"0"),
    "chunks with a control": (b"Transfer-Encoding: \x0bchunked", b"", b"0"),
    "chunks in quotes": (b'Transfer-Encoding: "chunked"', b"", b"0"),
    "empty coding": (b"Transfer-Encoding:", LENGTH, b""),
    "NUL in a value": (b"X-A: b\0c", LENGTH, b""),
    "NUL in a name": (b"X-\0A: b", LENGTH, b""),
    "no name": (b": b", LENGTH, b""),
    "no colon": (b"X-A", LENGTH, b""),
    "bare CR": (b"X-A: b\rContent-Length: 0", b""),
    "CR CR LF": (b"X-A: b\r", LENGTH, b""),
    "chunk size with a sign": (b"Transfer-Encoding: chunked", b"", b"+0"),
    "chunk size with a space": (b"Transfer-Encoding: chunked", b"", b"0 "),
    "chunk size with 0x": (b"Transfer-Encoding: chunked", b"", b"0x0"),
    "chunk size too large": (b"Transfer-Encoding: chunked", b"", b"1" + b"0" * 17),
    "chunk size missing": (b"Transfer-Encoding: chunked", b"", b";a"),
    "chunk longer than said": (b"Transfer-Encoding: chunked", b"", b"1", b"abc", b"0"),
    "a length as trailer": (b"Transfer-Encoding: chunked", b"", b"0", LENGTH),
}
"""Lines of a request that two programs could read differently, and a second one behind it."""


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
@pytest.mark.parametrize("lines", SMUGGLED.values(), ids=SMUGGLED)
def test_never_two_requests_out_of_one(
    hot: Face, lines: tuple[bytes, ...], line_end: bytes
) -> None:
    """With and without a key: at most one answer, and not to the hidden request."""
    for headers in ((), (b"%b: %b" % AUTH,)):
        raw = line_end.join([b"POST /mcp HTTP/1.1", b"Host: localhost", *headers, *lines, b""])
        with hot.connect() as wire:
            wire.send(raw + line_end + HIDDEN)
            statuses = [answer.status for answer in receive_all(wire)]
        assert len(statuses) == 1, statuses
        assert statuses[0] in (400, 401, 501)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /health HTTP/1.1\nHost: localhost\n\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\n",
        b"GET /health HTTP/1.1\r\nX: a\r\n b\r\nHost: localhost\r\n\r\n",
    ],
    ids=["all LF", "one LF", "last LF", "folded"],
)
def test_sloppy_line_ends(hot: Face, raw: bytes) -> None:
    with hot.connect() as wire:
        wire.send(raw + HEALTH)
        assert [answer.status for answer in receive_all(wire)] == [400]


def test_a_refused_body_gone_wrong_is_answered_once(hot: Face) -> None:
    """The 401 is out; the nonsense where its body should go on ends the connection silently."""
    with hot.connect() as wire:
        wire.send(request(b"/mcp", JSON, CHUNKED, method=b"POST") + b"5\r\nabcde\r\n")
        assert wire.receive().status == 401
        wire.send(b"nonsense\r\n" + HEALTH)
        assert receive_all(wire) == []


def test_a_refused_body_gone_wrong_before_its_turn(hot: Face) -> None:
    refused = request(b"/mcp", JSON, CHUNKED, method=b"POST")
    with hot.connect() as wire:
        wire.send(echo("slow", server_id="late") + refused + b"nonsense\r\n" + HEALTH)
        hot.until(lambda: hot.used("late")[1] == 1)
        with released(hot):
            assert [answer.status for answer in receive_all(wire)] == [200, 401]


def test_what_waits_behind_an_open_call_is_answered_before_the_end(hot: Face) -> None:
    with hot.connect() as wire:
        wire.send(echo("slow", server_id="late") + HEALTH + b"nonsense\r\n\r\n" + HEALTH)
        hot.until(lambda: hot.used("late")[1] == 1)
        with released(hot):
            assert [answer.status for answer in receive_all(wire)] == [200, 200, 400]
