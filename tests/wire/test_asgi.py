"""Plain ASGI: the same answers as the program's own class, and the protocol by itself."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any, Final

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from open_mcp_gateway.access.policy import platform_admin
from open_mcp_gateway.app import Gateway, running
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.principal import PLATFORM
from open_mcp_gateway.catalog.model import CatalogEntry, Snapshot
from open_mcp_gateway.clock import SystemClock
from open_mcp_gateway.config.model import Config
from open_mcp_gateway.inbound.management import ReloadReport
from open_mcp_gateway.names import KeyId, ServerId
from open_mcp_gateway.outbound.settings import OutboundSettings
from tests.rawhttp import Answer, Wire, connect
from tests.wire.faces import KEY, Face, face, server

# The same through every class

COMPARED: Final = ("hot", "hot-asyncio", "asgi-httptools", "asgi-h11")
LIMIT: Final = 3_000


@pytest.fixture(scope="module")
def faces() -> Iterator[list[Face]]:
    servers = (server("echo", "echo"), server("crash", "crash_at_start"))
    settings: dict[str, Any] = {"max_body_bytes": LIMIT}
    with (
        face(COMPARED[0], *servers, **settings) as one,
        face(COMPARED[1], *servers, **settings) as two,
        face(COMPARED[2], *servers, **settings) as three,
        face(COMPARED[3], *servers, **settings) as four,
    ):
        yield [one, two, three, four]


METHODS: Final = st.one_of(
    st.just(b"POST"),
    st.just(b"POST"),
    st.sampled_from(
        [b"GET", b"HEAD", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"PROPFIND"]
    ),
)
KNOWN: Final = [
    b"/mcp",
    b"/rpc",
    b"/health",
    b"/ready",
    b"/servers",
    b"/servers?tag=x",
    b"/servers/echo",
    b"/servers/nobody",
    b"/servers/crash/start",
    b"/servers/echo/stop",
    b"/stats",
    b"/",
    b"/health/",
    b"/%68ealth",
    b"/health?x=%00",
    b"/nowhere",
    b"/servers/../health",
]
SEGMENTS: Final = st.text("abcXYZ019._~-%:@!$&'()*+,;=/?", max_size=20).map(
    lambda text: b"/" + text.encode()
)
TARGETS: Final = st.one_of(
    st.sampled_from(KNOWN[:2]), st.sampled_from(KNOWN[:2]), st.sampled_from(KNOWN), SEGMENTS
)
WITH_KEY: Final = b"X-API-Key: " + KEY
KEYED: Final = st.one_of(
    st.just([WITH_KEY]),
    st.just([WITH_KEY]),
    st.just([WITH_KEY]),
    st.sampled_from(
        [
            [],
            [b"Authorization: bearer " + KEY + b"  "],
            [b"Authorization: Bearer test-key-wrong"],
            [b"Authorization: Basic eDp5"],
            [b"X-API-Key:"],
            [WITH_KEY, WITH_KEY],
        ]
    ),
)
NAMED: Final = st.sampled_from(
    [[b"X-Server-ID: echo"], [b"X-Server-ID: echo \t"], [b"X-Server-ID: nobody"], []]
)
MEDIA: Final = st.sampled_from(
    [[b"Content-Type: application/json"]] * 3 + [[], [b"Content-Type: text/plain"]]
)
OTHERS: Final = st.lists(
    st.sampled_from(
        [
            b"X-Server-ID: other",
            b"Content-Type:",
            b"Origin: https://page.example",
            b"Origin: null",
            b"Origin: not an origin",
            b"Access-Control-Request-Method: POST",
            b"Access-Control-Request-Headers: x-api-key",
            b"X-Request-Id: given-1",
            b"X-Request-Id: not a sane one",
            b"Accept: text/event-stream",
            b"Connection: close",
            b"Expect: 100-continue",
            b"Mcp-Session-Id: s",
            b"X-Request-Id: given-1 \t ",
            b"Content-Type: application/json \t",
            b"Origin: https://page.example ",
            b"Cookie: a=b; c=d",
        ]
    ),
    max_size=3,
)
HEADERS: Final = st.tuples(KEYED, NAMED, MEDIA, OTHERS).map(lambda parts: list(chain(*parts)))
KEYS: Final = st.text(max_size=5)
VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
METHOD_NAMES: Final = ["ping", "tools/list", "initialize", "notifications/x", "no/such"]
SOUND: Final = st.fixed_dictionaries(
    {"server_id": st.just("echo"), "method": st.sampled_from(METHOD_NAMES)},
    optional={"jsonrpc": st.just("2.0"), "id": st.integers() | st.text(max_size=6)},
)
MESSAGES: Final = st.fixed_dictionaries(
    {},
    optional={
        "server_id": st.sampled_from(["echo", "nobody", "crash", ""]) | VALUES,
        "jsonrpc": st.sampled_from(["2.0", "1.0"]) | VALUES,
        "id": st.integers() | st.text(max_size=6) | VALUES,
        "method": st.sampled_from(METHOD_NAMES) | VALUES,
        "params": st.dictionaries(st.sampled_from(["name", "_meta", "a"]), VALUES) | VALUES,
    },
)


def encoded(message: object) -> bytes:
    return json.dumps(message).encode()


BODIES: Final = st.one_of(
    SOUND.map(encoded),
    MESSAGES.map(encoded),
    st.just(b""),
    st.binary(max_size=40),
    st.integers(LIMIT - 2, LIMIT + 3).map(b"{}".ljust),
)
FRAMINGS: Final = st.sampled_from(["length", "chunks", "small chunks"])


def raw_of(method: bytes, target: bytes, headers: list[bytes], body: bytes, framing: str) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method, target), b"Host: localhost ", *headers]
    if framing == "length":
        lines += [b"Content-Length: %d" % len(body)] if body else []
        return b"\r\n".join([*lines, b"", body])
    size = 7 if framing == "small chunks" else max(1, len(body))
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", chunks + b"0\r\n\r\n"])


def final(wire: Wire, method: bytes) -> Answer:
    """The answer that is not an invitation to go on."""
    answer = wire.receive(method)
    return final(wire, method) if answer.status == 100 else answer


VARYING: Final = {"date", "x-request-id", "connection", "content-length", "retry-after"}
"""Of these only the presence can be compared, of ``connection`` not even that."""

MADE: Final = re.compile(rb'"request_id":"[0-9a-f]{20}"|"req-[0-9]+"')
TIMES: Final = re.compile(
    rb'"(started_at|last_activity|last_reload)":"[^"]*"|"(uptime_seconds|pid)":[0-9.]+'
)


def essence(answer: Answer) -> tuple[int, bytes, list[tuple[str, str]], set[str]]:
    body = TIMES.sub(b"TIME", MADE.sub(b"MADE", answer.body))
    body = re.sub(rb"pid [0-9]+", b"pid N", body)
    fixed = [(name, value) for name, value in answer.headers if name not in VARYING]
    names = {name for name, _ in answer.headers} - {"connection"}
    return answer.status, body, fixed, names


@given(METHODS, TARGETS, HEADERS, BODIES, FRAMINGS)
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@example(
    b"POST", b"/mcp", [b"X-API-Key: " + KEY], b'{"server_id":"echo","method":"ping"}', "chunks"
)
@example(b"POST", b"/mcp", [b"Expect: 100-continue"], b" " * (LIMIT + 1), "chunks")
@example(b"HEAD", b"/mcp", [], b"{}", "length")
@example(b"POST", b"/servers/echo/start", [WITH_KEY], b"", "length")
def test_every_class_gives_the_same_answer(
    faces: list[Face], method: bytes, target: bytes, headers: list[bytes], body: bytes, framing: str
) -> None:
    raw = raw_of(method, target, headers, body, framing)
    told = []
    for one in faces:
        with connect(one.host, one.port) as wire:
            wire.send(raw)
            answer = final(wire, method)
        told.append(essence(answer))
        given = [line for line in headers if line.startswith(b"X-Request-Id")]
        if given and given[0].rstrip().endswith(b"given-1"):
            assert answer.all("x-request-id") == ["given-1"]
    assert told[0][0] >= 200
    assert told[1:] == told[:1] * (len(faces) - 1), [one.name for one in faces]


# By itself

Message = dict[str, Any]


async def _no_reload() -> ReloadReport:
    raise AssertionError("nothing is reloaded here")


@asynccontextmanager
async def gateway(**changes: Any) -> AsyncIterator[Gateway]:
    specs = (
        server("mute", "never_answers"),
        server("slow", "slow_start", env={"TEST_SLOW_START_S": "60"}),
    )
    key = platform_admin(digest_of(KEY), KeyId("test"))
    outbound = OutboundSettings(stop_grace_s=0.2, term_grace_s=0.5)
    config = Config(keys=(key,), auth_enabled=True, outbound=outbound, **changes)
    snapshot = Snapshot(
        {
            spec.id: CatalogEntry(spec=spec, shown=spec, runtime_type="local-process")
            for spec in specs
        }
    )
    async with running(
        config, snapshot, environ={}, clock=SystemClock(), reload=_no_reload
    ) as made:
        yield made


class Server:
    """The other side of one ASGI request, by hand."""

    def __init__(self, *events: Message) -> None:
        self.sent: list[Message] = []
        self.waiting = anyio.Event()
        """Set once the application asks for more than there is."""

        self.events, self._receiving = anyio.create_memory_object_stream[Message](100)
        for event in events:
            self.events.send_nowait(event)

    async def receive(self) -> Message:
        if not self._receiving.statistics().current_buffer_used:
            self.waiting.set()
        return await self._receiving.receive()

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))

    def close(self) -> None:
        self.events.close()
        self._receiving.close()

    @property
    def answer(self) -> tuple[int, bytes]:
        start, body = self.sent
        assert start["type"] == "http.response.start"
        assert body == {"type": "http.response.body", "body": body["body"]}
        lengths = [value for name, value in start["headers"] if name == b"content-length"]
        assert lengths in ([], [b"%d" % len(body["body"])])
        return start["status"], body["body"]


def scope_of(path: bytes, method: str = "POST", **changes: Any) -> Message:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "raw_path": path,
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"x-api-key", KEY)],
        "client": ("127.0.0.1", 5),
    } | changes


def body(content: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


GONE: Final[Message] = {"type": "http.disconnect"}


@pytest.mark.anyio
async def test_lifespan() -> None:
    async with gateway() as made:
        events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        other = Server(*events)
        await made.application({"type": "lifespan"}, other.receive, other.send)
        assert [one["type"] for one in other.sent] == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
        ]
        other.close()


@pytest.mark.anyio
async def test_websockets_are_refused() -> None:
    async with gateway() as made:
        other = Server()
        await made.application({"type": "websocket"}, other.receive, other.send)
        assert other.sent == [{"type": "websocket.close", "code": 1008}]
        other.close()


@pytest.mark.anyio
@pytest.mark.parametrize("client", [None, ("10.0.0.1", 1)])
async def test_pieces_of_a_body(client: tuple[str, int] | None) -> None:
    async with gateway() as made:
        pieces = (b'{"server_id":"nobo', b"", b'dy","id":"x"', b',"method":"ping"}')
        other = Server(*(body(piece, more=True) for piece in pieces), {"type": "http.request"})
        scope = scope_of(b"/mcp", client=client)
        await made.application(scope, other.receive, other.send)
        status, said = other.answer
        assert (status, json.loads(said)["id"]) == (404, "x")
        other.close()


@pytest.mark.anyio
async def test_a_query_string_is_no_part_of_the_path() -> None:
    async with gateway() as made:
        other = Server()
        scope = scope_of(b"/health", "GET", query_string=b"a=b", headers=[(b"host", b"a")])
        await made.application(scope, other.receive, other.send)
        assert other.answer == (200, b'{"status":"ok"}')
        other.close()


@pytest.mark.anyio
async def test_too_large_before_the_end() -> None:
    async with gateway(max_body_bytes=10) as made:
        other = Server(body(b"x" * 6, more=True), body(b"x" * 6, more=True))
        await made.application(scope_of(b"/mcp"), other.receive, other.send)
        assert other.answer[0] == 413
        other.close()


@pytest.mark.anyio
async def test_a_client_gone_before_its_body_ended() -> None:
    async with gateway() as made:
        other = Server(body(b"{", more=True), GONE)
        await made.application(scope_of(b"/mcp"), other.receive, other.send)
        assert other.sent == []
        other.close()


@pytest.mark.anyio
async def test_a_client_gone_in_the_middle_of_its_call() -> None:
    async with gateway() as made:
        warm_up = Server(body(b'{"server_id":"mute","method":"ping"}'))
        await made.application(scope_of(b"/mcp"), warm_up.receive, warm_up.send)
        assert warm_up.answer[0] == 200
        warm_up.close()
        other = Server(body(b'{"server_id":"mute","method":"tools/call","params":{"name":"x"}}'))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.application, scope_of(b"/mcp"), other.receive, other.send)
            await other.waiting.wait()
            assert made.fleet.status(ServerId("mute"), PLATFORM).request_count == 2
            other.events.send_nowait(body(b""))
            other.events.send_nowait(GONE)
        assert other.sent == []
        assert made.fleet.status(ServerId("mute"), PLATFORM).error_count == 1
        other.close()


@pytest.mark.anyio
async def test_a_client_gone_in_the_middle_of_a_management_request() -> None:
    """What was begun goes on; nobody hears of it."""
    async with gateway() as made:
        other = Server(body(b""), GONE)
        scope = scope_of(b"/servers/mute/start")
        await made.application(scope, other.receive, other.send)
        assert other.sent == []
        assert made.fleet.status(ServerId("mute"), PLATFORM).state in ("starting", "running")
        other.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "content"),
    [
        (b"/servers/slow/start", b""),
        (b"/mcp", b'{"server_id":"slow","method":"ping","id":"x"}'),
        (b"/mcp", b'{"server_id":"slow","method":"notifications/x"}'),
    ],
)
async def test_who_still_waits_when_the_gateway_ends_is_told_so(
    path: bytes, content: bytes
) -> None:
    other = Server(body(content))
    async with anyio.create_task_group() as tasks, gateway() as made:
        tasks.start_soon(made.application, scope_of(path), other.receive, other.send)
        await other.waiting.wait()
    status, said = other.answer
    assert status == 503
    assert b'"code":"draining"' in said
    other.close()
