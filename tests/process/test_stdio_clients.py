"""``gateway-stdio`` in both its modes, in front of servers that misbehave and a client that does
everything wrong."""

from __future__ import annotations

import array
import fcntl
import json
import signal
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from tests.environments import node_program
from tests.process.stdio_peers import is_running, pids_in
from tests.process.stdio_program import (
    PATIENCE_S,
    STATELESS,
    Json,
    Program,
    line_of,
    run_stdio,
)
from tests.process.talk import KEY, Running, entry, odd_server, owned_by, run_gateway, wait_until

KEY_VARIABLE = "MCP_GATEWAY_API_KEY"
SECRET = "test-secret-value"
SESSIONS = "2025-11-25"
MODERN = "2026-07-28"

Start = Callable[..., AbstractContextManager[Program]]
"""``gateway-stdio`` for one server, in the mode under test."""


def servers_in(folder: Path) -> list[Json]:
    modes = (
        "echo",
        "echo_modern",
        "noisy_stdout",
        "crash_mid_call",
        "never_answers",
        "huge_reply",
    )
    return [
        entry("everything", node_program("mcp-server-everything")),
        entry("absent", ["/nonexistent/program"]),
        odd_server("crash_at_start", env={"TOKEN": "${TEST_TOKEN}"}),
        *(odd_server(mode, folder / f"{mode}.pids") for mode in modes),
    ]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway with a key, and the catalog that both modes use."""
    folder = tmp_path_factory.mktemp("stdio")
    env = {"TEST_TOKEN": SECRET, KEY_VARIABLE: KEY}
    with run_gateway(folder, servers_in(folder), env=env) as gateway:
        yield gateway


def options_for(mode: str, running: Running) -> list[str]:
    if mode == "gateway":
        return ["--gateway", running.gateway.url]
    return ["--catalog", str(running.gateway.catalog_path)]


@pytest.fixture(params=["catalog", "gateway"])
def start(request: pytest.FixtureRequest, running: Running) -> Start:
    def begin(server: str, *options: str, read: bool = True) -> AbstractContextManager[Program]:
        env = {KEY_VARIABLE: KEY, "TEST_TOKEN": SECRET}
        mode = options_for(request.param, running)
        return run_stdio("--server", server, *mode, *options, env=env, read=read)

    return begin


def in_process(folder: Path, *servers: Json) -> Callable[..., AbstractContextManager[Program]]:
    """``gateway-stdio --catalog`` with a catalog of its own; takes the server's id."""
    catalog = folder / "catalog.yaml"
    catalog.write_text(yaml.safe_dump({"servers": list(servers)}), "utf-8")

    def begin(server: str, read: bool = True) -> AbstractContextManager[Program]:
        return run_stdio("--server", server, "--catalog", str(catalog), read=read)

    return begin


# Errors in words and codes that clients know


def test_an_unknown_server(start: Start) -> None:
    with start("nobody") as program:
        error = program.error("tools/list", id="a-1")
        assert error["code"] == -32001
        assert error["message"] == "Server 'nobody' not found in catalog"

        error = program.error("tools/list", STATELESS, id=2)
        assert error["code"] == -32603
        assert error["data"]["code"] == -32001
        assert error["data"]["message"] == "Server 'nobody' not found in catalog"
        assert program.close() == 0


def test_a_server_that_cannot_start(start: Start) -> None:
    with start("crash_at_start") as program:
        error = program.error("initialize", {"protocolVersion": SESSIONS})
        assert error["code"] == -32002
        assert error["message"].startswith("Failed to connect to server: Server 'crash_at_start' ")
        assert "exited with code 3" in error["message"]
        assert "cannot open database" in error["message"]
        assert SECRET not in json.dumps(error)

        error = program.error("tools/list", STATELESS, id=2)
        assert error["code"] == -32603
        assert error["data"]["code"] == -32002
        assert "Failed to connect to server: " in error["data"]["message"]
        assert program.close() == 0
        assert SECRET not in "".join(program.stderr)


def test_a_program_that_does_not_exist(start: Start) -> None:
    with start("absent") as program:
        error = program.error("ping")
        assert error["code"] == -32002
        assert "'/nonexistent/program' does not exist" in error["message"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{not json", -32700),
        (b"\xff\xfe", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"\xff"}}', -32700),
        (b'{"id":' + b"[" * 100_000 + b"]" * 100_000 + b"}", -32700),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
        (b"42", -32600),
        (b'{"jsonrpc":"2.0"}', -32600),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
    ],
    ids=["json", "bytes", "utf8", "deep", "batch", "number", "no-method", "float", "null"],
)
def test_what_cannot_be_read_has_no_id(start: Start, line: bytes, code: int) -> None:
    with start("echo") as program:
        program.write(line + b"\n")
        answer = program.receive()
        assert answer["id"] is None
        assert answer["error"]["code"] == code
        assert program.ask("ping")["result"] == {}


def test_no_line_ends_the_program(start: Start) -> None:
    """What is read more than once is read from different depths of the stack: where the first
    reading gets through, the next must not fail."""
    digits = b"1" * 5_000
    with start("echo") as program:
        program.write(
            b'{"jsonrpc":"2.0","id":"digits","method":"tools/call","params":{"name":"echo",'
            b'"arguments":{"text":"x","n":%b,"s":"\\u0041"} }}\n' % digits
        )
        assert program.receive()["id"] == "digits"
        for levels in [*range(500, 900, 80), *range(900, 1000)]:
            nested = b"[" * levels + b"]" * levels
            for line in (
                b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"a":%b}}}',
                b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":'
                b'{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
                b'"io.modelcontextprotocol/clientCapabilities":{"a":%b}}}}',
            ):
                program.write(line % nested + b"\n")
                program.receive()
        assert program.ask("ping", id=2)["result"] == {}


def test_a_request_that_is_wrong_keeps_its_id(start: Start) -> None:
    with start("echo") as program:
        for line in (
            b'{"jsonrpc":"1.0","id":"x","method":"ping"}\r\n',
            b'{"id":"x","method":"ping"}\n',
            b'{"jsonrpc":"2.0","id":"x","method":"ping","method":"ping"}\n',
        ):
            program.write(line)
            answer = program.receive()
            assert (answer["id"], answer["error"]["code"]) == ("x", -32600)
        program.write(b'{"jsonrpc":"2.0","id":2,"method":"tools/list","params":[1]}\n')
        answer = program.receive()
        assert (answer["id"], answer["error"]["code"]) == (2, -32600)


def test_an_error_of_the_server_passes_as_it_is(start: Start) -> None:
    with start("echo") as program:
        assert program.error("no/such") == {
            "code": -32601,
            "message": "Method not found: no/such",
        }


def test_nothing_answers_notifications_responses_and_blank_lines(start: Start) -> None:
    with start("echo") as program:
        program.notify("notifications/initialized")
        program.notify("notifications/cancelled", {"requestId": 99})
        program.notify("notifications/cancelled")
        program.write(b'{"jsonrpc":"2.0","id":5,"result":{}}\n')
        program.write(b'{"jsonrpc":"2.0","id":6,"error":{"code":1,"message":"no"}}\n')
        program.write(b"\n  \r\n\t\n")
        assert program.ask("ping", id="after")["result"] == {}
        assert program.close() == 0


def test_only_protocol_is_on_stdout(start: Start) -> None:
    """Not the noise of the server, and not what the gateway logs."""
    with start("noisy_stdout", "--log-level", "trace") as program:
        assert len(program.ask("tools/list")["result"]["tools"]) == 3
        program.call("add", a=1, b=1)
        assert program.receive()["result"]["content"][0]["text"] == "2"
        assert program.close() == 0
        assert KEY not in "".join(program.stderr)


# The end


def test_the_end_of_stdin_waits_for_the_answers(start: Start) -> None:
    with start("echo") as program:
        program.call("sleep", id=1, seconds=0.5)
        program.call("echo", id=2, text="last")
        program.stdin.close()
        texts = {
            answer["id"]: answer["result"]["content"][0]["text"]
            for answer in (program.receive(), program.receive())
        }
        assert texts == {1: "slept", 2: "last"}
        assert program.ended() == 0


def test_the_last_line_needs_no_line_end(start: Start) -> None:
    with start("echo") as program:
        program.write(line_of("ping").rstrip(b"\n"))
        program.stdin.close()
        assert program.receive()["result"] == {}
        assert program.ended() == 0


@pytest.mark.parametrize("mode", ["never_answers", "ignores_sigterm", "leaves_grandchild"])
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "eof"])
def test_no_process_is_left(tmp_path: Path, mode: str, how: str) -> None:
    # A client sends SIGTERM 2 s after closing stdin, and SIGKILL as long after that. A machine with
    # other work may be slower than that once, but not each time.
    assert any(_stop_s(tmp_path / str(attempt), mode, how) < 4 for attempt in range(3))


def _stop_s(folder: Path, mode: str, how: str) -> float:
    """How long the program takes to end; none of its processes is left then."""
    folder.mkdir()
    pids = folder / "pids"
    with in_process(folder, odd_server(mode, pids))(mode) as program:
        assert program.ask("ping")["result"] == {}
        assert all(is_running(pid) for pid in pids_in(pids))
        began_s = time.monotonic()
        if how == "eof":
            program.stdin.close()
        else:
            program.process.send_signal(signal.Signals[how])
        assert program.ended() == 0
        took_s = time.monotonic() - began_s
        assert not [pid for pid in pids_in(pids) if is_running(pid)]
    return took_s


def test_sigterm_while_servers_stop_changes_nothing(tmp_path: Path) -> None:
    """As clients do it: stdin closed, and SIGTERM when it takes too long."""
    pids = tmp_path / "pids"
    with in_process(tmp_path, odd_server("ignores_stdin_eof", pids))(
        "ignores_stdin_eof"
    ) as program:
        assert program.ask("ping")["result"] == {}
        program.stdin.close()
        # stdout ends with the program only, so its stop has nothing to wait for but the server.
        wait_until(lambda: _stdin_is_closed(pids_in(pids)[0]), "the server's stdin is closed")
        program.process.terminate()
        assert program.ended() == 0
        assert not is_running(pids_in(pids)[0])


def _stdin_is_closed(pid: int) -> bool:
    """Whether nobody holds the other end of the pipe that is its stdin any more."""
    pipe = Path(f"/proc/{pid}/fd/0").readlink()
    holders = 0
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            holders += sum(fd.readlink() == pipe for fd in folder.iterdir())
        except OSError:
            continue
    return holders == 1


def test_sigterm_during_a_call(start: Start) -> None:
    with start("never_answers") as program:
        program.call("echo")
        assert program.ask("ping", id=2)["result"] == {}
        program.process.terminate()
        told = program.receive()
        assert told["id"] == 1
        assert "may have taken effect" in told["error"]["message"]
        assert program.ended() == 0


def test_a_client_that_does_not_read(tmp_path: Path) -> None:
    """Fills the pipe and the memory it may fill; the program can still be ended."""
    pids = tmp_path / "pids"
    begin = in_process(tmp_path, odd_server("huge_reply", pids))
    with begin("huge_reply", read=False) as program:
        for number in range(20):
            program.call("x", id=number, size=500_000)
        wait_until(pids.exists, "the server runs")
        wait_until(lambda: _bytes_waiting(program) > 0, "the first answer")
        program.process.terminate()
        assert program.process.wait(PATIENCE_S) == 0
        assert not [pid for pid in pids_in(pids) if is_running(pid)]


def _bytes_waiting(program: Program) -> int:
    size = array.array("i", [0])
    fcntl.ioctl(program.stdout.fileno(), termios.FIONREAD, size)
    return size[0]


def test_a_client_that_is_gone(tmp_path: Path) -> None:
    """Its end of stdout is closed, stdin is not: there is nobody to serve."""
    pids = tmp_path / "pids"
    with in_process(tmp_path, odd_server("echo", pids))("echo", read=False) as program:
        program.stdout.close()
        program.send("ping")
        assert program.process.wait(PATIENCE_S) == 0
        assert "Traceback" not in "".join(program.stderr)
        assert not [pid for pid in pids_in(pids) if is_running(pid)]


# Many at once, big ones, and changes of mind


def test_requests_run_side_by_side(start: Start) -> None:
    with start("everything") as program:
        program.call("trigger-long-running-operation", id="slow", duration=1.5, steps=1)
        for number in range(100):
            program.call("echo", id=number, message=f"m{number}")
        answers = [program.receive() for _ in range(101)]
        assert answers[-1]["id"] == "slow"
        texts = {one["id"]: one["result"]["content"][0]["text"] for one in answers[:-1]}
        assert texts == {number: f"Echo: m{number}" for number in range(100)}


def test_an_id_in_use_is_refused(start: Start) -> None:
    with start("never_answers") as program:
        program.call("echo", id="twice")
        program.send("ping", id="twice")
        answer = program.receive()
        assert answer["id"] == "twice"
        assert answer["error"]["code"] == -32600
        program.notify("notifications/cancelled", {"requestId": "twice"})
        assert program.ask("ping", id=3)["result"] == {}
        assert program.ask("ping", id="twice")["result"] == {}


def test_cancelling_reaches_the_server(start: Start) -> None:
    with start("never_answers") as program:
        before = _cancellations(program)
        program.call("echo", id="one")
        assert program.ask("ping", id=2)["result"] == {}
        program.notify("notifications/cancelled", {"requestId": "one", "reason": "changed my mind"})
        # Written together: the second must find the first, which has hardly begun.
        hasty = line_of("tools/call", {"name": "echo", "arguments": {}}, "two")
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        cancel = json.dumps(note | {"params": {"requestId": "two"}}).encode()
        program.write(hasty + cancel + b"\n")

        wait_until(lambda: _cancellations(program) > before, "the server was told")
        assert program.close() == 0  # which would wait for a request that is still open


def _cancellations(program: Program) -> int:
    seen = program.ask("test/seen", id="seen")["result"]["seen"]
    return sum(message.get("method") == "notifications/cancelled" for message in seen)


def test_a_big_message_both_ways(start: Start) -> None:
    with start("echo") as program:
        text = "ü" * 1_000_000
        began_s = time.monotonic()
        program.call("echo", text=text)
        assert program.receive()["result"]["content"][0]["text"] == text
        assert time.monotonic() - began_s < 20


def test_a_message_over_the_gateways_limit(running: Running) -> None:
    options = options_for("gateway", running)
    with run_stdio("--server", "echo", *options, env={KEY_VARIABLE: KEY}) as program:
        program.call("echo", id="big", text="x" * (8 * 1024 * 1024))
        answer = program.receive()
        assert answer["id"] == "big"
        assert answer["error"]["code"] == -32600
        assert program.ask("ping", id=2)["result"] == {}


def test_a_line_over_the_limit_is_read_past(start: Start) -> None:
    with start("echo") as program:
        chunk = b"x" * 1024 * 1024
        program.write(b'{"jsonrpc":"2.0","id":1,"method":"')
        for _ in range(65):
            program.write(chunk)
        program.write(b'"}\n')
        answer = program.receive()
        assert (answer["id"], answer["error"]["code"]) == (None, -32600)
        assert "over" in answer["error"]["message"]
        assert program.ask("ping", id=2)["result"] == {}


def test_a_server_that_dies_during_a_call(start: Start) -> None:
    with start("crash_mid_call") as program:
        program.call("echo", id="doomed")
        answer = program.receive()
        assert answer["id"] == "doomed"
        assert answer["error"]["code"] == -32603
        assert "exited with code 3" in answer["error"]["message"]
        wait_until(
            lambda: "result" in program.ask("ping", id="again"), "the server is back", every_s=0.1
        )


def test_times_of_the_catalog_entry_hold(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    server = odd_server("never_answers", pids, idle_timeout_seconds=1, request_timeout_seconds=1)
    with in_process(tmp_path, server)("never_answers") as program:
        # A start that takes longer than a second goes on, but the caller does not wait for it.
        wait_until(lambda: "result" in program.ask("ping"), "the server runs")
        program.call("echo")
        assert "did not answer before the deadline" in program.receive()["error"]["message"]
        wait_until(lambda: not is_running(pids_in(pids)[0]), "the idle server stopped")
        wait_until(lambda: "result" in program.ask("ping", id=2), "the server runs again")
        assert len(pids_in(pids)) == 2


class Printer(BaseHTTPRequestHandler):
    """An MCP server whose JSON is laid out for reading."""

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        result: Json = {"tools": []}
        if message["method"] == "server/discover":
            result = {"supportedVersions": [MODERN], "capabilities": {}}
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        body = json.dumps(answer, indent=2).replace("\n", "\r\n").encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal of the tests."""


@contextmanager
def web_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_json_over_several_lines_becomes_one(tmp_path: Path) -> None:
    with web_server(Printer) as url:
        remote: Json = {"id": "printer", "runtime": {"type": "remote-http", "url": f"{url}/mcp"}}
        with in_process(tmp_path, remote)("printer") as program:
            assert program.ask("tools/list")["result"] == {"tools": []}


# The way to a gateway


class Shop(BaseHTTPRequestHandler):
    """A web server that is no gateway."""

    answers: tuple[tuple[int, str, bytes], ...] = (
        (200, "text/html", b"<html>Welcome</html>"),
        (200, "application/json", b'{"detail": "hello"}'),
        (200, "application/json", b"[]"),
        (404, "application/json", b'{"detail": "Not Found"}'),
        (500, "text/plain", b"oops"),
        (302, "text/plain", b""),
    )
    next = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, kind, body = self.answers[self.next]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal of the tests."""


def test_something_else_than_a_gateway() -> None:
    with web_server(Shop) as url, run_stdio("--server", "x", "--gateway", url) as program:
        for number, (status, _, _) in enumerate(Shop.answers):
            Shop.next = number
            error = program.error("tools/list", id=number)
            assert error["code"] == -32002
            assert f"the gateway at {url} answered with HTTP {status}" in error["message"]
            assert "check its URL" in error["message"]
        assert program.close() == 0


def test_a_wrong_key_and_none(running: Running) -> None:
    options = ("--server", "echo", *options_for("gateway", running), "--log-level", "trace")
    wrong = "test-key-that-is-wrong"
    with run_stdio(*options, env={KEY_VARIABLE: wrong}) as program:
        error = program.error("tools/list", id="w")
        assert error["code"] == -32002
        assert "HTTP 403: Invalid API key" in error["message"]
        assert f"check the key in {KEY_VARIABLE}" in error["message"]
        assert program.close() == 0
        assert wrong not in json.dumps(error) + "".join(program.stderr)
    with run_stdio(*options) as program:
        error = program.error("tools/list", id="n")
        assert "HTTP 401: API key required" in error["message"]
        assert f"set {KEY_VARIABLE}" in error["message"]


def test_the_key_from_another_variable(running: Running) -> None:
    options = ("--server", "echo", *options_for("gateway", running), "--api-key-env", "MY_KEY")
    with run_stdio(*options, env={"MY_KEY": KEY, KEY_VARIABLE: "test-key-other"}) as program:
        assert program.ask("ping")["result"] == {}


def test_the_key_is_not_shown_to_anybody(running: Running) -> None:
    """Not in the list of processes, not in logs, and not in the environment of servers."""
    options = ("--server", "echo", *options_for("gateway", running), "--log-level", "trace")
    with run_stdio(*options, env={KEY_VARIABLE: KEY}) as program:
        assert program.ask("ping")["result"] == {}
        command = Path(f"/proc/{program.process.pid}/cmdline").read_bytes()
        assert KEY.encode() not in command
        assert program.close() == 0
        assert KEY not in "".join(program.stderr)
    for pid in owned_by(running.pid):
        assert KEY.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    assert KEY not in "".join(running.gateway.lines)

    catalog = ("--catalog", str(running.gateway.catalog_path))
    env = {KEY_VARIABLE: KEY, "TEST_TOKEN": SECRET}
    with run_stdio("--server", "echo", *catalog, env=env) as program:
        assert KEY not in json.dumps(program.ask("test/environment"))


@pytest.mark.parametrize(
    ("options", "env", "says"),
    [
        ((), {KEY_VARIABLE: ""}, f"{KEY_VARIABLE}: the environment variable is empty"),
        ((), {KEY_VARIABLE: " \t"}, f"{KEY_VARIABLE}: the environment variable is empty"),
        ((), {KEY_VARIABLE: "test key"}, "visible ASCII"),
        ((), {KEY_VARIABLE: "test-key\nX-Evil: 1"}, "visible ASCII"),
        ((), {KEY_VARIABLE: "test-schlüssel"}, "visible ASCII"),
        (("--api-key-env", "NO_SUCH"), {KEY_VARIABLE: KEY}, "NO_SUCH: the environment variable is"),
        (("--api-key-env", ""), {KEY_VARIABLE: KEY}, "--api-key-env"),
        (("--api-key-env", "EMPTY"), {"EMPTY": "", KEY_VARIABLE: KEY}, "is empty"),
    ],
)
def test_a_key_that_cannot_be_one(options: tuple[str, ...], env: dict[str, str], says: str) -> None:
    with run_stdio(
        "--server", "x", "--gateway", "http://127.0.0.1:9", *options, env=env
    ) as program:
        assert program.ended() == 2
        wait_until(lambda: program.stderr, "a word on stderr")
        assert says in program.stderr[0]
        assert len(program.stderr) == 1
        assert "test" not in program.stderr[0]


@pytest.mark.parametrize("url", ["", "localhost:4444", "ftp://localhost", "http://", "http://a b"])
def test_a_url_that_cannot_be_one(url: str) -> None:
    with run_stdio("--server", "x", "--gateway", url) as program:
        assert program.ended() == 2
        wait_until(lambda: program.stderr, "a word on stderr")
        assert program.stderr[0].startswith("error: --gateway: ")


def test_a_gateway_that_is_not_there() -> None:
    with run_stdio("--server", "x", "--gateway", "http://127.0.0.1:1/") as program:
        error = program.error("tools/list", id="a")
        assert error["code"] == -32002
        assert error["message"].startswith(
            "Failed to connect to server: the gateway at http://127.0.0.1:1 cannot be reached"
        )
        assert program.error("tools/list", STATELESS, id="b")["code"] == -32603
        assert program.close() == 0


def test_a_gateway_that_dies_during_a_call(tmp_path: Path) -> None:
    with run_gateway(tmp_path, [odd_server("never_answers")]) as running:
        options = ("--server", "never_answers", "--gateway", running.gateway.url)
        with run_stdio(*options, env={KEY_VARIABLE: KEY}) as program:
            program.call("echo", id="doomed")
            assert program.ask("ping", id=2)["result"] == {}
            running.gateway.process.kill()
            answer = program.receive()
            assert answer["id"] == "doomed"
            assert answer["error"]["code"] == -32603
            assert f"the gateway at {running.gateway.url} " in answer["error"]["message"]
            # A connection that nobody has looked at since may take the next message with it.
            assert program.error("ping", id=3)["code"] in {-32603, -32002}
            assert program.error("ping", id=4)["code"] == -32002
            assert program.close() == 0


def test_a_gateway_that_comes_back(tmp_path: Path) -> None:
    """The next message after a restart works, on a new connection."""
    with run_gateway(tmp_path, [odd_server("echo")]) as running:
        address = f"127.0.0.1:{running.gateway.port}"
        options = ("--server", "echo", "--gateway", f"http://{address}")
        with run_stdio(*options, env={KEY_VARIABLE: KEY}) as program:
            assert program.ask("ping", id=1)["result"] == {}
            running.gateway.process.terminate()
            running.gateway.process.wait(PATIENCE_S)
            with run_gateway(tmp_path, [odd_server("echo")], {"listen_addr": address}):
                assert program.ask("ping", id=2)["result"] == {}


# Options


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--catalog", "catalog.yaml"),
        ("--server", "x"),
        ("--server", "x", "--catalog", "c.yaml", "--gateway", "http://127.0.0.1:9"),
        ("--server", "x", "--catalog", "c.yaml", "--key", "test-key-on-the-command-line"),
        ("--server", "x", "--catalog", "c.yaml", "--log-level", "loud"),
    ],
)
def test_options_that_make_no_sense(options: tuple[str, ...]) -> None:
    with run_stdio(*options) as program:
        assert program.ended() == 2
        wait_until(lambda: program.stderr, "a word on stderr")
        assert program.stderr[0].startswith("usage: ")


def test_a_catalog_with_mistakes(tmp_path: Path) -> None:
    begin = partial(run_stdio, "--server", "x", "--catalog")
    catalog = tmp_path / "catalog.yaml"
    with begin(str(catalog)) as program:
        assert program.ended() == 2
    catalog.write_text("servers:\n- id: a\n- runtime: {}\n", "utf-8")
    with begin(str(catalog)) as program:
        assert program.ended() == 2
        wait_until(lambda: len(program.stderr) > 1, "both mistakes")
        assert "Server 'a' missing required field: runtime" in program.stderr[0]
        assert "Server at index 1 missing required field: id" in program.stderr[1]
