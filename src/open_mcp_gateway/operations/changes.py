"""One change to the store at a time, in force in this process before anybody is told of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, final

import anyio
from anyio import to_thread

from open_mcp_gateway.errors import NotConfigured
from open_mcp_gateway.keystore.store import KeyStore, StoreChanges, Transaction

Result = TypeVar("Result")


@final
class Changer:
    """Carries changes out. ``turn`` puts what was written in force, on the event loop."""

    __slots__ = ("_lock", "_store", "_turn")

    def __init__(self, store: KeyStore | None, turn: Callable[[StoreChanges], None]) -> None:
        self._store = store
        self._turn = turn
        self._lock = anyio.Lock()

    async def change(self, work: Callable[[Transaction], Result]) -> Result:
        """What ``work`` gives, once it is written and in force.

        Raises:
            NotConfigured: there is no store.
            StoreUnavailable: it does not answer.
        """
        store = self._checked_store()
        async with self._lock:
            # What is written must come into force, whether or not anybody still waits for it. The
            # lock keeps two changes from coming into force in another order than they were made.
            with anyio.CancelScope(shield=True):
                result, changes = await to_thread.run_sync(store.transact, work)
                if changes.keys or changes.tenants:
                    self._turn(changes)
        return result

    async def catch_up(self, after_rev: int) -> None:
        """Put in force what was written after a revision, by whichever process.

        Raises as ``change``.
        """
        store = self._checked_store()
        async with self._lock:
            with anyio.CancelScope(shield=True):
                self._turn(await to_thread.run_sync(store.read, after_rev))

    def _checked_store(self) -> KeyStore:
        if self._store is None:
            raise NotConfigured("auth.store is not configured", code="store_not_configured")
        return self._store
