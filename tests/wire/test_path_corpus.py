"""Hundreds of ways to almost say ``/health``: none of them opens anything without a key.

Each goes over a real socket, byte for byte. The rule is the same for all: without a key only the
two exact paths are answered, everything else is 401 (or 400, where it is no HTTP); and with a key
nothing is served under a spelling that is not its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import httptools
import pytest

from open_mcp_gateway.access.policy import platform_admin
from open_mcp_gateway.auth.apikeys import digest_of
from tests.rawhttp import Answer, connect, request, send
from tests.wire.faces import Face, face, server

KEY: Final = b"test-key-path-corpus-603deb1015ca"
NO_KEY: Final = b'{"error":"Unauthorized","message":"API key required"}'
HEALTHY: Final = b'{"status":"ok"}'
OPEN: Final = (b"/health", b"/ready")
CLOSED: Final = b"/servers"

UNREADABLE: Final = frozenset({400})
"""Refused by the parser. To close without a word would be a crash."""


ODD: Final = (
    rb"/ // . ./ /. .. ../ /.. ; ;x=y \ ~ * & = , : @ + | ^ ` ' < {id} - _ 1 % %zz %u002f "
    rb"%2f %2F %5c %2e %2e%2e/ %00 %20 %09 %0a %0d%0a %3f %23 %3b %25 %252f "
    rb"%c0%af %c0%ae %e0%80%af %ef%bc%8f"
).split()
UNPRINTABLE: Final = (
    b'"',
    b"\x01",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b"\xc0\xaf",
    b"\xef\xbc\x8f",
    b"\xe2\x80\x8b",
)


def inserted() -> Iterator[bytes]:
    """Something at the start, in the middle and at the end of an open path."""
    for odd in (*ODD, *UNPRINTABLE):
        for place in (0, 1, 4, len(OPEN[0])):
            yield OPEN[0][:place] + odd + OPEN[0][place:]


def wandering() -> Iterator[bytes]:
    """From an open path towards a closed one, and back."""
    for step in (b"/../", b"/..//", b"/%2e%2e/", b"/..%2f", b"%2f..%2f", b"/..;/", b"/.;/../"):
        yield OPEN[0] + step + CLOSED[1:]
        yield CLOSED + step + OPEN[0][1:]
    for step in (b"\\..\\", b"/..\\", b"/..%5c", b"/..%c0%af", b"/%252e%252e/", b"/.../", b";/../"):
        yield OPEN[0] + step + CLOSED[1:]
        yield CLOSED + step + OPEN[0][1:]
    for tail in (b"/servers", b"/servers/demo", b"/stats", b"/mcp", b"/admin/reload", b"/metrics"):
        yield OPEN[0] + tail
        yield OPEN[1] + tail
    yield from (b"/health,/servers", b"/health /servers", b"/servers#/health", b"/servers;/health")


def respelled() -> Iterator[bytes]:
    """Other letters, escapes and alphabets."""
    for path in OPEN:
        name = path[1:]
        yield from (b"/" + name.upper(), b"/" + name.title(), b"/" + name[:-1] + name[-1:].upper())
        yield from (
            name,
            b"." + path,
            path[:-1],
            path + name[-1:],
            path + b".json",
            path + b".html",
        )
        for place in range(len(name)):
            escaped = b"%%%02x" % name[place]
            yield b"/" + name[:place] + escaped + name[place + 1 :]
    for alike in ("/he\u0430lth", "/\u200bhealth", "/health\u00a0", "/\uff48ealth", "/h\u0117alth"):
        yield alike.encode()
    yield from (b"/healthz", b"/livez", b"/readyz", b"/ping", b"/status", b"/.well-known/health")


def other_forms() -> Iterator[bytes]:
    """Targets that are no path (RFC 9112 section 3.2), and whole addresses."""
    for scheme in (b"http://", b"https://", b"HTTP://", b"ws://", b"file://", b"//"):
        for host in (b"localhost", b"127.0.0.1:80", b"evil.example", b"user:pass@localhost", b""):
            yield scheme + host + OPEN[0]
    yield from (b"*", b"localhost:80", b"localhost", b"localhost/health", b"[::1]:80/health")
    yield from (b"http:/health", b"http:health", b"javascript:/health", b"mailto:health", b"?")
    yield from (b"?/health", b"#/health", b"/?/health", b"/#/health", b"/?path=/health", b"/")
    yield from (b"/health#", b"/health#x", b"/health#?x", b"%2fhealth", b"\\health", b"/%2fhealth")


def closed_with_a_query() -> Iterator[bytes]:
    """A query string never opens a closed path."""
    for query in (
        b"/health",
        b"path=/health",
        b"public=1",
        b"auth=off",
        b"x=/../health",
        b"/ready?",
    ):
        yield CLOSED + b"?" + query
        yield b"/stats?" + query


CORPUS: Final = sorted(
    {*inserted(), *wandering(), *respelled(), *other_forms(), *closed_with_a_query()} - {*OPEN}
)
SERVED_WITH_A_KEY: Final = (b"/servers", b"/stats", b"/servers/demo")
"""Closed paths in their one spelling, which the corpus contains with a query string."""

STILL_OPEN: Final = [
    path + query
    for path in OPEN
    for query in (b"", b"?", b"?x", b"?x=/../servers", b"?%00", b"??", b"?/servers", b"?#")
]


def path_of(target: bytes) -> bytes:
    return target.partition(b"?")[0]


@pytest.fixture(scope="module", params=["hot", "asgi-httptools", "asgi-h11"])
def gateway(request: pytest.FixtureRequest) -> Iterator[Face]:
    keys = (platform_admin(digest_of(KEY)),)
    with face(request.param, server("demo", "echo"), keys=keys) as running:
        yield running


def reaches(gateway: Face, target: bytes) -> bytes:
    """The path that the application is given. One of uvicorn's classes takes absolute addresses and
    fragments apart itself (RFC 9112 section 3.2.2); with it that is the path, and no other."""
    if gateway.name != "asgi-httptools":
        return path_of(target)
    try:
        return httptools.parse_url(target).path or b""
    except httptools.HttpParserInvalidURLError:
        return b""


def ask(gateway: Face, raw: bytes, method: bytes = b"GET") -> Answer:
    return send(gateway.host, gateway.port, raw, method=method)


def assert_closed(answer: Answer, what: object, method: bytes = b"GET") -> None:
    assert answer.status in UNREADABLE | {401}, (what, answer)
    if answer.status == 401 and method != b"HEAD":
        assert answer.body == NO_KEY
    assert HEALTHY not in answer.body


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 350
    assert not {path_of(target) for target in CORPUS} & {*OPEN}


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"OPTIONS"])
def test_nothing_opens_without_a_key(gateway: Face, method: bytes) -> None:
    answered = 0
    for target in CORPUS:
        answer = ask(gateway, request(target, method=method), method)
        if reaches(gateway, target) in OPEN and method in {b"GET", b"HEAD"}:
            assert answer.status == 200, (target, answer)
            continue
        assert_closed(answer, target, method)
        answered += answer.status == 401
    # Most of the corpus has to get past the parser, or it would prove little.
    assert answered >= 240


def test_nothing_opens_in_http_1_0(gateway: Face) -> None:
    for target in CORPUS:
        if reaches(gateway, target) not in OPEN:
            assert_closed(ask(gateway, request(target, version=b"1.0")), target)


def test_with_a_key_a_path_has_one_spelling(gateway: Face) -> None:
    for target in CORPUS:
        answer = ask(gateway, request(target, (b"X-API-Key", KEY)))
        path = reaches(gateway, target)
        assert (HEALTHY in answer.body) is (path == OPEN[0])
        if path in {*OPEN, *SERVED_WITH_A_KEY}:
            assert answer.status == 200, target
        else:
            assert answer.status in UNREADABLE | {404}, (target, answer)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_the_open_paths_are_open(gateway: Face, version: bytes) -> None:
    for target in STILL_OPEN:
        for method in (b"GET", b"HEAD"):
            raw = request(target, method=method, version=version)
            answer = ask(gateway, raw, method)
            assert answer.status == 200, (target, answer)


METHODS: Final = (
    b"POST PUT PATCH DELETE OPTIONS TRACE CONNECT PROPFIND PURGE SEARCH M-SEARCH MKCOL LINK "
    b"get Get GETX BREW X G\tT G@T"
).split(b" ")


def test_no_other_method_opens_them(gateway: Face) -> None:
    for method in METHODS:
        for path in OPEN:
            assert_closed(ask(gateway, request(path, method=method), method), (method, path))


DISGUISES: Final = [
    (b"X-Original-URL", b"/health"),
    (b"X-Rewrite-URL", b"/health"),
    (b"X-Original-URI", b"/health"),
    (b"X-Forwarded-Uri", b"/health"),
    (b"X-Forwarded-Path", b"/health"),
    (b"X-Forwarded-Prefix", b"/health"),
    (b"X-HTTP-Method-Override", b"GET"),
    (b"X-Forwarded-For", b"127.0.0.1"),
    (b"X-Real-IP", b"127.0.0.1"),
    (b"Forwarded", b"for=127.0.0.1;host=localhost"),
    (b"X-Forwarded-User", b"admin"),
    (b"X-Remote-User", b"admin"),
    (b"X-User", b"admin"),
    (b"X-Tenant", b"admin"),
    (b"Referer", b"http://localhost/health"),
    (b"Host", b"localhost/health"),
    (b"Host", b"localhost:80/health"),
    (b"Upgrade", b"websocket"),
    (b"Upgrade", b"h2c"),
    (b"Access-Control-Request-Method", b"GET"),
    (b"Origin", b"http://localhost"),
]


@pytest.mark.parametrize("disguise", DISGUISES, ids=lambda pair: b": ".join(pair).decode())
def test_no_header_opens_a_closed_path(gateway: Face, disguise: tuple[bytes, bytes]) -> None:
    extra = [(b"Connection", b"Upgrade")] if disguise[0] == b"Upgrade" else []
    for method in (b"GET", b"POST", b"OPTIONS"):
        for path in (b"/servers", b"/servers/demo/stop", b"/mcp", b"/admin/reload", b"/nowhere"):
            raw = request(path, disguise, *extra, method=method)
            assert_closed(ask(gateway, raw, method), (method, path, disguise))


HOST: Final = b"Host: localhost\r\n\r\n"
HEADS: Final = [
    b"GET /servers\r\n\r\n",
    b"GET /servers HTTP/0.9\r\n" + HOST,
    b"GET /servers HTTP/2.0\r\n" + HOST,
    b"GET /servers HTTP/3\r\n" + HOST,
    b"GET /servers http/1.1\r\n" + HOST,
    b"GET /servers HTTP/1.1 \r\n" + HOST,
    b"GET  /servers HTTP/1.1\r\n" + HOST,
    b"GET\t/servers\tHTTP/1.1\r\n" + HOST,
    b" GET /servers HTTP/1.1\r\n" + HOST,
    b"\r\nGET /servers HTTP/1.1\r\n" + HOST,
    b"GET /health /servers HTTP/1.1\r\n" + HOST,
    b"GET /health\tHTTP/1.1 /servers HTTP/1.1\r\n" + HOST,
    b"GET /health\r/../servers HTTP/1.1\r\n" + HOST,
    b"GET /health\n/servers HTTP/1.1\r\n" + HOST,
    b"GET /health\x00/../servers HTTP/1.1\r\n" + HOST,
    b"GET /servers HTTP/1.1\nHost: localhost\n\n",
    b"GET /servers HTTP/1.1\r\nHost: localhost\r\n\tX-API-Key: folded\r\n\r\n",
    b"GET /servers HTTP/1.1\r\nHost: localhost\r\nX-API-Key : spaced\r\n\r\n",
    b"GET /servers HTTP/1.1\r\nHost: localhost\r\n: nameless\r\n\r\n",
    b"GET /servers HTTP/1.1\r\nHost: localhost\r\nX-API-Key:\r\n\r\n",
    b"GET /servers HTTP/1.1\r\n\r\n",
    b"GET /servers HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET " + b"/" * 70_000 + b"health HTTP/1.1\r\n" + HOST,
    b"GET /health" + b"/../health" * 5_000 + b" HTTP/1.1\r\n" + HOST,
    b"\x00\x01\x02\x03\r\n\r\n",
]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: repr(head[:40]))
def test_odd_request_lines(gateway: Face, head: bytes) -> None:
    with connect(gateway.host, gateway.port) as wire:
        wire.send(head + b"\r\n\r\n")
        answer = wire.receive()
    assert answer.status in UNREADABLE | {401, 403, 414, 431, 505}, answer


SMUGGLED: Final = [
    (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"),
    (b"Content-Length: 0\r\nContent-Length: 44\r\n", b""),
    (b"Content-Length: +0\r\n", b""),
    (b"Content-Length: 0, 44\r\n", b""),
    (b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    (b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
    (b"Transfer-Encoding:\x0bchunked\r\n", b"0\r\n\r\n"),
    (b"Transfer-Encoding: chunked\r\n", b"0;x=y\r\n\r\n"),
    (b"Transfer-Encoding: chunked\r\n", b"5\r\nabcdefg\r\n0\r\n\r\n"),
    (b"", b""),
]


@pytest.mark.parametrize(("framing", "body"), SMUGGLED, ids=lambda part: repr(part)[:40])
def test_no_request_hides_behind_an_open_one(gateway: Face, framing: bytes, body: bytes) -> None:
    """However the first one is framed, a second on the same connection needs a key of its own."""
    first = b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + framing + b"\r\n" + body
    second = b"GET /servers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with connect(gateway.host, gateway.port) as wire:
        wire.send(first + second)
        wire.connection.shutdown(1)
        answers = []
        while (answer := wire.receive()).status:
            answers.append(answer)
    for answer in answers:
        assert answer.status in (200, 400, 401, 501), answer
        if answer.status == 200:
            assert answer.body == HEALTHY
