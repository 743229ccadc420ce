"""The key store that a configuration names, opened for as long as a command needs it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from open_mcp_gateway.config.model import StoreLocation
from open_mcp_gateway.keystore.open import create_store, open_store
from open_mcp_gateway.keystore.store import KeyStore


@contextmanager
def opened(place: StoreLocation, *, create: bool = False) -> Iterator[KeyStore]:
    """The store at ``place``; with ``create`` what is missing is made.

    Raises:
        InvalidConfig: it is not there, or cannot be used.
    """
    at = {"path": place.path} if place.path is not None else {"url": place.url}
    store = create_store(place.kind, **at) if create else open_store(place.kind, **at)
    try:
        for warning in store.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        yield store
    finally:
        store.close()
