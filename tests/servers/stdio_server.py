"""Tiny MCP servers over stdio, one behaviour each: ``stdio_server.py MODE [FILE]``.

Plain Python and raw JSON, so that what is on the wire is exactly what is written here. The modes
stand in README.md. With FILE, every process appends its pid and, where it makes one, its
grandchild's to it, one a line.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]

INFO = {"name": "test-server", "version": "1.0"}
TOOLS = [
    {"name": "echo", "inputSchema": {"type": "object", "properties": {"text": {}}}},
    {"name": "add", "inputSchema": {"type": "object", "properties": {"a": {}, "b": {}}}},
    {"name": "sleep", "inputSchema": {"type": "object", "properties": {"seconds": {}}}},
]
MODERN = "2026-07-28"

STDIN = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8")
"""As the Python SDK reads: CR and CRLF end a line too."""


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def send(message: Json) -> None:
    write(json.dumps(message, separators=(",", ":")) + "\n")


def reply(request: Json, result: Json) -> None:
    send({"jsonrpc": "2.0", "id": request["id"], "result": result})


def refuse(request: Json, code: int, text: str, **data: object) -> None:
    error: Json = {"code": code, "message": text}
    if data:
        error["data"] = data
    send({"jsonrpc": "2.0", "id": request["id"], "error": error})


def incoming() -> Iterator[Json]:
    for line in STDIN:
        yield json.loads(line)


def note_pid(pid: int) -> None:
    if len(sys.argv) > 2:
        with Path(sys.argv[2]).open("a", encoding="ascii") as file:
            file.write(f"{pid}\n")


def run_tool(request: Json) -> None:
    arguments = request["params"].get("arguments") or {}
    match request["params"]["name"]:
        case "echo":
            text = str(arguments.get("text", ""))
        case "add":
            text = str(arguments["a"] + arguments["b"])
        case "sleep":
            time.sleep(arguments["seconds"])
            text = "slept"
        case other:
            refuse(request, -32602, f"Unknown tool: {other}")
            return
    result: Json = {"content": [{"type": "text", "text": text}]}
    if is_modern(request):
        result["resultType"] = "complete"
    reply(request, result)


def is_modern(request: Json) -> bool:
    meta = (request.get("params") or {}).get("_meta") or {}
    return "io.modelcontextprotocol/protocolVersion" in meta


def serve_legacy(request: Json) -> None:
    """One message, as a well-behaved server of the session era takes it."""
    match request["method"]:
        case "initialize":
            version = os.environ.get("TEST_PROTOCOL_VERSION", request["params"]["protocolVersion"])
            result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": INFO}
            reply(request, result)
        case "ping":
            reply(request, {})
        case "tools/list":
            reply(request, {"tools": TOOLS})
        case "tools/call":
            run_tool(request)
        case "test/environment":
            reply(request, dict(os.environ))
        case "test/seen":
            reply(request, {"seen": SEEN})
        case method:
            refuse(request, -32601, f"Method not found: {method}")


SEEN: list[Json] = []
"""Every notification and response that came in."""


def legacy_loop(on_call: Callable[[Json], None] = serve_legacy) -> None:
    """``on_call`` takes ``tools/call``; everything else is served as it should be."""
    for message in incoming():
        if "method" not in message or "id" not in message:
            SEEN.append(message)
        elif message["method"] == "tools/call":
            on_call(message)
        else:
            serve_legacy(message)


# Well-behaved


def echo() -> None:
    legacy_loop()


def echo_modern() -> None:
    for message in incoming():
        if "id" not in message:
            SEEN.append(message)
            continue
        if not is_modern(message):
            refuse(message, -32022, "Unsupported protocol version", supported=[MODERN])
            continue
        match message["method"]:
            case "server/discover":
                result: Json = {"supportedVersions": [MODERN], "capabilities": {"tools": {}}}
                reply(
                    message,
                    {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} | result,
                )
            case "tools/list":
                reply(message, {"resultType": "complete", "tools": TOOLS})
            case "tools/call":
                run_tool(message)
            case "test/last_request":
                reply(message, {"resultType": "complete", "request": message})
            case "test/seen":
                reply(message, {"resultType": "complete", "seen": SEEN})
            case method:
                refuse(message, -32601, f"Method not found: {method}")


def noisy_stdout() -> None:
    write("Welcome to the noisy server!\r\n\n\ufeff")

    def noisy(request: Json) -> None:
        write("handling a call...\n{not json}\n42\n[]\n")
        serve_legacy(request)

    legacy_loop(noisy)


def slow_start() -> None:
    time.sleep(float(os.environ.get("TEST_SLOW_START_S", "0.5")))
    echo()


def slow_start_modern() -> None:
    """Locked to the era of its first message, and slow: both questions lie in its pipe by then."""
    time.sleep(float(os.environ.get("TEST_SLOW_START_S", "0.5")))
    echo_modern()


# Odd at the handshake


def dies_on_unknown_first_request() -> None:
    first = next(incoming())
    if first["method"] != "initialize":
        sys.stderr.write("unexpected message before initialize\n")
        sys.exit(1)
    serve_legacy(first)
    legacy_loop()


def silent_to_probe() -> None:
    for message in incoming():
        if message["method"] != "server/discover" and "id" in message:
            serve_legacy(message)


def late_to_probe() -> None:
    """Answers the probe only after ``initialize``, as a success with nothing in it."""
    late: list[Json] = []
    for message in incoming():
        if message["method"] == "server/discover":
            late.append(message)
        elif "id" in message:
            serve_legacy(message)
            for probe in late:
                reply(probe, {"tools": []})
            late.clear()


def refuses_initialize() -> None:
    for message in incoming():
        if "id" in message:
            refuse(message, -32603, "no licence for test-secret-value")


def crash_at_start() -> None:
    sys.stderr.write("cannot open database\nset test-secret-value and try again\n")
    sys.exit(3)


# Odd in the middle


def crash_mid_call() -> None:
    def crash(_request: Json) -> None:
        sys.stderr.write("Traceback: something with test-secret-value broke\n")
        sys.stderr.flush()
        os._exit(3)

    legacy_loop(crash)


def killed_mid_call() -> None:
    legacy_loop(lambda _request: os.kill(os.getpid(), signal.SIGKILL))


def never_answers() -> None:
    legacy_loop(lambda _request: None)


def wrong_id() -> None:
    legacy_loop(lambda request: send({"jsonrpc": "2.0", "id": 10**6 + request["id"], "result": {}}))


def answers_twice() -> None:
    def twice(request: Json) -> None:
        serve_legacy(request)
        serve_legacy(request)

    legacy_loop(twice)


def late_answers() -> None:
    """Answers each call when the next one comes."""
    held: list[Json] = []

    def late(request: Json) -> None:
        for earlier in held:
            run_tool(earlier)
        held[:] = [request]

    legacy_loop(late)


def floods_notifications() -> None:
    def flood(request: Json) -> None:
        note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x" * 200}}
        write((json.dumps(note) + "\n") * 20_000)
        serve_legacy(request)

    legacy_loop(flood)


def asks_client() -> None:
    """Sends requests of its own before every answer."""

    def ask(request: Json) -> None:
        send({"jsonrpc": "2.0", "id": "p1", "method": "ping"})
        send({"jsonrpc": "2.0", "id": request["id"], "method": "sampling/createMessage"})
        serve_legacy(request)

    legacy_loop(ask)


def huge_reply() -> None:
    """As long as the argument ``size`` says; ``id_last`` puts the id where the TS SDK does."""

    def huge(request: Json) -> None:
        arguments = request["params"]["arguments"]
        text = "x" * arguments["size"]
        result: Json = {"content": [{"type": "text", "text": text}]}
        if arguments.get("id_last"):
            send({"result": result, "jsonrpc": "2.0", "id": request["id"]})
        elif arguments.get("id_hidden"):
            send({"jsonrpc": "2.0", "method": "x", "params": result})
        else:
            reply(request, result)

    legacy_loop(huge)


def half_line() -> None:
    def half(request: Json) -> None:
        write(f'{{"jsonrpc":"2.0","id":{request["id"]},"result":{{"content":[')
        os._exit(0)

    legacy_loop(half)


def last_line_without_end() -> None:
    def last(request: Json) -> None:
        write(f'{{"jsonrpc":"2.0","id":{request["id"]},"result":{{"last":true}}}}')
        os._exit(0)

    legacy_loop(last)


def not_json() -> None:
    """Answers calls with the text that the argument ``text`` gives, ``%d`` being the id."""

    def odd(request: Json) -> None:
        write(request["params"]["arguments"]["text"].replace("%d", str(request["id"])) + "\n")

    legacy_loop(odd)


def bad_utf8() -> None:
    def bad(request: Json) -> None:
        text = b'{"jsonrpc":"2.0","id":%d,"result":{"text":"\xff"}}\n' % request["id"]
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()

    legacy_loop(bad)


def deep_json() -> None:
    def deep(request: Json) -> None:
        nested = "[" * 100_000 + "]" * 100_000
        write(f'{{"jsonrpc":"2.0","id":{request["id"]},"result":{nested}}}\n')

    legacy_loop(deep)


def does_not_read_stdin() -> None:
    for message in incoming():
        if message["method"] == "notifications/initialized":
            break
        if "id" in message:
            serve_legacy(message)
    while True:
        time.sleep(60)


def closes_stdout() -> None:
    def close(_request: Json) -> None:
        os.close(1)
        time.sleep(60)

    legacy_loop(close)


def closes_stdin() -> None:
    def close(_request: Json) -> None:
        os.close(0)
        time.sleep(60)

    legacy_loop(close)


# Odd at the end


def ignores_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    legacy_loop()
    while True:
        time.sleep(60)


def ignores_stdin_eof() -> None:
    legacy_loop()
    while True:
        time.sleep(60)


def leaves_grandchild() -> None:
    """The grandchild holds all three pipes and, from its first moment, ignores SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    grandchild = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    note_pid(grandchild.pid)

    def maybe_exit(request: Json) -> None:
        if request["params"]["name"] == "exit":
            os._exit(7)
        serve_legacy(request)

    legacy_loop(maybe_exit)


MODES: dict[str, Callable[[], None]] = {
    mode.__name__: mode
    for mode in (
        echo,
        echo_modern,
        noisy_stdout,
        slow_start,
        slow_start_modern,
        dies_on_unknown_first_request,
        silent_to_probe,
        late_to_probe,
        refuses_initialize,
        crash_at_start,
        crash_mid_call,
        killed_mid_call,
        never_answers,
        wrong_id,
        answers_twice,
        late_answers,
        floods_notifications,
        asks_client,
        huge_reply,
        half_line,
        last_line_without_end,
        not_json,
        bad_utf8,
        deep_json,
        does_not_read_stdin,
        closes_stdout,
        closes_stdin,
        ignores_sigterm,
        ignores_stdin_eof,
        leaves_grandchild,
    )
}

if __name__ == "__main__":
    note_pid(os.getpid())
    MODES[sys.argv[1]]()
