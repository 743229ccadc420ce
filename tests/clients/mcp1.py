"""PyPI mcp 1 as a client. What goes in and comes out stands in README.md."""

# mypy: ignore-errors
# Runs on a package of an environment of its own.

import json
import sys
import traceback
from contextlib import asynccontextmanager

import anyio
import httpx
from mcp import ClientSession, McpError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client


@asynccontextmanager
async def streams_to(target: dict):
    if "url" in target:
        async with (
            httpx.AsyncClient(headers=target["headers"], timeout=30) as http,
            streamable_http_client(target["url"], http_client=http) as (reading, writing, _),
        ):
            yield reading, writing
    else:
        command, *args = target["command"]
        server = StdioServerParameters(command=command, args=args, env=target["env"])
        async with stdio_client(server) as streams:
            yield streams


async def look(target: dict) -> dict:
    async with (
        streams_to(target) as (reading, writing),
        ClientSession(reading, writing) as client,
    ):
        hello = await client.initialize()
        tools = await client.list_tools()
        called = await client.call_tool(target["tool"], target["arguments"])
        await client.send_ping()
        try:
            refused = await client.call_tool("no-such-tool", {})
            error = refused.content[0].text
        except McpError as raised:
            error = raised.error.message
        return {
            "version": hello.protocolVersion,
            "server": hello.serverInfo.name,
            "tools": [tool.name for tool in tools.tools],
            "text": called.content[0].text,
            "error": error,
        }


async def main() -> None:
    task = json.load(sys.stdin)
    seen: dict[str, dict] = {}

    async def one(name: str, target: dict) -> None:
        try:
            seen[name] = await look(target)
        except Exception:  # noqa: BLE001 - told to the test
            seen[name] = {"failed": traceback.format_exc()}

    async with anyio.create_task_group() as tasks:
        for name, target in task["targets"].items():
            tasks.start_soon(one, name, target)
    json.dump(seen, sys.stdout)


anyio.run(main)
