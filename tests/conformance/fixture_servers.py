"""The servers under ``fixtures/``, as processes of their own and as catalog entries."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from tests.environments import ROOT, python_of

START_S: Final = 30.0
ENVIRONMENTS: Final = {
    "dual_everything": "mcp2",
    "modern_everything": "mcp2",
    "legacy_everything": "mcp1",
    "tasks_server": "mcp2",
}
PATHS: Final = {"http": "/mcp", "sse": "/sse"}


def command(fixture: str, *arguments: str) -> list[str]:
    """How to start a fixture; its working directory or ``PYTHONPATH`` is the checkout."""
    python = python_of(ENVIRONMENTS[fixture])
    return [str(python), "-m", f"tests.conformance.fixtures.{fixture}", *arguments]


@contextmanager
def listening(fixture: str, transport: str, log: Path) -> Iterator[str]:
    """A fixture's URL, once it listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command(fixture, transport, str(port)),
            cwd=ROOT,
            env=dict(os.environ) | {"PYTHONWARNINGS": "ignore"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        _await_port(port, process, log)
        yield f"http://localhost:{port}{PATHS[transport]}"
    finally:
        process.kill()
        process.wait()


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(log.read_text("utf-8", "replace")[-2000:]) from None
            time.sleep(0.02)
        else:
            return


def stdio_entry(fixture: str, server_id: str) -> dict[str, Any]:
    """A catalog entry that starts a fixture as a child process."""
    program, *arguments = command(fixture, "stdio")
    runtime = {"type": "local-process", "command": program, "args": arguments}
    environment = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    return {"id": server_id, "runtime": runtime, "env": environment}


def remote_entry(url: str, server_id: str, transport: str = "http") -> dict[str, Any]:
    """A catalog entry of a server that runs by itself."""
    return {"id": server_id, "runtime": {"type": f"remote-{transport}", "url": url}}
