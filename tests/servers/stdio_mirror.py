"""An MCP server over stdio that says what it is told to, byte for byte: ``stdio_mirror.py MODE``.

``legacy`` or ``modern``. Stands in README.md.
"""

from __future__ import annotations

import json
import sys
from typing import Any

MODERN = "2026-07-28"
CAPABILITIES = {
    "tools": {"listChanged": True},
    "prompts": {},
    "resources": {"subscribe": True},
    "logging": {},
    "completions": {},
}
INFO = {"name": "test-mirror", "version": "1.0"}


def send(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def opening(message: dict[str, Any], mode: str) -> dict[str, Any] | None:
    if mode == "legacy" and message["method"] == "initialize":
        version = message["params"]["protocolVersion"]
        return {"protocolVersion": version, "capabilities": CAPABILITIES, "serverInfo": INFO}
    if mode == "modern" and message["method"] == "server/discover":
        return {
            "resultType": "complete",
            "supportedVersions": [MODERN],
            "capabilities": CAPABILITIES,
            "ttlMs": 0,
            "cacheScope": "private",
        }
    return None


def main(mode: str) -> None:
    last = ""
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message or "method" not in message:
            last = line.rstrip("\n")
            continue
        head = f'{{"jsonrpc":"2.0","id":{json.dumps(message["id"])}'
        params = message.get("params") or {}
        result = opening(message, mode)
        if result is not None:
            send(f'{head},"result":{json.dumps(result)}}}')
        elif message["method"] == "test/last":
            send(f'{head},"result":{{"line":{json.dumps(last)}}}}}')
        elif message["method"] == "ping":
            send(head + ',"result":{}}')
        elif "say" in params:
            last = line.rstrip("\n")
            for one in params.get("first", ()):
                send(one)
            send(head + "," + params["say"] + "}")
        else:
            last = line.rstrip("\n")
            text = "Method not found"
            send(f'{head},"error":{{"code":-32601,"message":"{text}"}}}}')


if __name__ == "__main__":
    main(sys.argv[1])
