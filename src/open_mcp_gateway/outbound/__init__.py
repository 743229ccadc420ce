"""Transports out: how servers are started, reached and spoken to. Takes a Permit for every call."""
