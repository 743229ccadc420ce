"""Open MCP Gateway: one authenticated front door to every MCP server."""

__version__ = "0.1.0"
