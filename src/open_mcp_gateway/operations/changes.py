"""What is written to the store, by this process or another, comes into force in that order."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar, final

import anyio
from anyio import CapacityLimiter, to_thread
from msgspec.structs import replace

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.errors import NotConfigured
from open_mcp_gateway.keystore.store import KeyStore, StoreChanges, Transaction
from open_mcp_gateway.operations.inforce import KeysInForce

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@final
class Changer:
    """The only one who writes to ``store`` and reads it. ``keys`` is what is in force of it, and
    ``turn`` is told of every other keyring, on the event loop.

    One lock from the store to the keyring for all but plain news: whatever was read or written
    first is in force first, so that nothing older takes the place of anything newer, not even where
    the store itself went back. Of plain news their revisions say what is newer. They do not wait
    for a change that takes long, which would look like a store that does not answer.
    """

    __slots__ = ("_lock", "_store", "_turn", "keys")

    def __init__(
        self, store: KeyStore | None, keys: KeysInForce, turn: Callable[[Keyring], None]
    ) -> None:
        self.keys = keys
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
            known = self.keys.rev, self.keys.tag
            # What is written must come into force, whether or not anybody still waits for it.
            with anyio.CancelScope(shield=True):
                result, changes = await to_thread.run_sync(store.transact, work, *known)
                if changes.keys or changes.tenants:
                    self._put_in_force(self.keys.take, changes)
        return result

    async def catch_up(self, limiter: CapacityLimiter | None = None) -> None:
        """Put in force what was written to the store, by whichever process.

        With a ``limiter`` for its thread the reading is given up on when the caller is cancelled.
        Raises as ``change``.
        """
        store = self._checked_store()
        while True:
            before = self.keys.keyring
            rev, tag = self.keys.rev, self.keys.tag
            changes = await _read(store, limiter, rev, tag)
            if changes.whole:
                await self._take_whole(store, limiter, changes, before)
                return
            if self.keys.keyring is before:  # else some of it may be older than what is in force
                self._put_in_force(self.keys.follow, changes)
                return

    async def _take_whole(
        self,
        store: KeyStore,
        limiter: CapacityLimiter | None,
        changes: StoreChanges,
        before: Keyring,
    ) -> None:
        """Put in force all there is, which was read while ``before`` was."""
        rev_before = self.keys.rev
        # A store says once that it is another one: until that is in force, nothing is known of it.
        self.keys.rev = -1
        async with self._lock:
            if self.keys.keyring is not before:
                changes = replace(await _read(store, limiter), rewritten=changes.rewritten)
            # What this process wrote itself may be newer than the revision it compared by, and the
            # store may have gone on for so long that it cannot tell by that.
            if changes.rewritten or self.keys.contradicts(changes, rev_before):
                log.warning(
                    "the key store went back in time: what was revoked since may open again",
                    extra={"rev": changes.rev, "rev_before": rev_before},
                )
            self._put_in_force(self.keys.follow, changes)

    def _put_in_force(
        self, taken: Callable[[StoreChanges], Keyring], changes: StoreChanges
    ) -> None:
        before = self.keys.keyring
        keyring = taken(changes)
        if keyring is not before:  # as it is when news is of a change of this process itself
            self._turn(keyring)

    def _checked_store(self) -> KeyStore:
        if self._store is None:
            raise NotConfigured("auth.store is not configured", code="store_not_configured")
        return self._store


async def _read(
    store: KeyStore, limiter: CapacityLimiter | None, after_rev: int = -1, tag: str | None = None
) -> StoreChanges:
    with anyio.CancelScope(shield=limiter is None):
        found = await to_thread.run_sync(
            store.read, after_rev, tag, limiter=limiter, abandon_on_cancel=True
        )
    return found  # noqa: RET504 - for mypy a scope may end what is in it
