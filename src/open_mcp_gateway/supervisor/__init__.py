"""The life of servers: started on demand, watched, restarted, stopped. Speaks no MCP itself."""
