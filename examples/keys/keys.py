"""One key from beginning to end: made for one tool, used, refused another tool, revoked.

    MCP_GATEWAY_API_KEY=… GATEWAY=http://127.0.0.1:4444 python3 examples/keys/keys.py

The key has to have ``keys:write``, and the gateway a store and the server ``demo``.
"""

from __future__ import annotations

import json
import os
import secrets
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

GATEWAY = os.environ.get("GATEWAY", "http://127.0.0.1:4444")
ADMIN = os.environ["MCP_GATEWAY_API_KEY"]


def ask(key: str, method: str, path: str, body: object = None) -> tuple[int, str | None, Any]:
    """Status, the reason for a refused key, and body."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        answer = urlopen(Request(GATEWAY + path, data, headers, method=method))
    except HTTPError as refusal:
        answer = refusal
    with answer:
        return answer.status, answer.headers["X-Auth-Reason"], json.load(answer)


def call(key: str, tool: str, **arguments: object) -> Any:
    """The answer of one tool of the server ``demo``."""
    params = {"name": tool, "arguments": arguments}
    message = {"server_id": "demo", "id": 1, "method": "tools/call", "params": params}
    return ask(key, "POST", "/mcp", message)[2]


wanted = {
    "name": f"agent-{secrets.token_hex(4)}",
    "scope": {"tools": ["demo/add"]},
    "expires_in": "10m",
}
status, _, made = ask(ADMIN, "POST", "/admin/keys", wanted)
if status != 201:
    raise SystemExit(f"{status} {made['message']}")
key = made["secret"]  # in this answer and in no other
print("made", made["id"])

print("demo/add:", call(key, "add", a=2, b=3)["result"]["content"][0]["text"])
print("demo/echo:", call(key, "echo", text="hello")["error"]["message"])

question = {"action": "mcp:call", "server": "demo", "tool": "echo"}
why = ask(key, "POST", "/auth/explain", question)[2]
print("why:", why["code"])
for change in why["smallest_fix"]:
    print("what would help:", change["path"], change["value"])

ask(ADMIN, "DELETE", f"/admin/keys/{made['id']}?reason=example")
status, reason, _ = ask(key, "GET", "/whoami")
print("revoked:", status, reason)
