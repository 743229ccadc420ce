"""What MCP and JSON-RPC look like on the wire. Pure: no I/O, no clocks, no other room."""
