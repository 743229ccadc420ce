"""A small MCP server on stdin and stdout, in the standard library alone, speaking both eras.

Spec: 2025-11-25 and 2026-07-28 basic/transports#stdio, server/tools. Requests are answered one by
one, in order; the program ends when its stdin does.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO

from open_mcp_gateway import __version__

Json = dict[str, Any]

MODERN_VERSION = "2026-07-28"
# Without 2025-03-26, the one revision whose servers must take batches.
LEGACY_VERSIONS = ("2024-11-05", "2025-06-18", "2025-11-25")

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
SERVER_INFO_KEY = "io.modelcontextprotocol/serverInfo"

SERVER_INFO = {"name": "open-mcp-gateway-demo", "version": __version__}
CAPABILITIES: Json = {"tools": {}}
# The tools never change; a day lets clients keep the list without holding on to it for ever.
CACHEABLE: Json = {"ttlMs": 86_400_000, "cacheScope": "public"}

LARGEST = 2**53  # beyond it JSON numbers lose digits in many languages


class Refusal(Exception):
    """A JSON-RPC error to answer with."""

    def __init__(self, code: int, message: str, data: Json | None = None) -> None:
        super().__init__(message)
        self.error: Json = {"code": code, "message": message}
        if data is not None:
            self.error["data"] = data


class BadArguments(Exception):
    """Arguments a tool cannot use; the model sees a failed result, so that it can mend them."""


def text_result(text: str, structured: Json | None = None) -> Json:
    result: Json = {"content": [{"type": "text", "text": text}], "isError": False}
    if structured is not None:
        result["structuredContent"] = structured
    return result


def number(arguments: Mapping[str, object], name: str) -> int | float:
    value = arguments.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST:
        raise BadArguments(f"'{name}' must be a number between -2^53 and 2^53")
    return value


def echo(arguments: Mapping[str, object]) -> Json:
    text = arguments.get("text")
    if not isinstance(text, str):
        raise BadArguments("'text' must be a string")
    return text_result(text)


def add(arguments: Mapping[str, object]) -> Json:
    total = number(arguments, "a") + number(arguments, "b")
    return text_result(str(total), {"sum": total})


def now(_arguments: Mapping[str, object]) -> Json:
    return text_result(datetime.now(UTC).isoformat(timespec="seconds"))


def roll_dice(arguments: Mapping[str, object]) -> Json:
    sides = arguments.get("sides", 6)
    if isinstance(sides, bool) or not isinstance(sides, int) or not 2 <= sides <= 1000:
        raise BadArguments("'sides' must be a whole number from 2 to 1000")
    return text_result(str(random.randint(1, sides)))  # noqa: S311 - a game, not a secret


NUMBER: Json = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
TOOLS: dict[str, tuple[Callable[[Mapping[str, object]], Json], Json]] = {
    "add": (
        add,
        {
            "description": "Add two numbers.",
            "inputSchema": {
                "type": "object",
                "properties": {"a": NUMBER, "b": NUMBER},
                "required": ["a", "b"],
            },
            "outputSchema": {
                "type": "object",
                "properties": {"sum": {"type": "number"}},
                "required": ["sum"],
            },
        },
    ),
    "echo": (
        echo,
        {
            "description": "Give back the text it was given.",
            "inputSchema": {
                "type": "object",
                "properties": {"text": {"type": "string"}},
                "required": ["text"],
            },
        },
    ),
    "now": (
        now,
        {
            "description": "The date and time in UTC.",
            "inputSchema": {"type": "object", "properties": {}},
        },
    ),
    "roll_dice": (
        roll_dice,
        {
            "description": "Roll a die with 6 sides, or as many as asked for.",
            "inputSchema": {
                "type": "object",
                "properties": {"sides": {"type": "integer", "minimum": 2, "maximum": 1000}},
            },
        },
    ),
}


def list_tools(_params: Mapping[str, object]) -> Json:
    return {"tools": [{"name": name, **about} for name, (_, about) in TOOLS.items()]}


def call_tool(params: Mapping[str, object]) -> Json:
    name, arguments = params.get("name"), params.get("arguments", {})
    if not isinstance(name, str) or name not in TOOLS:
        raise Refusal(-32602, f"Unknown tool: {name}")
    if not isinstance(arguments, dict):
        raise Refusal(-32602, "'arguments' must be an object")
    try:
        return TOOLS[name][0](arguments)
    except BadArguments as error:
        return {**text_result(str(error)), "isError": True}


def initialize(params: Mapping[str, object]) -> Json:
    asked = params.get("protocolVersion")
    version = asked if asked in LEGACY_VERSIONS else LEGACY_VERSIONS[-1]
    return {"protocolVersion": version, "capabilities": CAPABILITIES, "serverInfo": SERVER_INFO}


def discover(_params: Mapping[str, object]) -> Json:
    return {"supportedVersions": [MODERN_VERSION], "capabilities": CAPABILITIES, **CACHEABLE}


Method = Callable[[Mapping[str, object]], Json]
LEGACY_METHODS: dict[str, Method] = {
    "initialize": initialize,
    "ping": lambda _params: {},
    "tools/list": list_tools,
    "tools/call": call_tool,
}
MODERN_METHODS: dict[str, Method] = {
    "server/discover": discover,
    "tools/list": lambda params: {**list_tools(params), **CACHEABLE},
    "tools/call": call_tool,
}


def check_modern(meta: Mapping[str, object]) -> None:
    """Spec: 2026-07-28, the order of a server's checks: metadata, then version, then method."""
    if not isinstance(meta.get(VERSION_KEY), str):
        raise Refusal(-32602, f"_meta must hold '{VERSION_KEY}' as a string")
    if not isinstance(meta.get(CAPABILITIES_KEY), dict):
        raise Refusal(-32602, f"_meta must hold '{CAPABILITIES_KEY}' as an object")
    if meta[VERSION_KEY] != MODERN_VERSION:
        data = {"supported": [MODERN_VERSION], "requested": meta[VERSION_KEY]}
        raise Refusal(-32022, "Unsupported protocol version", data)


def respond(method: str, params: Mapping[str, object]) -> Json:
    """The result of one request. Each request says by its metadata which era it belongs to."""
    meta = params.get("_meta", {})
    if not isinstance(meta, dict):
        raise Refusal(-32602, "_meta must be an object")
    modern = VERSION_KEY in meta or method == "server/discover"
    if modern:
        check_modern(meta)
    known = MODERN_METHODS if modern else LEGACY_METHODS
    if method not in known:
        raise Refusal(-32601, f"Method not found: {method}")
    result = known[method](params)
    if modern:
        result = {"resultType": "complete", **result, "_meta": {SERVER_INFO_KEY: SERVER_INFO}}
    return result


def not_a_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")  # Python's reader would take it (RFC 8259 section 6)


def answer(line: bytes) -> Json | None:
    """The response to one line from the client; None where none is due."""
    try:
        message = json.loads(line, parse_constant=not_a_number)
    except (ValueError, RecursionError):
        return {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "Parse error"}}
    invalid = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "Not a request"}}
    if not isinstance(message, dict):
        return invalid
    method, params, id_ = message.get("method"), message.get("params", {}), message.get("id")
    if "id" not in message or "method" not in message:
        return None if "method" in message or "id" in message else invalid
    if isinstance(id_, bool) or not isinstance(id_, int | str) or not isinstance(method, str):
        return invalid
    try:
        if not isinstance(params, dict):
            raise Refusal(-32602, "params must be an object")
        return {"jsonrpc": "2.0", "id": id_, "result": respond(method, params)}
    except Refusal as refusal:
        return {"jsonrpc": "2.0", "id": id_, "error": refusal.error}


def serve(lines: Iterable[bytes], out: BinaryIO) -> None:
    for line in lines:
        if not line.strip():
            continue
        reply = answer(line)
        if reply is not None:
            out.write(json.dumps(reply, separators=(",", ":")).encode() + b"\n")
            out.flush()


def main() -> None:
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer)
    except (BrokenPipeError, KeyboardInterrupt):
        # The client is gone or wants us gone: nobody is left to tell.
        sys.stderr.close()


if __name__ == "__main__":
    main()
