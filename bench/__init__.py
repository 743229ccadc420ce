"""Measures what the gateway costs, beside nginx and beside no gateway at all. See README.md."""
