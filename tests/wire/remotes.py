"""What the tests of outbound HTTP share: entries, waiters, real servers, and servers gone wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import UNSET

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import PLATFORM, Permission, Principal
from open_mcp_gateway.auth.scope import EVERYTHING, UNNARROWED
from open_mcp_gateway.catalog.model import CatalogEntry, ClientTls, EraChoice, Remote, ServerSpec
from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.names import KeyId, ServerId
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner, Peer, Question, Ticket
from open_mcp_gateway.outbound.remote import open_remote
from open_mcp_gateway.outbound.settings import OutboundSettings
from open_mcp_gateway.outbound.verdicts import EraVerdicts
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming, Params
from open_mcp_gateway.protocol.messages import call_of, decode_message
from tests.environments import python_of

SERVERS = Path(__file__).parents[1] / "servers"
SETTINGS = OutboundSettings(connect_timeout_s=5, probe_silence_s=1)


def entry_for(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    era: EraChoice = EraChoice.AUTO,
    tls: ClientTls | None = None,
    secrets: tuple[str, ...] = (),
) -> CatalogEntry:
    spec = ServerSpec(
        id=ServerId("x"), runtime=Remote(url=url, headers=dict(headers or {}), tls=tls), era=era
    )
    return CatalogEntry(spec=spec, shown=spec, runtime_type="remote-http", secrets=secrets)


def permit_for(entry: CatalogEntry) -> Permit:
    principal = Principal(
        key_id=KeyId("test"),
        role="admin",
        permissions=frozenset({Permission.MCP_CALL}),
        namespaces=EVERYTHING,
        holder=PLATFORM,
        scope=UNNARROWED,
    )
    return Permit(principal, Permission.MCP_CALL, entry)


def params_of(text: bytes) -> Params | None:
    return call_of(
        decode_message(b'{"method":"m","id":1,"params":%b}' % text), enveloped=True
    ).params


class Outcome:
    """A waiter to await; refuses a second outcome."""

    whose = "whoever tests"

    def __init__(self) -> None:
        self._future: asyncio.Future[tuple[bytes, int] | GatewayError] = (
            asyncio.get_running_loop().create_future()
        )
        self._woken = asyncio.Event()
        self.heard: list[dict[str, Any]] = []
        self.questions: list[Question] = []

    def answered(self, message: bytes, upstream_id: int) -> None:
        self._future.set_result((message, upstream_id))

    def failed(self, error: GatewayError) -> None:
        self._future.set_result(error)

    def related(self, message: bytes, incoming: Incoming) -> None:  # noqa: ARG002 - as Waiter's
        assert not self.settled
        self.heard.append(json.loads(message))
        self._woken.set()

    def asked(self, question: Question) -> None:
        assert not self.settled
        self.questions.append(question)
        self._woken.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds; looked at whenever something was heard."""
        await _until(self._woken, condition)

    @property
    def settled(self) -> bool:
        return self._future.done()

    async def message(self) -> bytes:
        """The answer; its id is the one the peer gave the call."""
        outcome = await asyncio.wait_for(self._future, 60)
        if isinstance(outcome, GatewayError):
            raise outcome
        return outcome[0]


class Room:
    """An audience to await."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self.heard: list[dict[str, Any]] = []
        self.questions: list[Question] = []

    def notified(self, message: bytes, incoming: Incoming) -> None:  # noqa: ARG002 - as Audience's
        self.heard.append(json.loads(message))
        self._woken.set()

    def asked(self, question: Question) -> None:
        self.questions.append(question)
        self._woken.set()

    def methods(self) -> list[str]:
        return [message["method"] for message in self.heard]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds; looked at whenever something was heard."""
        await _until(self._woken, condition)


async def _until(woken: asyncio.Event, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            woken.clear()
            await woken.wait()


async def open_at(
    url: str,
    manner: Manner = ANY_MANNER,
    *,
    headers: Mapping[str, str] | None = None,
    era: EraChoice = EraChoice.AUTO,
    settings: OutboundSettings = SETTINGS,
    verdicts: EraVerdicts | None = None,
    environ: Mapping[str, str] | None = None,
    tls: ClientTls | None = None,
    secrets: tuple[str, ...] = (),
) -> Peer:
    entry = entry_for(url, headers=headers, era=era, tls=tls, secrets=secrets)
    opening = open_remote(entry, manner, settings, verdicts or EraVerdicts(), environ or {})
    return await asyncio.wait_for(opening, 60)


def start(
    peer: Peer, method: str, params: bytes | None = None, *, within_s: float = 60
) -> tuple[Ticket, Outcome]:
    """Begin a call."""
    call = Call(method, b"1", None if params is None else params_of(params))
    return start_call(peer, call, within_s=within_s)


def start_call(
    peer: Peer, call: Call, *, within_s: float = 10, outcome: Outcome | None = None
) -> tuple[Ticket, Outcome]:
    """Begin a call with all that belongs to it."""
    outcome = outcome or Outcome()
    deadline_s = asyncio.get_running_loop().time() + within_s
    entry = entry_for("http://unused.test")
    return peer.call(permit_for(entry), call, outcome, deadline_s=deadline_s), outcome


async def ask(
    peer: Peer, method: str, params: bytes | None = None, *, within_s: float = 60
) -> bytes:
    """One call and its answer."""
    _, outcome = start(peer, method, params, within_s=within_s)
    return await outcome.message()


ADD = b'{"name":"add","arguments":{"a":2,"b":3}}'


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def real_server(environment: str, script: str, *args: str) -> AsyncIterator[int]:
    """A server of ``tests/servers`` on another project's package; yields its port.

    ``PORT`` among the arguments is replaced.
    """
    port = free_port()
    words = [str(port) if word == "PORT" else word for word in args]
    process = await asyncio.create_subprocess_exec(
        str(python_of(environment)),
        str(SERVERS / script),
        *words,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        heard = b""
        while b"running on" not in heard:
            line = await asyncio.wait_for(process.stderr.readline(), 60)
            assert line, heard.decode()
            heard += line
        swallow = asyncio.ensure_future(process.stderr.read())
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    await swallow


class Request:
    """One HTTP request as a RawServer read it."""

    def __init__(self, line: str, headers: dict[str, str], body: bytes) -> None:
        self.verb, self.target, _ = line.split(" ")
        self.headers = headers
        """Names in lower case."""
        self.body = body

    @property
    def id(self) -> bytes:
        """The raw id of the JSON-RPC message."""
        raw = decode_message(self.body).id
        return bytes(raw) if isinstance(raw, (bytes, memoryview)) or raw else b"null"

    @property
    def method(self) -> str:
        """Empty without a message, and for an answer to a question."""
        if not self.body:
            return ""
        message = decode_message(self.body)
        return "" if message.method is UNSET else call_of(message, enveloped=True).method

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Line:
    """One connection to a RawServer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(
        self, body: bytes, status: str = "200 OK", kind: str = "application/json", extra: str = ""
    ) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{extra}"
        await self.send(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    async def result(self, request: Request, result: bytes = b"{}", extra: str = "") -> None:
        body = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (request.id, result)
        await self.reply(body, extra=extra)

    async def cut(self) -> None:
        """Reset the connection: no goodbye."""
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the client closes."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


Behaviour = Callable[[Request, Line], Awaitable[None]]


class RawServer:
    """A server that behaves as badly as its ``behave`` says, at the level of bytes."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.requests: list[Request] = []
        self.connections = 0
        self.port = 0
        self.arrived = asyncio.Condition()
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def methods(self) -> list[str]:
        """Of the JSON-RPC messages so far."""
        return [request.method for request in self.requests if request.body]

    async def saw(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds; looked at after every request."""
        async with asyncio.timeout(60), self.arrived:
            await self.arrived.wait_for(condition)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        line = Line(reader, writer)
        try:
            while True:
                request = await _read_request(reader)
                self.requests.append(request)
                async with self.arrived:
                    self.arrived.notify_all()
                await self.behave(request, line)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()

    async def listen(self, host: str, context: ssl.SSLContext | None) -> asyncio.Server:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.tasks.add(asyncio.ensure_future(self.serve(reader, writer)))

        server = await asyncio.start_server(accept, host, 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def stop(self, server: asyncio.Server) -> None:
        server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def raw_server(
    behave: Behaviour, *, host: str = "127.0.0.1", context: ssl.SSLContext | None = None
) -> AsyncIterator[RawServer]:
    raw = RawServer(behave)
    server = await raw.listen(host, context)
    try:
        yield raw
    finally:
        await raw.stop(server)


async def _read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *rest = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (r.partition(":") for r in rest)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(first, headers, body)


DISCOVERED = b'{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{}}'
INITIALIZED = (
    b'{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","version":"1"}}'
)


def modern(behave: Behaviour) -> Behaviour:
    """A modern server: answers discovery well, and everything else as ``behave`` does."""

    async def both(request: Request, line: Line) -> None:
        if request.method == "server/discover":
            await line.result(request, DISCOVERED)
        else:
            await behave(request, line)

    return both


def sessions(behave: Behaviour, on_get: Behaviour | None = None) -> Behaviour:
    """A server of the session era with session ids s1, s2, …; calls go to ``behave``. Without
    ``on_get`` it has no stream of its own."""
    opened = 0

    async def all_of_it(request: Request, line: Line) -> None:
        nonlocal opened
        if request.verb == "DELETE":
            await line.reply(b"", "204 No Content")
        elif request.verb == "GET":
            await (
                line.reply(b"", "405 Method Not Allowed")
                if on_get is None
                else on_get(request, line)
            )
        elif request.method == "server/discover":
            error = b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"no"}}'
            await line.reply(error, "400 Bad Request")
        elif request.method == "initialize":
            opened += 1
            await line.result(request, INITIALIZED, f"Mcp-Session-Id: s{opened}\r\n")
        elif request.method in {"notifications/initialized", ""}:
            await line.reply(b"", "202 Accepted")
        else:
            await behave(request, line)

    return all_of_it


CALL = b'{"name":"x","arguments":{}}'


async def plain(request: Request, line: Line) -> None:
    await line.result(request)


def event(message: bytes) -> bytes:
    return b"event: message\r\ndata: " + message + b"\r\n\r\n"


async def stream(line: Line, *events: bytes, end: bool = True) -> None:
    """An event stream in one chunk per event."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    await line.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
    for data in events:
        await line.send(b"%x\r\n%b\r\n" % (len(data), data))
    if end:
        await line.send(b"0\r\n\r\n")


def answer_to(request: Request, result: bytes = b'{"ok":true}') -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (request.id, result)


def replying(
    body: bytes, status: str = "200 OK", kind: str = "application/json", extra: str = ""
) -> Behaviour:
    async def behave(_request: Request, line: Line) -> None:
        await line.reply(body, status, kind, extra)

    return behave


def http_and_sse(
    endpoint: str = "/messages?id=1",
    on_call: Callable[[Request, Line, Line], Awaitable[None]] | None = None,
) -> Behaviour:
    """The 2024-11-05 transport at any path; ``on_call`` gets the POST, its line and the stream."""
    streams: list[Line] = []

    async def emit(message: bytes) -> None:
        await streams[-1].send(b"event: message\ndata: " + message + b"\n\n")

    async def posted(request: Request, line: Line) -> None:
        await line.reply(b"Accepted", "202 Accepted", "text/plain")
        if request.method == "initialize":
            result = INITIALIZED.replace(b"2025-11-25", b"2024-11-05")
            await emit(b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (request.id, result))
        elif not request.method.startswith("notifications/"):
            await emit(b'{"jsonrpc":"2.0","id":%b,"result":{}}' % request.id)

    async def behave(request: Request, line: Line) -> None:
        if request.verb == "GET":
            streams.append(line)
            await line.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
                b"event: endpoint\ndata: " + endpoint.encode() + b"\n\n"
            )
            await line.gone()
        elif not request.target.startswith("/messages"):
            await line.reply(b"Method Not Allowed", "405 Method Not Allowed", "text/plain")
        elif request.method == "tools/call" and on_call is not None:
            await on_call(request, line, streams[-1])
        else:
            await posted(request, line)

    return behave
