"""Everything known of tenants, roles and keys at one moment, and the door it makes. Pure.

Immutable: a change makes another keyring. What was let in by an old one is then told from what the
new one would let in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from typing import TypeVar, final

from open_mcp_gateway.access.policy import (
    NOTHING,
    ROLES,
    Roles,
    holding_along,
    holding_of,
    principal_of,
)
from open_mcp_gateway.auth.identify import Holding, Identifier, Reason
from open_mcp_gateway.auth.principal import Principal
from open_mcp_gateway.auth.records import KeyRecord, Source, TenantRecord
from open_mcp_gateway.names import KeyId, TenantId

Id = TypeVar("Id")
Record = TypeVar("Record")


@final
class Keyring:
    """All keys with what each may do. SameSecret if two keys share one."""

    __slots__ = ("configured", "identifier", "keys", "parents", "roles", "tenants")

    def __init__(
        self,
        tenants: Iterable[TenantRecord],
        keys: Iterable[KeyRecord],
        now: Callable[[], float],
        *,
        roles: Roles = ROLES,
    ) -> None:
        self.tenants: dict[TenantId, TenantRecord] = {one.id: one for one in tenants}
        self.keys: dict[KeyId, KeyRecord] = {one.id: one for one in keys}
        self.configured = _of_configuration(self.keys.values())
        """Those keys that are not of the store: a few among very many."""

        self.parents = _parents(self.keys.values())
        """Those that others were made with, and maybe some that no longer are there."""

        self.roles = roles
        self.identifier = Identifier(self._holdings(self.keys.values()), now)

    def changed(
        self,
        keys: Iterable[KeyRecord] = (),
        tenants: Iterable[TenantRecord] = (),
        *,
        gone: Collection[KeyId] = (),
        gone_tenants: Collection[TenantId] = (),
    ) -> Keyring:
        """Another one with these records in place of those with the same ids, and without those
        that are ``gone``. SameSecret as above."""
        new_keys = {one.id: one for one in keys}
        new_tenants = {one.id: one for one in tenants}
        other = object.__new__(Keyring)
        other.roles = self.roles
        other.tenants = _changed(self.tenants, gone_tenants, new_tenants)
        other.keys = _changed(self.keys, gone, new_keys)
        touched = {*new_tenants, *gone_tenants}
        affected = dict(new_keys)
        if touched:
            affected |= {one.id: one for one in other.keys.values() if one.holder in touched}
        other.parents = self.parents | _parents(new_keys.values())
        heads = other.parents.intersection((*affected, *gone))
        if heads:
            affected |= _descendants(other.keys, heads)
        before = [self.keys[key_id] for key_id in (*affected, *gone) if key_id in self.keys]
        other.configured = self.configured
        left = [self.keys[one] for one in gone if one in self.keys]
        if _of_configuration((*left, *new_keys.values())):
            other.configured = _of_configuration(other.keys.values())
        old = [digest for record in before for digest in record.digests]
        other.identifier = self.identifier.changed(old, other._holdings(affected.values()))
        return other

    def _holdings(self, keys: Iterable[KeyRecord]) -> Iterable[tuple[bytes, Holding]]:
        done: dict[KeyId, Holding] = {}
        for record in keys:
            holding = self._holding(record, done)
            for digest in record.digests:
                yield digest, holding

    def _holding(self, record: KeyRecord, done: dict[KeyId, Holding]) -> Holding:
        return holding_along(record, self.keys.get, self._own, done)

    def _own(self, record: KeyRecord) -> Holding:
        return holding_of(record, self.tenants, self.roles)

    def principal(self, record: KeyRecord) -> Principal:
        """What ``record`` may do."""
        return self._holding(record, {}).principal

    def written(self, record: KeyRecord) -> Principal:
        """What ``record`` could do if it had not been made with another key."""
        return principal_of(record, self.tenants, self.roles)

    def bound(self, record: KeyRecord) -> Principal | None:
        """What the key that ``record`` was made with may do; None: it was made with none."""
        if record.parent is None:
            return None
        done: dict[KeyId, Holding] = {}
        self._holding(record, done)
        return done.get(record.parent, NOTHING).principal

    def not_live(self, record: KeyRecord, now_s: float) -> Reason | None:
        """Why ``record`` opens to nobody at that moment, whatever it may do; None: it opens."""
        return holding_of(record, self.tenants, self.roles).not_live(now_s)


def _parents(keys: Iterable[KeyRecord]) -> frozenset[KeyId]:
    return frozenset(one.parent for one in keys if one.parent is not None)


def _descendants(keys: dict[KeyId, KeyRecord], heads: Iterable[KeyId]) -> dict[KeyId, KeyRecord]:
    """All that were made with one of ``heads``, directly or not."""
    children: dict[KeyId, list[KeyRecord]] = defaultdict(list)
    for one in keys.values():
        if one.parent is not None:
            children[one.parent].append(one)
    found: dict[KeyId, KeyRecord] = {}
    waiting = list(heads)
    while waiting:
        for child in children.pop(waiting.pop(), ()):
            found[child.id] = child
            waiting.append(child.id)
    return found


def _of_configuration(keys: Iterable[KeyRecord]) -> tuple[KeyRecord, ...]:
    return tuple(one for one in keys if one.source is Source.CONFIG)


def _changed(
    records: dict[Id, Record], gone: Collection[Id], new: dict[Id, Record]
) -> dict[Id, Record]:
    """A copy, made once: of a hundred thousand records it takes some milliseconds."""
    if not gone and not new:
        return records
    changed = records.copy()
    for one in gone:
        changed.pop(one, None)
    changed.update(new)
    return changed
