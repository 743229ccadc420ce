"""An MCP client by hand, over sockets: every message, header and event as a test wants it."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

from open_mcp_gateway.access.policy import platform_admin
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.catalog.model import Remote, ServerSpec
from open_mcp_gateway.names import KeyId, ServerId
from tests.rawhttp import request
from tests.wire.faces import KEY, Face, local

Json: TypeAlias = dict[str, Any]
Header: TypeAlias = tuple[bytes, bytes]

OTHER_KEY: Final = b"test-key-other-2b81d0"
TWO_KEYS: Final = tuple(
    platform_admin(digest_of(key), KeyId(name))
    for name, key in (("test", KEY), ("other", OTHER_KEY))
)
MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-11-25"
VERSION: Final = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
LOG_LEVEL: Final = "io.modelcontextprotocol/logLevel"
SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"
ACCEPT: Final = (b"Accept", b"application/json, text/event-stream")
WAIT_S: Final = 60.0

_SERVERS: Final = Path(__file__).parents[1] / "servers"
_NAMED: Final = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}


def talker(server_id: str, mode: str, **settings: Any) -> ServerSpec:
    """A catalog entry for ``stdio_talker.py``."""
    return local(server_id, str(_SERVERS / "stdio_talker.py"), mode, **settings)


def mirror(server_id: str, mode: str, **settings: Any) -> ServerSpec:
    """A catalog entry for ``stdio_mirror.py``."""
    return local(server_id, str(_SERVERS / "stdio_mirror.py"), mode, **settings)


def remote(server_id: str, url: str, **settings: Any) -> ServerSpec:
    """A catalog entry for a server that runs by itself."""
    return ServerSpec(
        id=ServerId(server_id), runtime=Remote(url=url), display_name=server_id, **settings
    )


@dataclass(frozen=True)
class Event:
    """One event of a stream; ``data`` is empty in those that only carry an id."""

    data: bytes
    id: str | None = None
    kind: str | None = None

    @property
    def message(self) -> Json:
        decoded: Json = json.loads(self.data)
        return decoded


class Reply:
    """The head of an answer, and its body or events as they come."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream: BinaryIO = connection.makefile("rb")
        self._head: tuple[int, dict[str, str]] | None = None
        self._rest = b""
        self.comments = 0

    def _read_head(self) -> tuple[int, dict[str, str]]:
        if self._head is None:
            status = int(self._stream.readline().split(b" ", 2)[1])
            headers = {}
            while line := self._stream.readline().rstrip(b"\r\n"):
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            self._head = status, headers
        return self._head

    @property
    def status(self) -> int:
        return self._read_head()[0]

    @property
    def headers(self) -> dict[str, str]:
        return self._read_head()[1]

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "") == "text/event-stream"

    @property
    def body(self) -> bytes:
        assert not self.is_stream
        return self._stream.read(int(self.headers.get("content-length", "0")))

    @property
    def message(self) -> Json:
        """The one message, whether it came as a body or as the last event of a stream."""
        if self.is_stream:
            return list(self.messages())[-1]
        decoded: Json = json.loads(self.body)
        return decoded

    @property
    def result(self) -> Json:
        message = self.message
        assert "result" in message, message
        result: Json = message["result"]
        return result

    @property
    def error(self) -> Json:
        message = self.message
        assert "error" in message, message
        error: Json = message["error"]
        return error

    def text(self) -> str:
        """What a tool said."""
        text: str = self.result["content"][0]["text"]
        return text

    def events(self) -> Iterator[Event]:
        """Every event up to the end of the stream."""
        while True:
            event = self.event()
            if event is None:
                return
            yield event

    def messages(self) -> Iterator[Json]:
        """The messages in the events that have one."""
        return (event.message for event in self.events() if event.data)

    def next(self) -> Json:
        """The next message."""
        return next(iter(self.messages()))

    def event(self) -> Event | None:
        """The next event; None at the end of the stream."""
        assert self.is_stream, self.status
        while b"\n\n" not in self._rest:
            if not self._more():
                return None
        text, _, self._rest = self._rest.partition(b"\n\n")
        fields: dict[bytes, bytes] = {}
        for line in text.split(b"\n"):
            name, _, value = line.partition(b": ")
            fields[name.rstrip(b":")] = value
        if not fields.keys() & {b"data", b"id", b"event"}:
            self.comments += 1
            return self.event()
        return Event(
            fields.get(b"data", b""),
            fields[b"id"].decode() if b"id" in fields else None,
            fields[b"event"].decode() if b"event" in fields else None,
        )

    def _more(self) -> int:
        """Reads one chunk; how many bytes it has, which is 0 at the end."""
        size = int(self._stream.readline() or b"0", 16)
        self._rest += self._stream.read(size)
        self._stream.readline()
        return size

    def comment(self) -> bool:
        """Waits for a comment; False if an event comes first. Takes what was not read yet."""
        while b"\n\n" not in self._rest:
            assert self._more()
        text, _, self._rest = self._rest.partition(b"\n\n")
        return text.startswith(b":")

    def ended(self) -> bool:
        """Whether nothing more comes than the end."""
        return self.event() is None

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing at all comes for so long."""
        self._connection.settimeout(seconds)
        try:
            return self._connection.recv(1, socket.MSG_PEEK) == b"never"
        except TimeoutError:
            return True
        finally:
            self._connection.settimeout(WAIT_S)

    def leave(self) -> None:
        """Break the connection off."""
        self._stream.close()
        self._connection.close()


@dataclass
class Client:
    """One client of one server: a key, and a session or none. Each request has a connection."""

    face: Face
    server_id: str
    stack: contextlib.ExitStack
    key: bytes = KEY
    session: str | None = None
    version: str = LEGACY
    last_id: int = 0

    @property
    def path(self) -> bytes:
        return f"/servers/{self.server_id}/mcp".encode()

    def send(
        self, body: bytes, *headers: Header, method: bytes = b"POST", path: bytes | None = None
    ) -> Reply:
        """One HTTP request, with a key, with nothing else that is not given."""
        connection = socket.create_connection((self.face.host, self.face.port), WAIT_S)
        reply = Reply(connection)
        self.stack.callback(reply.leave)
        key = (b"X-API-Key", self.key)
        json_ = ((b"Content-Type", b"application/json"),) if body else ()
        where = self.path if path is None else path
        connection.sendall(request(where, key, *json_, *headers, method=method, body=body))
        return reply

    # The session era

    def headers(self) -> list[Header]:
        headers = [ACCEPT, (b"MCP-Protocol-Version", self.version.encode())]
        if self.session is not None:
            headers.append((b"Mcp-Session-Id", self.session.encode()))
        return headers

    def post(self, message: Json | list[Json], *headers: Header) -> Reply:
        """One message, or a batch, within the session."""
        return self.send(json.dumps(message).encode(), *self.headers(), *headers)

    def initialize(self, version: str = LEGACY, **capabilities: Any) -> Client:
        """Open a session."""
        reply = self.begin(version, **capabilities)
        assert reply.status == 200, reply.message
        self.session = reply.headers["mcp-session-id"]
        self.version = reply.result["protocolVersion"]
        assert self.notify("notifications/initialized").status == 202
        return self

    def begin(self, version: str = LEGACY, **capabilities: Any) -> Reply:
        """``initialize``."""
        info = {"name": "test-client", "version": "1"}
        params = {"protocolVersion": version, "capabilities": capabilities, "clientInfo": info}
        message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        return self.send(json.dumps(message).encode(), ACCEPT)

    def ask(self, method: str, params: Json | None = None, *, id: object = None) -> Reply:
        """One request within the session."""
        return self.post(self.request(method, params, id=id))

    def request(self, method: str, params: Json | None = None, *, id: object = None) -> Json:
        self.last_id += 1
        message: Json = {"jsonrpc": "2.0", "id": self.last_id if id is None else id}
        message["method"] = method
        return message if params is None else message | {"params": params}

    def call(self, tool: str, *, id: object = None, meta: Json | None = None, **more: Any) -> Reply:
        """One call of a tool within the session."""
        params: Json = {"name": tool, "arguments": more}
        if meta is not None:
            params["_meta"] = meta
        return self.ask("tools/call", params, id=id)

    def notify(self, method: str, params: Json | None = None) -> Reply:
        message: Json = {"jsonrpc": "2.0", "method": method}
        return self.post(message if params is None else message | {"params": params})

    def answer(self, question: Json, result: Json) -> None:
        """The answer to a question of the server."""
        reply = self.post({"jsonrpc": "2.0", "id": question["id"], "result": result})
        assert reply.status == 202, reply.message

    def listen(self, last_event_id: str | None = None) -> Reply:
        """The GET stream, or one that is picked up again."""
        more = () if last_event_id is None else ((b"Last-Event-ID", last_event_id.encode()),)
        reply = self.send(b"", *self.headers(), *more, method=b"GET")
        assert reply.status == 200, reply.message
        return reply

    def end(self) -> int:
        """DELETE."""
        return self.send(b"", *self.headers(), method=b"DELETE").status

    # The stateless era

    def modern(
        self,
        method: str,
        params: Json | None = None,
        *headers: Header,
        id: object = None,
        meta: Json | None = None,
    ) -> Reply:
        """One stateless request, with the headers that it needs."""
        whole = dict(params or {})
        own = {VERSION: MODERN, CAPABILITIES: {}} | (meta or {})
        message = self.request(method, whole | {"_meta": own}, id=id)
        routing = [(b"MCP-Protocol-Version", MODERN.encode()), (b"Mcp-Method", method.encode())]
        named = whole.get(_NAMED.get(method, ""))
        if named is not None:
            routing.append((b"Mcp-Name", str(named).encode()))
        return self.send(json.dumps(message).encode(), ACCEPT, *routing, *headers)

    def tool(self, tool: str, *, meta: Json | None = None, id: object = None, **more: Any) -> Reply:
        """One stateless call of a tool."""
        return self.modern("tools/call", {"name": tool, "arguments": more}, meta=meta, id=id)

    def subscribe(self, **wanted: Any) -> Reply:
        """``subscriptions/listen``."""
        reply = self.modern("subscriptions/listen", {"notifications": wanted})
        assert reply.next()["method"] == "notifications/subscriptions/acknowledged"
        return reply
