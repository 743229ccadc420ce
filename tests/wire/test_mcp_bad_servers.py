"""Servers that break the protocol, and clients that vanish: a clear error or silence, and nothing
left over, over sockets."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.rawhttp import request
from tests.wire.conftest import MakeClient
from tests.wire.faces import AUTH, JSON, Face, face, local, server
from tests.wire.mcp_client import MODERN, Client, Json, Reply, mirror, remote, talker

MEGABYTE: Final = 1024 * 1024
MODES: Final = (
    "answers_twice",
    "wrong_id",
    "late_answers",
    "huge_reply",
    "bad_utf8",
    "deep_json",
    "not_json",
    "half_line",
    "closes_stdout",
    "crash_mid_call",
    "killed_mid_call",
    "never_answers",
    "floods_notifications",
    "noisy_stdout",
    "asks_client",
)

PATIENCE_S: Final = {"wrong_id": 1, "never_answers": 1, "late_answers": 1}
"""For those whose silence a test waits out."""


@pytest.fixture(scope="module")
def front() -> Iterator[Face]:
    servers = (
        *(server(mode, mode, request_timeout_seconds=PATIENCE_S.get(mode)) for mode in MODES),
        talker("talker", "legacy"),
        talker("modern", "modern"),
        mirror("mirror", "modern"),
        server("slow", "slow_start"),
    )
    with face("hot", *servers) as running:
        for mode in PATIENCE_S:
            running.start(mode)
        yield running
        running.at_rest()


@contextmanager
def nothing_left(front: Face, client: MakeClient) -> Iterator[None]:
    """What is there afterwards, with all clients gone, that was not there before: calls, questions,
    sessions, tasks, sockets."""
    client.leave()
    before = front.inside(lambda: count(front))
    yield
    client.leave()
    front.at_rest()
    front.until(
        lambda: all(
            now <= then
            for now, then in zip(front.inside(lambda: count(front)), before, strict=True)
        )
    )


def count(front: Face) -> tuple[int, int, int, int, int]:
    gateway = front.gateway
    sessions = [session.core for session in gateway.sessions._sessions.values()]
    return (
        len(gateway.modern._running),
        sum(len(core._running) + len(core._questions) for core in sessions),
        len(sessions) + len(gateway.sse._sessions),
        sum(1 for task in asyncio.all_tasks() if "_run_when_ready" in repr(task)),
        len(front.server.server_state.connections),
    )


def outcome(one: Client, arguments: Json | None = None) -> Json:
    params = {"name": "echo", "arguments": {"text": "x"} if arguments is None else arguments}
    reply = one.ask("tools/call", params)
    assert reply.status == 200
    message: Json = reply.message
    return message


@pytest.mark.parametrize(
    ("mode", "code", "text"),
    [
        ("wrong_id", -32603, "did not answer before the deadline"),
        ("never_answers", -32603, "did not answer before the deadline"),
        ("bad_utf8", -32603, "broke the protocol"),
        ("deep_json", -32603, "broke the protocol"),
        ("half_line", -32603, "broke the protocol"),
        ("closes_stdout", -32603, "during the call"),
        ("crash_mid_call", -32603, "during the call"),
        ("killed_mid_call", -32603, "during the call"),
    ],
)
def test_a_clear_error(front: Face, client: MakeClient, mode: str, code: int, text: str) -> None:
    with nothing_left(front, client):
        one = client(front, mode).initialize()
        error = outcome(one)["error"]
        assert error["code"] == code
        assert text in error["message"]
        assert one.ask("ping").result == {}
        one.end()


@pytest.mark.parametrize("mode", ["answers_twice", "late_answers", "noisy_stdout", "asks_client"])
def test_nothing_of_it_reaches_the_client(front: Face, client: MakeClient, mode: str) -> None:
    with nothing_left(front, client):
        one = client(front, mode).initialize()
        stream = one.listen()
        stream.event()
        for _ in range(3):
            assert "method" not in outcome(one)
        assert stream.is_silent(0.05)
        stream.leave()
        one.end()


UNSOUND: Final = {
    "no error object": '{"jsonrpc":"2.0","id":$ID,"error":"boom"}',
    "no error at all": '{"jsonrpc":"2.0","id":$ID,"error":null}',
    "a list": '{"jsonrpc":"2.0","id":$ID,"error":[]}',
    "code in words": '{"jsonrpc":"2.0","id":$ID,"error":{"code":"x","message":"m"}}',
    "no code": '{"jsonrpc":"2.0","id":$ID,"error":{"message":"m"}}',
    "no message": '{"jsonrpc":"2.0","id":$ID,"error":{"code":1}}',
}
TWICE: Final = (
    '{"jsonrpc":"2.0","id":$ID,"result":{"content":[]},"id":$ID}',
    '{"id":99,"jsonrpc":"2.0","result":{"content":[]},"id":$ID}',
    '{"jsonrpc":"2.0","id":99,"result":{"content":[]},"\\u0069d":$ID}',
    '{"jsonrpc":"2.0","id":$ID,"id":$ID,"error":{"code":1,"message":"m","data":{"id":7}}}',
)


@pytest.mark.parametrize("line", UNSOUND.values(), ids=UNSOUND.keys())
def test_an_error_is_an_error_object(front: Face, client: MakeClient, line: str) -> None:
    with nothing_left(front, client):
        one = client(front, "talker").initialize()
        for reply in (one.call("raw", line=line), client(front, "modern").tool("raw", line=line)):
            error = reply.error
            assert error["code"] == -32603
            assert "answered with an error that" in error["message"]
        one.end()


@pytest.mark.parametrize("line", TWICE, ids=range(len(TWICE)))
def test_an_answer_has_one_id(front: Face, client: MakeClient, line: str) -> None:
    with nothing_left(front, client):
        one = client(front, "talker").initialize()
        for reply in (
            one.call("raw", id="mine", line=line),
            client(front, "modern").tool("raw", id="mine", line=line),
        ):
            names = json.loads(reply.body, object_pairs_hook=lambda pairs: pairs)
            assert [value for name, value in names if name == "id"] == ["mine"]
        one.end()


def test_every_answer_gets_somewhere_however_deep(front: Face, client: MakeClient) -> None:
    """The limit of what can be read is nearer the deeper in the stack it is read: what came in may
    still be too deep for whoever looks into it on the way."""
    line = (
        '{"result":{"error":1,"taskId":"t","resultType":"complete","a":$NESTED},'
        '"jsonrpc":"2.0","id":$ID}'
    )
    with nothing_left(front, client):
        one, stateless = client(front, "talker").initialize(), client(front, "modern")
        for nested in range(900, 1000):
            for reply in (
                one.call("raw", id="mine", line=line, nested=nested),
                stateless.tool("raw", id="mine", line=line, nested=nested),
            ):
                body = reply.body
                assert b'"id":"mine"' in body
                assert b'"result"' in body or b"nested too deeply" in body
                reply.leave()
        one.end()


DEEP_HANDSHAKE: Final = """
import json, sys
for line in sys.stdin:
    deep = "[" * int(sys.argv[1]) + "]" * int(sys.argv[1])
    result = '{"supportedVersions":["2026-07-28"],"capabilities":{},"x":%s}' % deep
    raw_id = json.dumps(json.loads(line).get("id"))
    print('{"jsonrpc":"2.0","id":%s,"result":%s}' % (raw_id, result), flush=True)
"""


def test_a_handshake_that_is_too_deep_is_the_servers_fault(client: MakeClient) -> None:
    depths = range(950, 1000, 3)
    servers = (local(f"deep-{one}", "-c", DEEP_HANDSHAKE, str(one)) for one in depths)
    with face("hot", *servers) as front:
        replies = [client(front, f"deep-{one}").tool("echo") for one in depths]
        told = [reply.body for reply in replies]
        assert not [text for text in told if b"nternal error" in text]
        assert any(b"handshake with JSON nested too deeply" in text for text in told)


def test_a_flood_of_notifications(front: Face, client: MakeClient) -> None:
    with nothing_left(front, client):
        one = client(front, "floods_notifications").initialize(roots={})
        reply = one.call("echo", text="x")
        *before, answer = reply.messages()
        assert answer["result"]["content"][0]["text"] == "x"
        assert len(before) == 20_000
        one.end()


def test_fifty_megabytes_in_a_line(front: Face, client: MakeClient) -> None:
    with nothing_left(front, client):
        one = client(front, "huge_reply").initialize()
        message = outcome(one, {"size": 50 * MEGABYTE})
        whole = "result" in message
        assert whole or "size limit" in message["error"]["message"]
        assert one.ask("ping").result == {}
        one.end()


# ── over HTTP ────────────────────────────────────────────────────────────────────────────────────

DISCOVERED: Final = {
    "resultType": "complete",
    "supportedVersions": [MODERN],
    "capabilities": {},
    "ttlMs": 0,
    "cacheScope": "private",
}
STREAM: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
PROGRESS: Final = (
    b'data: {"jsonrpc":"2.0","method":"notifications/progress",'
    b'"params":{"progressToken":%d,"progress":1}}\n\n'
)


class Upstream:
    """A stateless server that answers every call with the same bytes and then closes, or holds."""

    def __init__(self) -> None:
        self.answer = b""
        self.hold = False
        self.left = threading.Event()
        """A client broke the connection off while it was held."""

        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/mcp"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            size = 0
            while (line := stream.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    size = int(line.split(b":")[1])
            message = json.loads(stream.read(size) or b"{}")
            if message.get("method") == "server/discover":
                body = {"jsonrpc": "2.0", "id": message["id"], "result": DISCOVERED}
                raw = json.dumps(body).encode()
                head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                connection.sendall(head + b"content-length: %d\r\n\r\n" % len(raw) + raw)
                return
            token = message.get("params", {}).get("_meta", {}).get("progressToken", 0)
            answer = self.answer.replace(b"%id", str(message.get("id", 0)).encode())
            try:
                connection.sendall(answer.replace(b"%token", str(token).encode()))
                if self.hold:
                    connection.settimeout(20)
                    if connection.recv(1) == b"":
                        self.left.set()
            except OSError:
                self.left.set()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    one = Upstream()
    yield one
    one.close()


@pytest.fixture(scope="module")
def http(upstream: Upstream) -> Iterator[Face]:
    with face("hot", remote("http", upstream.url), request_timeout_seconds=2) as running:
        yield running
        running.at_rest()


WHOLE: Final = (
    b'data: {"jsonrpc":"2.0","id":%id,"result":{"resultType":"complete","content":[]}}\n\n'
)
BROKEN: Final = {
    "no event at all": STREAM,
    "cut in the middle": STREAM + WHOLE[:40],
    "cut before its end": STREAM + WHOLE[:-1],
    "no JSON": STREAM + b"data: {nonsense\n\n",
    "no UTF-8": STREAM + b"data: \xff\xfe\n\n",
    "another id": STREAM + WHOLE.replace(b"%id", b"999999"),
    "no event stream": b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi",
    "nothing": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "no HTTP": b"nonsense\r\n\r\n",
    "an error that is none": STREAM + b'data: {"jsonrpc":"2.0","id":%id,"error":"boom"}\n\n',
    "error 500": b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
def test_broken_streams_of_servers(
    http: Face, upstream: Upstream, client: MakeClient, answer: bytes
) -> None:
    upstream.answer, upstream.hold = answer, False
    with nothing_left(http, client):
        reply = client(http, "http").tool("x", id="mine")
        message = reply.message
        assert message["id"] == "mine"
        assert message["error"]["code"] in (-32603, -32002), message
        assert reply.status in (502, 504)


@pytest.mark.parametrize("streamed", [False, True], ids=["body", "stream"])
def test_every_answer_over_http_gets_somewhere_however_deep(
    http: Face, upstream: Upstream, client: MakeClient, *, streamed: bool
) -> None:
    upstream.hold = False
    with nothing_left(http, client):
        one = client(http, "http")
        for levels in range(900, 1000):
            nested = b"[" * levels + b"]" * levels
            answer = b'{"result":{"error":1,"a":%b},"jsonrpc":"2.0","id":%%id}' % nested
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
            upstream.answer = STREAM + b"data: " + answer + b"\n\n" if streamed else head + answer
            reply = one.tool("x", id="mine")
            assert b'"id":"mine"' in reply.body
            reply.leave()


def test_an_answer_over_http_has_one_id(http: Face, upstream: Upstream, client: MakeClient) -> None:
    upstream.hold = False
    answer = b'{"jsonrpc":"2.0","id":%id,"result":{"resultType":"complete"},"id":%id}'
    upstream.answer = STREAM + b"data: " + answer + b"\n\n"
    reply = client(http, "http").tool("x", id="mine")
    names = json.loads(reply.body, object_pairs_hook=lambda pairs: pairs)
    assert [value for name, value in names if name == "id"] == ["mine"]


def test_what_comes_after_the_answer_is_dropped(
    http: Face, upstream: Upstream, client: MakeClient
) -> None:
    progress = PROGRESS.replace(b"%d", b"%token")
    upstream.answer, upstream.hold = STREAM + progress + WHOLE + progress + WHOLE, False
    with nothing_left(http, client):
        messages = list(client(http, "http").tool("x", meta={"progressToken": "p"}).messages())
        assert [m.get("method") for m in messages] == ["notifications/progress", None]


def test_an_endless_event(http: Face, upstream: Upstream, client: MakeClient) -> None:
    upstream.answer, upstream.hold = STREAM + b"data: " + b"x" * (200 * MEGABYTE), True
    with nothing_left(http, client):
        reply = client(http, "http").tool("x")
        assert reply.status in (502, 504)
        assert reply.error["code"] == -32603
    assert upstream.left.wait(15)
    upstream.left.clear()


def test_a_client_that_leaves_is_told_to_the_server(
    http: Face, upstream: Upstream, client: MakeClient
) -> None:
    upstream.answer, upstream.hold = STREAM + PROGRESS.replace(b"%d", b"%token"), True
    upstream.left.clear()
    with nothing_left(http, client):
        reply = client(http, "http").tool("x", meta={"progressToken": 1})
        reply.next()
        reply.leave()
        assert upstream.left.wait(15)


# ── clients that vanish ──────────────────────────────────────────────────────────────────────────


def vanish(front: Face, reply: Reply, server_id: str | None = "talker") -> None:
    if server_id is not None:
        front.until(lambda: front.used(server_id)[1] >= 1)
    reply.leave()


def test_clients_that_vanish_in_every_state(front: Face, client: MakeClient) -> None:
    front.inside(lambda: front.gateway.sessions.end_if(lambda _: True))
    with nothing_left(front, client):
        # Before its request is whole.
        for part in (b"P", b"POST /servers/talker/mcp HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"):
            with front.connect() as wire:
                wire.send(part)
        # While its server starts, in each era.
        for reply in (
            client(front, "slow").begin(roots={}),
            client(front, "slow").begin(),
            client(front, "mirror").tool("x"),
        ):
            vanish(front, reply, None)
        # While a call is in flight, before and after the first event.
        modern = client(front, "modern")
        vanish(front, modern.tool("gated_progress", gate="v"), "modern")
        begun = modern.tool("gated_progress", gate="v", meta={"progressToken": 1})
        begun.next()
        vanish(front, begun, "modern")
        vanish(front, modern.subscribe(toolsListChanged=True), "modern")
        one = client(front, "talker").initialize(roots={})
        vanish(front, one.call("gated_progress", gate="v"))
        begun = one.call("gated_progress", gate="v", meta={"progressToken": 1})
        begun.next()
        vanish(front, begun)
        # While it is asked something.
        asked = one.call("ask", method="roots/list")
        asked.next()
        vanish(front, asked)
        vanish(front, one.listen(), None)
        sse = one.send(b"", method=b"GET", path=b"/servers/talker/sse")
        assert sse.event() is not None
        vanish(front, sse, None)
        assert one.end() == 204
        front.at_rest()


# ── nothing adds up ──────────────────────────────────────────────────────────────────────────────

FEW: Final = 200
MANY: Final = 2000
SLACK_BYTES: Final = 12 * MEGABYTE


def used() -> tuple[int, int]:
    """Resident memory in bytes, and open descriptors, of this very process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE"), len([*Path("/proc/self/fd").iterdir()])


def post(front: Face, path: bytes, body: bytes, *headers: tuple[bytes, bytes]) -> socket.socket:
    """Send a request, and leave the answer to others."""
    connection = socket.create_connection((front.host, front.port), 60)
    connection.sendall(request(path, AUTH, JSON, *headers, method=b"POST", body=body))
    return connection


def flat(front: Face, once: object, times: int = MANY) -> None:
    assert callable(once)
    for _ in range(FEW):
        once()
    front.at_rest()
    memory, files = used()
    for _ in range(times):
        once()
    front.at_rest()
    front.until(lambda: used()[1] <= files + 2)
    assert used()[0] < memory + SLACK_BYTES


def test_sessions_leave_nothing(front: Face) -> None:
    with front.connect() as wire:
        path = b"/servers/talker/mcp"
        body = {"jsonrpc": "2.0", "id": 0, "method": "initialize"}
        begin = json.dumps(body | {"params": {"capabilities": {}}}).encode()
        progress = {"name": "progress", "arguments": {}, "_meta": {"progressToken": 1}}
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": progress}

        def session() -> None:
            wire.send(request(path, AUTH, JSON, method=b"POST", body=begin))
            answer = wire.receive(b"POST")
            (session_id,) = answer.all("mcp-session-id")
            own = (b"Mcp-Session-Id", session_id.encode())
            wire.send(
                request(path, AUTH, JSON, own, method=b"POST", body=json.dumps(call).encode())
            )
            assert wire.receive(b"POST").body.count(b"data: {") == 4
            wire.send(request(path, AUTH, own, method=b"DELETE"))
            assert wire.receive(b"DELETE").status == 204

        flat(front, session)
    assert front.inside(lambda: len(front.gateway.sessions._sessions)) == 0
    assert front.inside(front.gateway.sessions.count) == 0


def test_disconnects_leave_nothing(front: Face) -> None:
    own = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "progressToken": 1,
    }
    params = {"name": "gated_progress", "arguments": {"gate": "x"}, "_meta": own}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    body = json.dumps(call).encode()
    headers = (
        (b"MCP-Protocol-Version", MODERN.encode()),
        (b"Mcp-Method", b"tools/call"),
        (b"Mcp-Name", b"gated_progress"),
    )
    numbers = iter(range(10**6))

    def once() -> None:
        connection = post(front, b"/servers/modern/mcp", body, *headers)
        if next(numbers) % 2:
            connection.recv(1)  # the stream has begun
        connection.close()

    flat(front, once)
    assert front.inside(lambda: len(front.gateway.modern._running)) == 0
