"""A key store in memory: the whole contract but for outliving the process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from msgspec.structs import replace

from open_mcp_gateway.auth.principal import Holder
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.keystore.store import Remembered, StoreChanges, Transaction
from open_mcp_gateway.names import KeyId, TenantId

Result = TypeVar("Result")


class MemoryTransaction:
    """Works on copies, which the store takes over when all went well."""

    def __init__(self, store: MemoryStore) -> None:
        self.rev = store.rev + 1
        self.keys = dict(store.keys)
        self.tenants = dict(store.tenants)
        self.outcomes = dict(store.outcomes)
        self.written_keys: dict[KeyId, KeyRecord] = {}
        self.written_tenants: dict[TenantId, TenantRecord] = {}

    def key(self, key_id: KeyId) -> KeyRecord | None:
        return self.keys.get(key_id)

    def key_with_digest(self, digest: bytes) -> KeyRecord | None:
        return next((one for one in self.keys.values() if digest in one.digests), None)

    def live_key_named(self, holder: Holder, name: str) -> KeyRecord | None:
        live = (one for one in self.keys_of(holder) if one.revoked_at is None)
        return next((one for one in live if one.name == name), None)

    def keys_of(self, holder: Holder) -> list[KeyRecord]:
        return [one for one in self.keys.values() if one.holder == holder]

    def children_of(self, key_id: KeyId) -> list[KeyRecord]:
        return [one for one in self.keys.values() if one.parent == key_id]

    def tenant(self, tenant_id: TenantId) -> TenantRecord | None:
        return self.tenants.get(tenant_id)

    def put_key(self, record: KeyRecord) -> KeyRecord:
        written = replace(record, rev=self.rev)
        self.keys[record.id] = self.written_keys[record.id] = written
        return written

    def put_tenant(self, record: TenantRecord) -> TenantRecord:
        written = replace(record, rev=self.rev)
        self.tenants[record.id] = self.written_tenants[record.id] = written
        return written

    def remembered(self, actor: str, idempotency_key: str, after_s: float) -> Remembered | None:
        found = self.outcomes.get((actor, idempotency_key))
        return found[1] if found is not None and found[0] > after_s else None

    def remember(self, actor: str, idempotency_key: str, outcome: Remembered, now_s: float) -> None:
        self.outcomes[actor, idempotency_key] = (now_s, outcome)


class MemoryStore:
    """Serialises changes with a lock."""

    def __init__(self) -> None:
        self.rev = 0
        self.keys: dict[KeyId, KeyRecord] = {}
        self.tenants: dict[TenantId, TenantRecord] = {}
        self.outcomes: dict[tuple[str, str], tuple[float, Remembered]] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    def read(self, after_rev: int = -1) -> StoreChanges:
        with self._lock:
            return StoreChanges(
                rev=self.rev,
                tenants=tuple(one for one in self.tenants.values() if one.rev > after_rev),
                keys=tuple(one for one in self.keys.values() if one.rev > after_rev),
            )

    def transact(self, work: Callable[[Transaction], Result]) -> tuple[Result, StoreChanges]:
        with self._lock:
            tx = MemoryTransaction(self)
            result = work(tx)
            if tx.written_keys or tx.written_tenants:
                self.rev = tx.rev
                self._changed.notify_all()
            self.keys, self.tenants, self.outcomes = tx.keys, tx.tenants, tx.outcomes
            changes = StoreChanges(
                rev=self.rev,
                tenants=tuple(tx.written_tenants.values()),
                keys=tuple(tx.written_keys.values()),
            )
            return result, changes

    def wait_for_change(self, timeout_s: float) -> bool:
        with self._lock:
            return self._changed.wait(timeout_s)

    def note_use(self, used: Mapping[KeyId, float]) -> None:
        with self._lock:
            for key_id, at_s in used.items():
                record = self.keys[key_id]
                last = max(record.last_used_at or 0.0, at_s)
                self.keys[key_id] = replace(record, last_used_at=last)

    def close(self) -> None:
        return
