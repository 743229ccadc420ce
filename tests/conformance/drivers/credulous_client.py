"""A client that calls every tool it is shown, whatever its schema says: ``URL``.

An SDK would itself leave out the tools that a gateway has to leave out, and so hide whether it did.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from typing import Any, Final

Json = dict[str, Any]

VERSION: Final = "2026-07-28"
META: Final = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
}
VALUES: Final[Json] = {
    "string": "text",
    "integer": 1,
    "number": 1.5,
    "boolean": True,
    "object": {},
    "array": [],
    "null": None,
}


def request(url: str, number: int, method: str, params: Json, headers: dict[str, str]) -> Json:
    body = {"jsonrpc": "2.0", "id": number, "method": method, "params": params | {"_meta": META}}
    sent = urllib.request.Request(
        url,
        json.dumps(body).encode(),
        headers
        | {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": VERSION,
            "Mcp-Method": method,
        },
    )
    try:
        with urllib.request.urlopen(sent, timeout=20) as response:
            answer: Json = json.load(response)
    except urllib.error.HTTPError as error:
        answer = json.load(error)
    return answer


def call(url: str, number: int, tool: Json) -> None:
    fields = tool["inputSchema"].get("properties", {})
    arguments = {name: VALUES.get(field.get("type"), {}) for name, field in fields.items()}
    headers = {"Mcp-Name": tool["name"]}
    for name, field in fields.items():
        annotation = field.get("x-mcp-header")
        if isinstance(annotation, str) and annotation.isalnum() and field["type"] == "string":
            headers[f"Mcp-Param-{annotation}"] = arguments[name]
    request(url, number, "tools/call", {"name": tool["name"], "arguments": arguments}, headers)


def main(url: str) -> None:
    tools = request(url, 1, "tools/list", {}, {})["result"]["tools"]
    for number, tool in enumerate(tools, 2):
        call(url, number, tool)


main(sys.argv[1])
