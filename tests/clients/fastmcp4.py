"""PyPI fastmcp 4 as a client. What goes in and comes out stands in README.md."""

# mypy: ignore-errors
# Runs on a package of an environment of its own.

import asyncio
import json
import sys
import traceback

from fastmcp import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
from fastmcp.exceptions import ToolError
from mcp import MCPError


def transport_to(target: dict) -> StdioTransport | StreamableHttpTransport:
    if "url" in target:
        return StreamableHttpTransport(target["url"], headers=target["headers"])
    command, *args = target["command"]
    return StdioTransport(command, args, env=target["env"], keep_alive=False)


async def look(mode: str, target: dict) -> dict:
    async with Client(transport_to(target), mode=mode) as client:
        tools = await client.list_tools()
        called = await client.call_tool(target["tool"], target["arguments"])
        try:
            refused = await client.call_tool("no-such-tool", {})
            error = refused.content[0].text
        except (ToolError, MCPError) as raised:
            error = str(raised)
        return {
            "version": client.protocol_version,
            "server": client.server_info.name if client.server_info else None,
            "tools": [tool.name for tool in tools],
            "text": called.content[0].text,
            "error": error,
        }


async def tell(mode: str, target: dict) -> dict:
    try:
        return await look(mode, target)
    except Exception:  # noqa: BLE001 - told to the test
        return {"failed": traceback.format_exc()}


async def main() -> None:
    task = json.load(sys.stdin)
    targets = task["targets"]
    seen = await asyncio.gather(*(tell(task["mode"], target) for target in targets.values()))
    json.dump(dict(zip(targets, seen, strict=True)), sys.stdout)


asyncio.run(main())
