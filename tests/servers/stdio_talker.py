"""MCP servers over stdio that say a lot of themselves: ``stdio_talker.py MODE [FILE]``.

Plain Python and raw JSON. The modes and tools stand in README.md. Tools are generators: they yield
a request to the client and get its answer, or the name of a gate and go on when it is opened.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]
Run: TypeAlias = Generator[Json | str, Any, Any]

INFO = {"name": "test-talker", "version": "1.0"}
MODERN = "2026-07-28"
META_VERSION = "io.modelcontextprotocol/protocolVersion"
META_LEVEL = "io.modelcontextprotocol/logLevel"
META_SERVER = "io.modelcontextprotocol/serverInfo"
META_SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
CAPABILITIES = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"subscribe": True, "listChanged": True},
    "logging": {},
}


def send(message: Json) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0"} | message, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def incoming() -> Iterator[Json]:
    for line in io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8"):
        yield json.loads(line)


def params_of(message: Json) -> Json:
    return message.get("params") or {}


def meta_of(message: Json) -> Json:
    return params_of(message).get("_meta") or {}


def is_modern(message: Json) -> bool:
    return META_VERSION in meta_of(message)


class Talker:
    """What both eras share."""

    kind: str | None = None
    """The ``resultType`` of its results."""

    schemas: Json = {}  # noqa: RUF012 - never written to
    """Of the tools that have one worth mentioning."""

    def __init__(self) -> None:
        self.seen: list[Json] = []
        self.runs: dict[int | str, tuple[Json, Run]] = {}
        self.gates: dict[str, list[tuple[Json, Run]]] = {}
        self.client: Json = {}
        self.last: Json = {}

    def take(self, message: Json) -> None:
        if "method" not in message:
            self.seen.append(message)
            if message["id"] in self.runs:
                self.go_on(*self.runs.pop(message["id"]), message)
        elif "id" not in message:
            self.seen.append(message)
            self.noticed(message)
        elif message["method"] == "tools/call":
            self.call(message)
        else:
            self.request(message)

    def call(self, message: Json) -> None:
        params = params_of(message)
        tool = getattr(self, "tool_" + params["name"], None)
        if tool is None:
            self.refuse(message, -32602, f"Unknown tool: {params['name']}")
            return
        self.go_on(message, tool(message, **(params.get("arguments") or {})), None)

    def go_on(self, call: Json, run: Run, value: object) -> None:
        try:
            step = run.send(value)
        except StopIteration as done:
            if done.value is not None:
                self.reply(call, {"content": [{"type": "text", "text": done.value}]})
            return
        if isinstance(step, str):
            self.gates.setdefault(step, []).append((call, run))
        else:
            self.runs[step["id"]] = (call, run)
            send(step)

    def reply(self, message: Json, result: Json) -> None:
        kind = {} if self.kind is None else {"resultType": self.kind}
        send({"id": message["id"], "result": result | kind})

    def refuse(self, message: Json, code: int, text: str, **data: object) -> None:
        error: Json = {"code": code, "message": text} | ({"data": data} if data else {})
        send({"id": message["id"], "error": error})

    def noticed(self, message: Json) -> None:
        """A notification."""

    def request(self, message: Json) -> None:
        match message["method"]:
            case "tools/list":
                names = [name[5:] for name in dir(self) if name.startswith("tool_")]
                plain = {"type": "object"}
                schemas = [self.schemas.get(name, plain) for name in names]
                tools = [
                    {"name": name, "inputSchema": schema}
                    for name, schema in zip(names, schemas, strict=True)
                ]
                text = {"type": "string", "x-mcp-header": "Text"}
                annotated = {"type": "object", "properties": {"text": text}}
                tools.append({"name": "mirrored", "inputSchema": annotated})
                self.reply(message, {"tools": tools})
            case "resources/read":
                contents = [{"uri": params_of(message)["uri"], "text": "text"}]
                self.reply(message, {"contents": contents})
            case "test/seen":
                self.reply(message, {"seen": self.seen})
            case "test/client":
                self.reply(message, {"client": self.client})
            case method:
                self.refuse(message, -32601, f"Method not found: {method}")

    def progress(self, call: Json, **more: object) -> None:
        token = meta_of(call).get("progressToken")
        if token is not None:
            note = {"progressToken": token} | more
            send({"method": "notifications/progress", "params": note})

    # Tools of both eras

    def tool_echo(self, _call: Json, text: str = "") -> Run:
        yield from ()
        return text

    def tool_meta(self, call: Json) -> Run:
        """The ``_meta`` the call came with."""
        yield from ()
        return json.dumps(meta_of(call))

    def tool_progress(self, call: Json, steps: int = 3) -> Run:
        yield from ()
        for step in range(1, steps + 1):
            self.progress(call, progress=step, total=steps, message=f"step {step}")
        return "done"

    def tool_gated_progress(self, call: Json, gate: str) -> Run:
        """Progress once, then wait for the tool ``open`` with the same gate, then once more."""
        self.progress(call, progress=1, message=gate)
        yield gate
        self.progress(call, progress=2, message=gate)
        return gate

    def tool_open(self, _call: Json, gate: str) -> Run:
        yield from ()
        for waiting in self.gates.pop(gate, []):
            self.go_on(*waiting, None)
        return "opened"

    def tool_late_progress(self, call: Json) -> Run:
        """Progress after the answer too."""
        self.progress(call, progress=1)
        self.reply(call, {"content": [{"type": "text", "text": "early"}]})
        self.progress(call, progress=2)
        yield from ()

    def tool_foreign_progress(self, _call: Json, token: int | str) -> Run:
        yield from ()
        note = {"progressToken": token, "progress": 1}
        send({"method": "notifications/progress", "params": note})
        return "sent"

    def tool_notify(self, _call: Json, method: str, params: Json | None = None) -> Run:
        yield from ()
        send({"method": method} | ({} if params is None else {"params": params}))
        return "sent"

    def tool_raw(self, call: Json, line: str, nested: int = 0) -> Run:
        """``line``, with the id of the call for ``$ID`` and so many arrays for ``$NESTED``."""
        yield from ()
        line = line.replace("$ID", json.dumps(call["id"]))
        sys.stdout.write(line.replace("$NESTED", "[" * nested + "]" * nested) + "\n")
        sys.stdout.flush()

    def tool_exit(self, _call: Json, code: int = 3) -> Run:
        yield from ()
        os._exit(code)


class LegacyTalker(Talker):
    """Sessions: asks its client, logs and reports changes without relation to a call."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribed: set[str] = set()

    def request(self, message: Json) -> None:
        params = params_of(message)
        match message["method"]:
            case "initialize":
                self.client = params
                version = os.environ.get("TEST_PROTOCOL_VERSION", params["protocolVersion"])
                result = {"protocolVersion": version, "capabilities": CAPABILITIES}
                self.reply(message, result | {"serverInfo": INFO})
            case "ping" | "logging/setLevel":
                self.seen.append(message)
                self.go_on(message, self.done(message, params), None)
            case "resources/subscribe":
                self.go_on(message, self.subscribe(message, params), None)
            case "test/subscribed":
                self.reply(message, {"uris": sorted(self.subscribed)})
            case "resources/unsubscribe":
                self.subscribed.discard(params["uri"])
                self.reply(message, {})
            case _:
                super().request(message)

    def done(self, message: Json, params: Json) -> Run:
        """Answered once the gate is open, if one is named."""
        if "gate" in params:
            yield params["gate"]
        self.reply(message, {})

    def subscribe(self, message: Json, params: Json) -> Run:
        yield from self.done(message, params)
        self.subscribed.add(params["uri"])

    def tool_ask(
        self, _call: Json, method: str, params: Json | None = None, id: int | str = 1
    ) -> Run:
        """The client's whole answer to a request of the server's."""
        asking: Json = {"id": id, "method": method}
        answer = yield asking if params is None else asking | {"params": params}
        return json.dumps(answer)

    def tool_withdraw(self, _call: Json, method: str, id: int | str = 1) -> Run:
        """Ask, and call the question off again."""
        yield from ()
        send({"id": id, "method": method})
        reason = {"requestId": id, "reason": "changed my mind"}
        send({"method": "notifications/cancelled", "params": reason})
        return "withdrawn"

    def tool_log(self, _call: Json, level: str, data: object) -> Run:
        yield from ()
        note = {"level": level, "logger": "test", "data": data}
        send({"method": "notifications/message", "params": note})
        return "logged"

    def tool_touch(self, _call: Json, uri: str) -> Run:
        """The resource changes; only who subscribed to it hears of that."""
        yield from ()
        if uri in self.subscribed:
            send({"method": "notifications/resources/updated", "params": {"uri": uri}})
        return "touched"

    def tool_change_list(self, _call: Json, kind: str = "tools") -> Run:
        yield from ()
        send({"method": f"notifications/{kind}/list_changed"})
        return "changed"


class ModernTalker(Talker):
    """Stateless requests: subscriptions by ``subscriptions/listen``, questions in results."""

    kind = "complete"
    schemas: Json = {  # noqa: RUF012 - never written to
        "regional": {
            "type": "object",
            "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
        }
    }

    def __init__(self) -> None:
        super().__init__()
        self.listens: dict[int | str, Json] = {}

    def take(self, message: Json) -> None:
        if "id" in message and not is_modern(message):
            self.refuse(message, -32022, "Unsupported protocol version", supported=[MODERN])
            return
        super().take(message)

    def noticed(self, message: Json) -> None:
        if message["method"] == "notifications/cancelled":
            self.listens.pop(params_of(message)["requestId"], None)

    def request(self, message: Json) -> None:
        cache = {"ttlMs": 0, "cacheScope": "private"}
        match message["method"]:
            case "server/discover":
                result: Json = {"supportedVersions": [MODERN], "capabilities": CAPABILITIES}
                self.reply(message, result | cache | {"_meta": {META_SERVER: INFO}})
            case "subscriptions/listen":
                wanted = params_of(message).get("notifications") or {}
                self.listens[message["id"]] = wanted
                honoured: Json = {"notifications": wanted}
                self.tell(message["id"], "subscriptions/acknowledged", honoured)
            case "test/last_request":
                self.reply(message, {"request": self.last})
                return
            case _:
                super().request(message)
        self.last = message

    def call(self, message: Json) -> None:
        self.last = message
        super().call(message)

    def tell(self, listen: int | str, what: str, params: Json) -> None:
        meta = {"_meta": {META_SUBSCRIPTION: listen}}
        send({"method": f"notifications/{what}", "params": params | meta})

    def tool_log(self, call: Json, level: str, data: object) -> Run:
        """Only for calls that ask for log messages."""
        yield from ()
        if META_LEVEL in meta_of(call):
            note = {"level": level, "logger": "test", "data": data}
            send({"method": "notifications/message", "params": note})
        return "logged"

    def tool_touch(self, _call: Json, uri: str) -> Run:
        yield from ()
        for listen, wanted in self.listens.items():
            if uri in wanted.get("resourceSubscriptions", ()):
                self.tell(listen, "resources/updated", {"uri": uri})
        return "touched"

    def tool_change_list(self, _call: Json, kind: str = "tools") -> Run:
        yield from ()
        for listen, wanted in self.listens.items():
            if wanted.get(f"{kind}ListChanged"):
                self.tell(listen, f"{kind}/list_changed", {})
        return "changed"

    def tool_annotate(self, call: Json, header: str) -> Run:
        """From now on a tool wants its argument repeated in a header."""
        region = {"type": "string", "x-mcp-header": header}
        self.schemas = self.schemas | {"regional": {"properties": {"region": region}}}
        return (yield from self.tool_change_list(call))

    def tool_end_listens(self, _call: Json, how: tuple[str, ...] = ("response",)) -> Run:
        """``how``: ``response`` and ``cancelled``, in the order they are sent in."""
        yield from ()
        for listen in self.listens:
            for one in how:
                if one == "response":
                    self.reply({"id": listen}, {"_meta": {META_SUBSCRIPTION: listen}})
                else:
                    params = {"requestId": listen}
                    send({"method": "notifications/cancelled", "params": params})
        self.listens.clear()
        return "ended"

    def tool_regional(self, _call: Json, region: str = "") -> Run:
        """Its argument is repeated in a header."""
        yield from ()
        return region

    def tool_needs_input(self, call: Json) -> Run:
        """Wants to know the user's name first; then tells all that came with the second request."""
        yield from ()
        params = params_of(call)
        if "inputResponses" in params:
            given = {name: params[name] for name in ("inputResponses", "requestState")}
            return json.dumps(given)
        schema = {"type": "object", "properties": {"name": {"type": "string"}}}
        form = {"mode": "form", "message": "Your name?", "requestedSchema": schema}
        wanted = {"user_name": {"method": "elicitation/create", "params": form}}
        result = {"resultType": "input_required", "inputRequests": wanted, "requestState": "s-1"}
        send({"id": call["id"], "result": result})
        return None


def run(talker: Talker) -> None:
    for message in incoming():
        talker.take(message)


def legacy() -> None:
    run(LegacyTalker())


def modern() -> None:
    run(ModernTalker())


def dual() -> None:
    """Both eras, but one a process: the first request locks it, as in version 2 of the SDKs."""
    talker: Talker | None = None
    for message in incoming():
        if talker is None:
            talker = ModernTalker() if is_modern(message) else LegacyTalker()
        if isinstance(talker, LegacyTalker) and is_modern(message):
            talker.refuse(message, -32600, "this connection is in its session era")
        else:
            talker.take(message)


MODES: dict[str, Callable[[], None]] = {mode.__name__: mode for mode in (legacy, modern, dual)}

if __name__ == "__main__":
    if len(sys.argv) > 2:
        with Path(sys.argv[2]).open("a", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
    MODES[sys.argv[1]]()
