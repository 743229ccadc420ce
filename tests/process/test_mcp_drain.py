"""SIGTERM while clients of every kind are there: calls end first, and nothing else holds it up."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tests.gateway import Gateway, start_gateway
from tests.process.talk import Caller, wait_until
from tests.wire.faces import KEY, Face
from tests.wire.mcp_client import Client

SERVERS = Path(__file__).parents[1] / "servers"


@dataclass
class Place:
    """Where the program listens."""

    host: str
    port: int


def entry(server_id: str, script: str, mode: str) -> dict[str, Any]:
    arguments = ["-S", str(SERVERS / script), mode]
    runtime = {"type": "local-process", "command": sys.executable, "args": arguments}
    return {"id": server_id, "runtime": runtime}


def test_a_stop_waits_for_calls_and_for_nothing_else(tmp_path: Path) -> None:
    catalog = {
        "servers": [
            entry("slow", "stdio_server.py", "echo"),
            entry("legacy", "stdio_talker.py", "legacy"),
            entry("modern", "stdio_talker.py", "modern"),
        ]
    }
    config = {"api_key": KEY.decode()}
    with (
        start_gateway(tmp_path, config, catalog) as gateway,
        contextlib.ExitStack() as stack,
    ):
        # Of a running gateway's inside the client needs nothing but where it is.
        place = cast(Face, Place(gateway.host, gateway.port))

        def client(server_id: str) -> Client:
            return Client(place, server_id, stack)

        for _ in range(3):
            client("legacy").initialize(roots={})
        session = client("slow").initialize()
        standing = client("legacy").initialize().listen()
        assert standing.event() is not None
        listen = client("modern").subscribe(toolsListChanged=True)
        sse = client("legacy").send(b"", method=b"GET", path=b"/servers/legacy/sse")
        assert sse.event() is not None
        before = _calls(gateway, "slow")
        running = session.call("sleep", seconds=4)
        wait_until(lambda: _calls(gateway, "slow") > before, "it is in flight")
        gateway.process.terminate()
        assert standing.ended()
        assert sse.ended()
        (last,) = listen.messages()
        assert last["result"]["resultType"] == "complete"
        assert running.is_silent(0.001), "the call goes on all the time"
        assert "result" in running.message
        assert gateway.process.wait(60) == 0


def _calls(gateway: Gateway, server_id: str) -> int:
    """Requests that the server was given so far."""
    caller = Caller(gateway.host, gateway.port, gateway.key)
    return int(caller.get("/stats").json["servers"][server_id]["request_count"])


def test_nobody_has_to_be_waited_for(tmp_path: Path) -> None:
    catalog = {"servers": [entry("legacy", "stdio_talker.py", "legacy")]}
    with start_gateway(tmp_path, {}, catalog) as gateway, contextlib.ExitStack() as stack:
        place = cast(Face, Place(gateway.host, gateway.port))
        idle = [Client(place, "legacy", stack).initialize() for _ in range(20)]
        streams = [one.listen() for one in idle]
        for stream in streams:
            assert stream.event() is not None
        began_s = time.perf_counter()
        gateway.process.terminate()
        assert all(stream.ended() for stream in streams)
        assert gateway.process.wait(60) == 0
        assert time.perf_counter() - began_s < 8, "slow clients are waited for 10 s"
