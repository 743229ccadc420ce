"""A real server on PyPI mcp 2: both eras on one URL, ``/mcp``. Arguments: PORT [json]."""

# mypy: ignore-errors
# Runs on a package of an environment of its own.

import asyncio
import sys

from mcp.server import MCPServer

server = MCPServer("two-eras", version="2.0.1")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
async def forever() -> str:
    """Never answers."""
    await asyncio.Event().wait()
    return "unreachable"


@server.resource("test://greeting/ÿ")
def greeting() -> str:
    """A resource whose URI no header can carry as it is."""
    return "hello"


asyncio.run(
    server.run_streamable_http_async(port=int(sys.argv[1]), json_response="json" in sys.argv)
)
