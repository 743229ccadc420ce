"""The real program told to stop while clients are in every possible state."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from tests.gateway import Gateway, start_gateway
from tests.rawhttp import Wire, connect, request
from tests.wire.faces import HOT, Face, call, echo, echoed, face, server

KEY: Final = "test-key-faces-7f3a9c"
"""That of ``faces.call``."""

SOON_S: Final = 60.0
_SERVER: Final = Path(__file__).parents[1] / "servers" / "stdio_server.py"


def entry(mode: str, pids: Path, **settings: Any) -> dict[str, Any]:
    runtime = {
        "type": "local-process",
        "command": sys.executable,
        "args": ["-S", str(_SERVER), mode, str(pids)],
    }
    return {"id": mode, "runtime": runtime, **settings}


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    path = tmp_path / "pids"
    path.touch()
    return path


@pytest.fixture
def gateway(tmp_path: Path, pids: Path) -> Iterator[Gateway]:
    """Stopped by each test itself; that it ends with 0 and leaves no process is checked here."""
    servers = [
        entry("echo", pids),
        entry("never_answers", pids),
        entry("slow_start", pids, env={"TEST_SLOW_START_S": "60"}, request_timeout_seconds=2),
        entry("huge_reply", pids),
    ]
    with start_gateway(tmp_path, {"api_key": KEY}, {"servers": servers}) as running:
        yield running
        assert running.process.wait(SOON_S) == 0
    left = [pid for pid in map(int, pids.read_text("ascii").split()) if _alive(pid)]
    assert left == []


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until(condition: Callable[[], bool], within_s: float = SOON_S) -> None:
    """Wait for another process."""
    ends = time.perf_counter() + within_s
    while not condition():
        assert time.perf_counter() < ends, "did not come true"
        threading.Event().wait(0.01)


def stop(gateway: Gateway) -> None:
    """Tell it to stop, and wait until nobody new can come in."""
    gateway.process.send_signal(signal.SIGTERM)
    until(lambda: _refused(gateway))


def _refused(gateway: Gateway) -> bool:
    try:
        socket.create_connection((gateway.host, gateway.port), SOON_S).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # it came in as the door was shut; the next one is told
    return False


def begun(gateway: Gateway, server_id: str) -> int:
    """Requests that the server was given so far."""
    with connect(gateway.host, gateway.port) as wire:
        wire.send(request(b"/stats", (b"X-API-Key", KEY.encode())))
        servers = json.loads(wire.receive().body)["servers"]
    return int(servers[server_id]["request_count"])


@contextlib.contextmanager
def calling(gateway: Gateway, raw: bytes, server_id: str = "echo") -> Iterator[Wire]:
    """A connection whose call is on its way to a server that runs."""
    with connect(gateway.host, gateway.port) as wire:
        wire.send(call(server_id, method="ping"))
        assert wire.receive().status == 200
        before = begun(gateway, server_id)
        wire.send(raw)
        until(lambda: begun(gateway, server_id) > before)
        yield wire


SLEEP: Final = call("echo", params={"name": "sleep", "arguments": {"seconds": 3}}, message_id="z")


def test_a_call_in_flight_completes(gateway: Gateway) -> None:
    with calling(gateway, SLEEP) as wire:
        stop(gateway)
        answer = wire.receive()
        assert echoed(answer) == ("z", "slept")
        assert answer.all("connection") == ["close"]
        assert wire.ended()


def test_all_that_has_arrived_is_answered(gateway: Gateway) -> None:
    """Pipelined behind the call in flight; the last answer says that the connection ends."""
    with calling(gateway, SLEEP + echo("two") + request(b"/health") + echo("four")) as wire:
        stop(gateway)
        answers = [wire.receive() for _ in range(4)]
        assert [answer.status for answer in answers] == [200] * 4
        assert echoed(answers[1]) == (1, "two")
        assert [answer.all("connection") for answer in answers] == [[], [], [], ["close"]]
        assert wire.ended()


def test_a_request_that_is_arriving_completes(gateway: Gateway) -> None:
    raw = echo("in two halves")
    with connect(gateway.host, gateway.port) as wire:
        wire.send(call("echo", method="ping"))
        wire.receive()
        wire.send(raw[:-10])
        wire.send(b"")
        # The answer to this one, on another connection, was written after the half was read.
        assert begun(gateway, "echo") == 1
        stop(gateway)
        wire.send(raw[-10:])
        answer = wire.receive()
        assert echoed(answer) == (1, "in two halves")
        assert answer.all("connection") == ["close"]
        assert wire.ended()


def test_a_large_answer_is_written_to_its_end(gateway: Gateway) -> None:
    size = 20_000_000
    big = call("huge_reply", params={"name": "any", "arguments": {"size": size}})
    with calling(gateway, big, "huge_reply") as wire:
        wire.connection.recv(1, socket.MSG_PEEK)
        stop(gateway)
        assert len(echoed(wire.receive())[1]) == size
        assert wire.ended()


def test_idle_connections_do_not_hold_it_up(gateway: Gateway) -> None:
    with connect(gateway.host, gateway.port) as fresh, connect(gateway.host, gateway.port) as used:
        used.send(request(b"/health"))
        assert used.receive().status == 200
        fresh.send(b"GET /hea")
        begins = time.perf_counter()
        gateway.process.send_signal(signal.SIGTERM)
        assert used.ended()
        assert fresh.ended()
        assert gateway.process.wait(SOON_S) == 0
        assert time.perf_counter() - begins < 8  # slow clients are waited for 10 s


def test_a_request_that_waits_for_its_server(gateway: Gateway) -> None:
    """Its own deadline ends it; the server, still starting, goes with the gateway."""
    with connect(gateway.host, gateway.port) as wire:
        wire.send(call("slow_start", method="ping", message_id="w"))
        until(lambda: _status(gateway, "slow_start") == "starting")
        stop(gateway)
        answer = wire.receive()
        assert answer.status == 504
        assert json.loads(answer.body)["id"] == "w"
        assert wire.ended()


def _status(gateway: Gateway, server_id: str) -> str:
    with connect(gateway.host, gateway.port) as wire:
        wire.send(request(b"/stats", (b"X-API-Key", KEY.encode())))
        return str(json.loads(wire.receive().body)["servers"][server_id]["status"])


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_patience(gateway: Gateway, second: signal.Signals) -> None:
    raw = call("never_answers", params={"name": "x"})
    with calling(gateway, raw, "never_answers") as wire, connect(gateway.host, gateway.port) as two:
        two.send(call("slow_start", method="ping"))
        until(lambda: _status(gateway, "slow_start") == "starting")
        stop(gateway)
        gateway.process.send_signal(second)
        assert wire.receive().status == 0
        assert two.receive().status == 0
        assert gateway.process.wait(SOON_S) == 0
    messages = [line["message"] for line in gateway.log()]
    assert [one for one in messages if one.startswith("stop")] == [
        "stopping",
        "stopping at once",
        "stopped",
    ]


def test_ctrl_c_is_a_stop_like_any_other(gateway: Gateway) -> None:
    with calling(gateway, SLEEP) as wire:
        gateway.process.send_signal(signal.SIGINT)
        assert echoed(wire.receive()) == ("z", "slept")


def test_a_client_that_only_connects_to_tls(tmp_path: Path, pids: Path) -> None:
    """A handshake that never goes on does not hold up the end."""
    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    tls = {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    config = {"api_key": KEY, "tls": tls}
    catalog = {"servers": [entry("echo", pids)]}
    with (
        start_gateway(tmp_path, config, catalog) as gateway,
        socket.create_connection((gateway.host, gateway.port)) as mute,
    ):
        mute.sendall(b"\x16\x03")
        stop(gateway)
        assert gateway.process.wait(SOON_S) == 0


# Inside


@pytest.fixture(params=HOT)
def front(request: pytest.FixtureRequest) -> Iterator[Face]:
    with face(request.param, server("echo", "echo")) as running:
        yield running


def test_draining_shows(front: Face) -> None:
    assert front.ask(request(b"/ready")).status == 200
    front.inside(front.gateway.begin_drain)
    answer = front.ask(request(b"/ready"))
    assert (answer.status, json.loads(answer.body)) == (503, {"status": "draining"})
    assert answer.all("retry-after") == ["1"]
    assert front.ask(request(b"/health")).status == 200
    assert front.ask(echo("still welcome")).status == 200


def test_the_request_that_begins_while_draining_is_the_last(front: Face) -> None:
    with front.connect() as wire:
        wire.send(echo("x")[:-5])
        front.until(lambda: any(one.intake.reading is not None for one in front.connections()))
        for connection in front.connections():
            front.inside(connection.shutdown)
        wire.send(echo("x")[-5:] + echo("last") + echo("one too many"))
        assert echoed(wire.receive()) == (1, "x")
        assert echoed(wire.receive()) == (1, "last")
        assert wire.ended()


def test_lingering_does_not_hold_up_the_end(front: Face) -> None:
    with front.connect() as wire:
        raw = request(b"/mcp", (b"Transfer-Encoding", b"chunked"), method=b"POST")
        wire.send(raw)
        assert wire.receive().status == 401
        (connection,) = front.connections()
        front.inside(connection.shutdown)
        front.until(lambda: not front.connections())
