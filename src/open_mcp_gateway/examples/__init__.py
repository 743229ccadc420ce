"""MCP servers to try the gateway with: separate programs, started by it like any other server.

Nothing of the gateway imports them, and they import nothing of it but its version.
"""
