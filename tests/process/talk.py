"""Talking to a running gateway over HTTP, and looking at the processes it has."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gateway import Gateway, start_gateway

SERVER = Path(__file__).parents[1] / "servers" / "stdio_server.py"
KEY = "test-key-0123456789abcdef"
PATIENCE_S = 60.0
OWNER = b"OPEN_MCP_GATEWAY_OWNER="
_META = "io.modelcontextprotocol/"

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    """Names in lower case."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def result(self) -> Any:
        assert self.status == 200, self.body
        assert "error" not in self.json, self.body
        return self.json["result"]

    @property
    def error(self) -> Json:
        """The JSON-RPC error."""
        error: Json = self.json["error"]
        assert isinstance(error, dict), self.body
        return error

    @property
    def text(self) -> str:
        """The text of a tool's first content block."""
        text: str = self.result["content"][0]["text"]
        return text


class Caller:
    """Calls a gateway, each on a connection of its own, with ``key`` if there is one."""

    def __init__(self, host: str, port: int, key: str | None = KEY) -> None:
        self.host = host
        self.port = port
        self.key = key

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        sent = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        data = None
        if body is not None:
            sent["Content-Type"] = "application/json"
            data = json.dumps(body)
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, data, sent | dict(headers or {}))
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, response.read(), names)

    def get(self, path: str) -> Answer:
        return self.send("GET", path)

    def post(self, path: str) -> Answer:
        return self.send("POST", path)

    def call(self, server: str, method: str, params: Json | None = None, id: object = 7) -> Answer:
        """One MCP request in the gateway's envelope."""
        envelope: Json = {"server_id": server, "jsonrpc": "2.0", "id": id, "method": method}
        if params is not None:
            envelope["params"] = params
        return self.send("POST", "/mcp", envelope)

    def tool(self, server: str, name: str, **arguments: object) -> Answer:
        return self.call(server, "tools/call", {"name": name, "arguments": arguments})

    def begin(self, server: str, name: str, **arguments: object) -> http.client.HTTPConnection:
        """A tool call that was sent; its answer is the caller's to read, or to hang up on."""
        params = {"name": name, "arguments": arguments}
        envelope = {"server_id": server, "id": 7, "method": "tools/call", "params": params}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        connection.request("POST", "/mcp", json.dumps(envelope), headers)
        return connection

    def open(self, server: str, revision: str, *, sessions: bool) -> None:
        """Have a server running in the era of ``revision``, once it has answered.

        Clients probe with a time limit of their own, in which a server may not have started yet.
        """
        path = f"/servers/{server}/mcp"
        info = {"name": "test-client", "version": "1"}
        message: Json = {"jsonrpc": "2.0", "id": 0}
        headers = {"Accept": "application/json, text/event-stream"}
        if sessions:
            params: Json = {"protocolVersion": revision, "capabilities": {}, "clientInfo": info}
            answer = self.send(
                "POST", path, message | {"method": "initialize", "params": params}, headers
            )
            assert answer.status == 200, answer.body
            ends = {"Mcp-Session-Id": answer.headers["mcp-session-id"]}
            assert self.send("DELETE", path, headers=ends).status == 204
            return
        own = {f"{_META}protocolVersion": revision, f"{_META}clientCapabilities": {}}
        message |= {"method": "server/discover", "params": {"_meta": own}}
        headers |= {"MCP-Protocol-Version": revision, "Mcp-Method": "server/discover"}
        answer = self.send("POST", path, message, headers)
        assert revision in answer.result["supportedVersions"]

    def shown(self, server: str) -> Json:
        """What ``GET /servers/{id}`` says."""
        answer: Json = self.get(f"/servers/{server}").json
        return answer

    def status(self, server: str) -> str:
        return str(self.shown(server)["status"])


@dataclass
class Running:
    """A gateway under test and a way to call it."""

    gateway: Gateway
    caller: Caller

    @property
    def pid(self) -> int:
        return self.gateway.process.pid

    def log(self, message: str) -> list[Json]:
        """The log lines with this message so far."""
        return [line for line in self.gateway.log() if line["message"] == message]

    def starts(self, server: str) -> list[int]:
        """The pid of every process that was started for ``server``."""
        return [line["pid"] for line in self.log("process started") if line["server"] == server]

    def as_caller(self, key: str | None) -> Caller:
        return Caller(self.gateway.host, self.gateway.port, key)


@contextmanager
def run_gateway(
    directory: Path,
    servers: list[Json],
    config: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    *,
    key: str | None = KEY,
) -> Iterator[Running]:
    """``serve`` with these servers; ``key`` None leaves its configuration to ``config``."""
    settings = ({} if key is None else {"api_key": key}) | dict(config or {})
    with start_gateway(directory, settings, {"servers": servers}, env) as gateway:
        yield Running(gateway, Caller(gateway.host, gateway.port))


def entry(id: str, command: list[str], **more: object) -> Json:
    """A catalog entry of a local process."""
    runtime = {"type": "local-process", "command": command[0], "args": command[1:]}
    return {"id": id, "runtime": runtime, **more}


def odd_server(mode: str, pids: Path | None = None, id: str | None = None, **more: object) -> Json:
    """A catalog entry for a mode of ``tests/servers/stdio_server.py``, by the mode's name."""
    command = [sys.executable, "-S", str(SERVER), mode] + ([] if pids is None else [str(pids)])
    return entry(id or mode, command, **more)


def wait_until(
    true: Callable[[], object], what: str, within_s: float = PATIENCE_S, every_s: float = 0.02
) -> None:
    """Ask until the answer is yes: for process tables and states that announce nothing."""
    give_up_at = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < give_up_at, f"not within {within_s} s: {what}"
        time.sleep(every_s)


def owned_by(pid: int) -> list[int]:
    """The processes, zombies apart, that the gateway ``pid`` started, or that those started."""
    return [int(one.name) for one in Path("/proc").glob("[0-9]*") if _owner(one) == pid]


def _owner(process: Path) -> int | None:
    try:
        marks = [
            part.removeprefix(OWNER)
            for part in (process / "environ").read_bytes().split(b"\0")
            if part.startswith(OWNER)
        ]
        state = (process / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except OSError:
        return None
    return int(marks[0].split(b"-")[0]) if marks and state not in "ZX" else None


def at_once(count: int, work: Callable[[], Answer]) -> list[Answer]:
    """``work`` by so many callers at the same time."""
    with ThreadPoolExecutor(count) as threads:
        return [done.result() for done in [threads.submit(work) for _ in range(count)]]


@contextmanager
def meanwhile(work: Callable[[], Answer]) -> Iterator[Future[Answer]]:
    """``work`` in another thread; it must have come to its end by the end of the block."""
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(work)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
