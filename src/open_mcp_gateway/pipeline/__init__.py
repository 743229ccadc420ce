"""The walk of one MCP request after the door: resolve, authorize, lease, forward, answer."""
