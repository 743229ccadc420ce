"""A real server on PyPI mcp 1: sessions only. Arguments: http|sse PORT [json]."""

# mypy: ignore-errors
# Runs on a package of an environment of its own.

import asyncio
import sys

from mcp import types
from mcp.server.fastmcp import Context, FastMCP
from mcp.shared.message import ServerMessageMetadata

kind, port = sys.argv[1], int(sys.argv[2])
server = FastMCP("sessions-only", host="127.0.0.1", port=port, json_response="json" in sys.argv)


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
async def chatty(ctx: Context) -> str:
    """Logs and reports progress before it answers."""
    await ctx.info("working")
    await ctx.report_progress(1, 2)
    return "done"


@server.tool()
async def asks(ctx: Context) -> str:
    """Pings its client in the middle of the call."""
    related = ServerMessageMetadata(related_request_id=ctx.request_id)
    ping = types.ServerRequest(types.PingRequest())
    await ctx.session.send_request(ping, types.EmptyResult, metadata=related)
    return "the client answered"


@server.tool()
async def forever() -> str:
    """Never answers."""
    await asyncio.Event().wait()
    return "unreachable"


if kind == "sse":
    asyncio.run(server.run_sse_async())
else:
    asyncio.run(server.run_streamable_http_async())
