"""What a key store does, whichever database is behind it.

Every method blocks and is called in a worker thread. Each change is one serialised transaction
that raises the revision ``rev`` by one and stamps it on every row it wrote, so that other processes
on the same store find what is new by asking for everything after the revision they have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from msgspec import Struct

from open_mcp_gateway.auth.principal import Holder
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.names import KeyId, TenantId

Result = TypeVar("Result")


class StoreChanges(Struct, frozen=True, kw_only=True):
    """Records as they are at revision ``rev``; revoked keys and deleted tenants stay as such."""

    rev: int
    tag: str = ""
    """Of the change that made this revision; another history has another one there."""

    tenants: tuple[TenantRecord, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    whole: bool = False
    """All there is, in place of whatever was known before."""

    rewritten: bool = False
    """What was known before is not what this store has been through: a backup was restored. Of what
    is read it is known to be so, of what was written that may be too long ago to tell."""


class Remembered(Struct, frozen=True, kw_only=True):
    """The outcome of an earlier request with the same idempotency key; never a secret."""

    request_sha256: bytes
    key_id: KeyId


class Transaction(Protocol):
    """One change in the making: sees the newest state, and nobody else changes it meanwhile."""

    def key(self, key_id: KeyId) -> KeyRecord | None: ...
    def key_with_digest(self, digest: bytes) -> KeyRecord | None: ...
    def live_key_named(self, holder: Holder, name: str) -> KeyRecord | None:
        """One that is not revoked and has that name, or one that is ``alike``."""

    def keys_of(self, holder: Holder) -> list[KeyRecord]:
        """Revoked ones too."""

    def children_of(self, key_id: KeyId) -> list[KeyRecord]:
        """The keys that were made with this one, revoked ones too."""

    def tenant(self, tenant_id: TenantId) -> TenantRecord | None:
        """A deleted one too."""

    def put_key(self, record: KeyRecord) -> KeyRecord:
        """Write it, new or in place of the one with its id; gives it back as it is kept: with its
        ``rev``, moments in whole milliseconds, and the latest use that anybody noted.

        Raises:
            Conflict: ``name_taken`` by another key of the holder that is not revoked and whose name
                is ``alike``, though what was so already may stay; or
                ``key_taken``: another key has one of the digests, revoked or not.
            ValueError: it is not a record of the store, or has no moment of creation.
        """

    def put_tenant(self, record: TenantRecord) -> TenantRecord:
        """Likewise. Raises ValueError like ``put_key``."""

    def remembered(self, actor: str, idempotency_key: str, after_s: float) -> Remembered | None:
        """What was remembered after that moment (seconds since the epoch); older is forgotten."""

    def remember(
        self, actor: str, idempotency_key: str, outcome: Remembered, now_s: float
    ) -> None: ...


class KeyStore(Protocol):
    """Keys and tenants that outlive the process.

    Every method raises StoreUnavailable when the database does not answer.
    """

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should mend, as it was when the store was opened."""

    def read(self, after_rev: int = -1, tag: str | None = None) -> StoreChanges:
        """Everything that was written after a revision; everything there is by default.

        With the ``tag`` of that revision also everything there is where the store has another
        history, or may have: see ``StoreChanges``.
        """

    def transact(
        self,
        work: Callable[[Transaction], Result],
        known_rev: int = -1,
        known_tag: str | None = None,
    ) -> tuple[Result, StoreChanges]:
        """Run ``work`` as one change; what it raises undoes all of it. Gives its result and what it
        wrote, at the new revision. A ``work`` that wrote nothing changes no revision.

        With the revision that is known and its tag also whether the store was ``rewritten``.
        """

    def wait_for_change(self, timeout_s: float) -> bool:
        """Wait until another process may have changed something, or until the time is up. True may
        be wrong, False is not."""

    def note_use(self, used: Mapping[KeyId, float]) -> None:
        """Keep when each key was last used (seconds since the epoch); never moves it back, and
        raises no revision."""

    def used_since(self, after_s: float) -> Mapping[KeyId, float]:
        """When each key was last used, of those for which that was noted as later than ``after_s``
        (seconds since the epoch)."""

    def close(self) -> None: ...
