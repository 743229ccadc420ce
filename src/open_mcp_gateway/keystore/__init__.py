"""Where keys and tenants that are not in a file are kept. Blocking: used from worker threads."""
