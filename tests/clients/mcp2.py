"""PyPI mcp 2 as a client. What goes in and comes out stands in README.md."""

# mypy: ignore-errors
# Runs on a package of an environment of its own.

import json
import sys
import traceback
import warnings

import anyio
import httpx2
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client


async def reach(mode: str, target: dict) -> dict:
    if "url" in target:
        async with httpx2.AsyncClient(headers=target["headers"], timeout=30) as http:
            return await look(mode, target, streamable_http_client(target["url"], http_client=http))
    command, *args = target["command"]
    server = StdioServerParameters(command=command, args=args, env=target["env"])
    return await look(mode, target, stdio_client(server))


async def look(mode: str, target: dict, transport: object) -> dict:
    async with Client(transport, mode=mode) as client:
        tools = await client.list_tools()
        called = await client.call_tool(target["tool"], target["arguments"])
        if client.protocol_version < "2026":
            with warnings.catch_warnings(action="ignore"):  # deprecated, and used all the same
                await client.send_ping()
        try:
            refused = await client.call_tool("no-such-tool", {})
            error = refused.content[0].text
        except MCPError as raised:
            error = raised.error.message
        return {
            "version": client.protocol_version,
            "server": client.server_info.name if client.server_info else None,
            "tools": [tool.name for tool in tools.tools],
            "text": called.content[0].text,
            "error": error,
        }


async def main() -> None:
    task = json.load(sys.stdin)
    seen: dict[str, dict] = {}

    async def one(name: str, target: dict) -> None:
        try:
            seen[name] = await reach(task["mode"], target)
        except Exception:  # noqa: BLE001 - told to the test
            seen[name] = {"failed": traceback.format_exc()}

    async with anyio.create_task_group() as tasks:
        for name, target in task["targets"].items():
            tasks.start_soon(one, name, target)
    json.dump(seen, sys.stdout)


anyio.run(main)
