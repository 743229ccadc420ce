"""What a server offers over stdio, asked by PyPI mcp 2: ``MODE TOOL COMMAND ...``, as JSON."""

# mypy: ignore-errors
# Runs on a package of an environment of its own.

import asyncio
import json
import os
import sys

from mcp.client import Client
from mcp.client.stdio import StdioServerParameters


async def main(mode, command, *arguments):
    server = StdioServerParameters(command=command, args=list(arguments), env=dict(os.environ))
    async with Client(server, mode=mode) as client:
        tools = (await client.list_tools()).tools
        result = await client.call_tool(sys.argv[2], {"name": "Ada"})
    print(json.dumps({"tools": [tool.name for tool in tools], "said": result.content[0].text}))


asyncio.run(main(sys.argv[1], *sys.argv[3:]))
