"""``gateway-stdio`` in its own process, spoken to by hand."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

PATIENCE_S = 60.0
VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
STATELESS = {"_meta": {VERSION: "2026-07-28", CAPABILITIES: {}}}

Json = dict[str, Any]


class Program:
    """A running ``gateway-stdio``: lines in, lines out."""

    def __init__(self, process: subprocess.Popen[bytes], *, read: bool) -> None:
        self.process = process
        self.stderr: list[str] = []
        self._out: queue.Queue[bytes | None] = queue.Queue()
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdin: IO[bytes] = process.stdin
        self.stdout: IO[bytes] = process.stdout
        self._threads = [threading.Thread(target=self._note, args=(process.stderr,), daemon=True)]
        if read:
            self._threads.append(threading.Thread(target=self._read, daemon=True))
        for thread in self._threads:
            thread.start()

    def _note(self, stream: IO[bytes]) -> None:
        self.stderr.extend(line.decode("utf-8", "replace").rstrip() for line in stream)

    def _read(self) -> None:
        for line in self.stdout:
            self._out.put(line)
        self._out.put(None)

    def write(self, data: bytes) -> None:
        self.stdin.write(data)
        self.stdin.flush()

    def send(self, method: str, params: Json | None = None, id: object = 1) -> None:
        self.write(line_of(method, params, id))

    def notify(self, method: str, params: Json | None = None) -> None:
        message: Json = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = params
        self.write(json.dumps(message).encode() + b"\n")

    def call(self, name: str, id: object = 1, **arguments: object) -> None:
        self.send("tools/call", {"name": name, "arguments": arguments}, id)

    def receive(self) -> Json:
        """The next message; each is one line of JSON-RPC and nothing else is on stdout."""
        message: Json = self.receive_any()
        assert message["jsonrpc"] == "2.0"
        return message

    def receive_any(self) -> Any:
        """The next line, which may be an array of messages."""
        line = self._out.get(timeout=PATIENCE_S)
        assert line is not None, f"stdout ended; stderr: {self.stderr}"
        assert line.endswith(b"\n")
        return json.loads(line)

    def ask(self, method: str, params: Json | None = None, id: object = 1) -> Json:
        self.send(method, params, id)
        message = self.receive()
        assert message["id"] == id
        return message

    def error(self, method: str, params: Json | None = None, id: object = 1) -> Json:
        """The error that a request is answered with."""
        error: Json = self.ask(method, params, id)["error"]
        return error

    def ended(self) -> int:
        """Wait for the end; says the exit code. Nothing more may have come on stdout."""
        code = self.process.wait(PATIENCE_S)
        if len(self._threads) > 1:
            assert self._out.get(timeout=PATIENCE_S) is None
        return code

    def close(self) -> int:
        """Close stdin and wait for the end."""
        self.stdin.close()
        return self.ended()

    def stop(self) -> None:
        """Clean up after a test, however it went. Killed by force, what it started ends as well."""
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for stream in (self.stdin, self.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def line_of(method: str, params: Json | None = None, id: object = 1) -> bytes:
    """A request as one line."""
    message: Json = {"jsonrpc": "2.0", "id": id, "method": method}
    if params is not None:
        message["params"] = params
    return json.dumps(message).encode() + b"\n"


@contextmanager
def run_stdio(
    *options: str, env: Mapping[str, str] | None = None, read: bool = True
) -> Iterator[Program]:
    """``gateway-stdio`` with these options; without ``read`` nobody reads its stdout."""
    process = subprocess.Popen(
        [sys.executable, "-m", "open_mcp_gateway", "stdio", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ) | dict(env or {}),
    )
    program = Program(process, read=read)
    try:
        yield program
    finally:
        program.stop()
