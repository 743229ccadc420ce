"""The keys in force: those of the configuration and those of the store, in one keyring. No I/O."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import final

from msgspec import Struct
from msgspec.structs import replace

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.access.policy import ROLES, Roles
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.keystore.store import StoreChanges
from open_mcp_gateway.names import KeyId, TenantId

log = logging.getLogger(__name__)

NOTHING_STORED = StoreChanges(rev=-1)


class Configured(Struct, frozen=True, kw_only=True):
    """What the configuration says of tenants, keys and roles."""

    tenants: tuple[TenantRecord, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    roles: Roles = ROLES


@final
class KeysInForce:
    """One keyring of both sources; a configured tenant hides a stored one with its id, and
    a configured key takes its secret from a stored one."""

    def __init__(
        self,
        configured: Configured,
        now: Callable[[], float],
        stored: StoreChanges = NOTHING_STORED,
    ) -> None:
        self._now = now
        self._configured = configured
        self._tenants = {one.id: one for one in stored.tenants}
        self._keys = {one.id: one for one in stored.keys}
        self.rev = stored.rev
        """Everything up to this revision of the store is in force."""

        self.tag = stored.tag
        """Of that revision."""

        self._used: dict[KeyId, float] = {}
        _say_unusable(stored)
        self.keyring = self._made(configured, _free(stored.keys, configured))

    def reconfigured(self, configured: Configured) -> Keyring:
        """What the keyring would be with another configuration."""
        ring = self.keyring
        stored = _free(self._keys.values(), configured)
        if configured.roles != self._configured.roles:
            return self._made(configured, stored)
        tenants = self._all_tenants(configured)
        keys = (*configured.keys, *stored)
        before = {one.id for one in self._configured.keys}
        return ring.changed(
            [one for one in keys if ring.keys.get(one.id) != one],
            [one for one in tenants.values() if ring.tenants.get(one.id) != one],
            gone=before - {one.id for one in configured.keys},
            gone_tenants=ring.tenants.keys() - tenants.keys(),
        )

    def adopt(self, configured: Configured, keyring: Keyring) -> None:
        """Take what ``reconfigured`` has just given."""
        self._configured = configured
        self.keyring = keyring

    def follow(self, changes: StoreChanges) -> Keyring:
        """The keyring with all that the store has had since ``rev``."""
        if changes.whole:
            return self.replace(changes)
        keyring = self.take(changes)
        self.rev, self.tag = changes.rev, changes.tag
        return keyring

    def take(self, changes: StoreChanges) -> Keyring:
        """The keyring with what was written to the store.

        What is known already is passed over. Where the store was rewritten its revisions are others
        than those that are known, so that nothing can be told from them, and all is taken.
        """
        every = changes.rewritten
        tenants = [one for one in changes.tenants if every or _new(one, self._tenants.get(one.id))]
        keys = [one for one in changes.keys if every or _new(one, self._keys.get(one.id))]
        if not (tenants or keys):
            return self.keyring
        hidden = {one.id for one in self._configured.tenants}
        self.keyring = self.keyring.changed(
            _free(keys, self._configured),
            [one for one in tenants if one.id not in hidden],
        )
        # Known only once it is in the keyring: what failed half way is taken anew.
        self._tenants.update((one.id, one) for one in tenants)
        self._keys.update((one.id, one) for one in keys)
        _say_unusable(changes)
        return self.keyring

    def replace(self, stored: StoreChanges) -> Keyring:
        """The keyring with this in place of everything that was known of the store."""
        self._tenants = {one.id: one for one in stored.tenants}
        self._keys = {one.id: one for one in stored.keys}
        self.rev, self.tag = stored.rev, stored.tag
        self.keyring = self._made(self._configured, _free(stored.keys, self._configured))
        _say_unusable(stored)
        return self.keyring

    def contradicts(self, stored: StoreChanges, rev: int) -> bool:
        """Whether ``stored``, all there is, cannot have come from what is in force, which is all
        that there was up to ``rev``."""
        keys, tenants = _revs(self._keys.values()), _revs(self._tenants.values())
        return _contradict(keys, _revs(stored.keys), rev) or _contradict(
            tenants, _revs(stored.tenants), rev
        )

    def stores(self, key_id: KeyId) -> bool:
        """Whether this is a key of the store."""
        return key_id in self._keys

    def note_uses(self, used: Mapping[KeyId, float]) -> None:
        """Remember when keys of the store were last used; the records say only what they said when
        they were read."""
        self._used.update(used)

    def last_used_s(self, record: KeyRecord) -> float | None:
        """When a key was last used by any process, seconds since the epoch; None: never, or nobody
        keeps that, as for keys of the configuration. Some seconds late."""
        return max(self._used.get(record.id, 0.0), record.last_used_at or 0.0) or None

    def _made(self, configured: Configured, stored: Iterable[KeyRecord]) -> Keyring:
        return Keyring(
            self._all_tenants(configured).values(),
            (*configured.keys, *stored),
            self._now,
            roles=configured.roles,
        )

    def _all_tenants(self, configured: Configured) -> dict[TenantId, TenantRecord]:
        return self._tenants | {one.id: one for one in configured.tenants}


def _say_unusable(stored: StoreChanges) -> None:
    for key in stored.keys:
        if key.unusable and key.revoked_at is None:
            mend = f"open-mcp-gateway keys revoke {key.id}"
            log.error(
                "a key of the store cannot be read and opens nothing",
                extra={"key_id": key.id, "columns": key.unusable, "mend": mend},
            )
    for tenant in stored.tenants:
        if tenant.unusable and tenant.deleted_at is None:
            mend = f"open-mcp-gateway tenants patch {tenant.id}"
            log.error(
                "a tenant of the store cannot be read and reaches nothing",
                extra={"tenant": tenant.id, "columns": tenant.unusable, "mend": mend},
            )


def _revs(records: Iterable[KeyRecord] | Iterable[TenantRecord]) -> dict[str, int]:
    return {one.id: one.rev for one in records}


def _contradict(known: Mapping[str, int], stored: Mapping[str, int], rev: int) -> bool:
    """Nothing is ever removed from a store, so that what is known is still there or is newer there;
    and what is no newer than ``rev`` was known."""
    went_back = any(one > stored.get(key, -1) for key, one in known.items())
    return went_back or any(known.get(key, -1) < one <= rev for key, one in stored.items())


def _new(one: KeyRecord | TenantRecord, known: KeyRecord | TenantRecord | None) -> bool:
    return known is None or one.rev > known.rev


def digests_of(keys: Iterable[KeyRecord]) -> frozenset[bytes]:
    """Of all ``keys``."""
    return frozenset(digest for record in keys for digest in record.digests)


def without_taken(record: KeyRecord, taken: frozenset[bytes]) -> KeyRecord:
    """A stored key as it is in force beside the secrets of the configuration, ``taken``.

    Without its own where one is among them: nobody could say whose that is, so only the configured
    one opens. The other is still shown, and can be revoked."""
    return record if taken.isdisjoint(record.digests) else replace(record, digests=())


def _free(keys: Iterable[KeyRecord], configured: Configured) -> list[KeyRecord]:
    taken = digests_of(configured.keys)
    free = []
    for one in keys:
        free.append(without_taken(one, taken))
        if free[-1] is not one:
            log.error(
                "a stored key has the secret of a configured one and is left out",
                extra={"key_id": one.id, "mend": "give the one of the file another secret"},
            )
    return free
