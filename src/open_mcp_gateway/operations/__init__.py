"""What an administrator can do with keys and tenants; the HTTP API and the programs call these."""
