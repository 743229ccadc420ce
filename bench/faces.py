"""The ways to put one ``tools/call`` to what is measured."""

from __future__ import annotations

import http.client
import json
from typing import Any, Final, Protocol

SESSIONS: Final = "2025-11-25"
STATELESS: Final = "2026-07-28"
_META: Final = {
    "io.modelcontextprotocol/protocolVersion": STATELESS,
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Face(Protocol):
    """Where calls go, with which headers beside the usual ones, and what they look like."""

    path: str
    headers: dict[str, str]
    unique_ids: bool
    """No two calls in flight may have the same id."""

    def call(self, id_: int | str, text: str) -> dict[str, Any]: ...


class Envelope:
    """``POST /mcp`` with the server's id in the message. What takes no envelope passes over it."""

    path = "/mcp"

    def __init__(self, server_id: str, *, unique_ids: bool = False) -> None:
        self.server_id = server_id
        self.unique_ids = unique_ids
        self.headers: dict[str, str] = {}

    def call(self, id_: int | str, text: str) -> dict[str, Any]:
        return {"server_id": self.server_id, **_call(id_, text)}


class Session:
    """``POST /servers/{id}/mcp`` within one session, opened at once."""

    unique_ids = True

    def __init__(self, port: int, server_id: str, key: str) -> None:
        self.path = f"/servers/{server_id}/mcp"
        self.headers = {"MCP-Protocol-Version": SESSIONS}
        client = {"name": "bench", "version": "1"}
        params = {"protocolVersion": SESSIONS, "capabilities": {}, "clientInfo": client}
        opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        sent = {"Content-Type": "application/json", "X-API-Key": key}
        connection.request("POST", self.path, json.dumps(opening), sent)
        response = connection.getresponse()
        response.read()
        self.headers["Mcp-Session-Id"] = response.headers["Mcp-Session-Id"]
        connection.close()

    def call(self, id_: int | str, text: str) -> dict[str, Any]:
        return _call(id_, text)


class Stateless:
    """``POST /servers/{id}/mcp`` of the stateless era."""

    unique_ids = False

    def __init__(self, server_id: str) -> None:
        self.path = f"/servers/{server_id}/mcp"
        self.headers = {
            "MCP-Protocol-Version": STATELESS,
            "Mcp-Method": "tools/call",
            "Mcp-Name": "echo",
        }

    def call(self, id_: int | str, text: str) -> dict[str, Any]:
        call = _call(id_, text)
        call["params"]["_meta"] = _META
        return call


def _call(id_: int | str, text: str) -> dict[str, Any]:
    params = {"name": "echo", "arguments": {"text": text}}
    return {"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": params}
