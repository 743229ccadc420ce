"""One change to keys in the making: what it takes, decided from the newest state there is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import UNSET
from msgspec.structs import replace

from open_mcp_gateway.access.authorize import require
from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.access.permit import Clearance
from open_mcp_gateway.access.policy import holding_along, holding_of, may_have, principal_of
from open_mcp_gateway.auth.identify import Holding
from open_mcp_gateway.auth.principal import PLATFORM, Holder, Platform, Principal
from open_mcp_gateway.auth.records import KeyRecord, Source, TenantRecord
from open_mcp_gateway.errors import Conflict, InvalidRequest, NotFound, Outdated, WrongKey
from open_mcp_gateway.keystore.store import Transaction
from open_mcp_gateway.names import TENANT_ID, KeyId, TenantId, alike
from open_mcp_gateway.operations.admins import check_an_admin_stays, is_admin
from open_mcp_gateway.operations.editing import check_moments, patched_key
from open_mcp_gateway.operations.inforce import digests_of, without_taken
from open_mcp_gateway.operations.local import LOCAL
from open_mcp_gateway.operations.minting import Rights, check_below, check_subset
from open_mcp_gateway.operations.requests import KeyCreate, KeyPatch, end_s
from open_mcp_gateway.operations.tags import tag_of
from open_mcp_gateway.operations.wanted import Wanted

LONGEST_ID_CHARS: Final = 150
"""Of what is said back of an id."""

MAX_GENERATIONS: Final = 16
"""Of keys that were made each with the one before: what a key may do depends on all above it."""


class KeyWork:
    """What one transaction does about keys, in the name of ``clearance``.

    Raises, when it is made:
        WrongKey: the caller's own key is no longer in force.
        Denied: it has lost the permission.
    """

    def __init__(self, tx: Transaction, ring: Keyring, clearance: Clearance, now_s: float) -> None:
        self.tx = tx
        self.ring = ring
        self.now_s = now_s
        self.giver = self._giver(clearance)

    def make(self, wanted: Wanted) -> KeyRecord:
        """Write the key that is ``wanted``; refuses before anything is written."""
        giver, request = self.giver.principal, wanted.request
        creator = self.ring.keys.get(giver.key_id)
        in_file = creator is not None and creator.source is Source.CONFIG
        rootless = in_file or giver is LOCAL
        record = KeyRecord(
            id=wanted.key_id,
            holder=self._holder(request),
            name=request.name,
            role=request.role,
            scope=request.scope,
            digests=(wanted.digest,),
            hint=wanted.hint,
            ip_allow=request.ip_allow,
            metadata=request.metadata,
            not_before=None if request.not_before is None else request.not_before.timestamp(),
            expires_at=end_s(request.expires_in, request.expires_at, self.now_s),
            created_at=self.now_s,
            created_by=giver.key_id,
            # What is in a file can neither be revoked here nor take its children with it.
            parent=None if rootless else giver.key_id,
            source=Source.STORE,
        )
        check_moments(record)
        self._check_role(record)
        check_subset(self.giver, self._written(record))
        self._check_generation(record)
        self._check_name_free(record)
        self._check_digest_free(record)
        return self.tx.put_key(record)

    def patch(self, key_id: str, patch: KeyPatch, rev: str | None) -> KeyRecord:
        """Write what a key becomes. It must be within what the caller has, before and after."""
        record = self.stored(key_id, rev)
        if record.revoked_at is not None:
            raise Conflict("the key is revoked", code="revoked")
        self.check_below([record])
        after = patched_key(record, patch, self.now_s)
        if patch.role is not UNSET:  # One whose role is gone can still be switched off.
            self._check_role(after)
        # What stays as it is written is not judged by that: it may say more than is given of it.
        stays = patch.role is UNSET and patch.scope is UNSET and patch.ip_allow is UNSET
        check_subset(self.giver, self._rights(after) if stays else self._written(after))
        if not stays:
            self._check_parent_has(after)
        if after.name != record.name:
            self._check_name_free(after)
        self.check_admins([record], [after])
        return self.tx.put_key(after)

    def stored(self, key_id: str, rev: str | None) -> KeyRecord:
        """The newest state of a key that can be changed."""
        known = self.ring.keys.get(KeyId(key_id))
        if known is not None and known.source is Source.CONFIG:
            governed(self.giver.principal, known, key_id)
            raise Conflict("the key is kept in the configuration", code="read_only")
        record = governed(self.giver.principal, self.tx.key(KeyId(key_id)), key_id)
        if rev is not None and rev != tag_of(record):
            raise Outdated("the key has been changed since")
        return record

    def live_descendants(self, key_id: KeyId) -> list[KeyRecord]:
        """All that were made with a key, directly or not, and are not revoked."""
        found: dict[KeyId, KeyRecord] = {}
        waiting = [key_id]
        while waiting:
            for child in self.tx.children_of(waiting.pop()):
                if child.id not in found:
                    found[child.id] = child
                    waiting.append(child.id)
        return [one for one in found.values() if one.revoked_at is None and one.id != key_id]

    def check_below(self, records: Iterable[KeyRecord]) -> None:
        """Raises Escalation if one has more than the caller; itself anybody may change."""
        done: dict[KeyId, Holding] = {}
        for one in records:
            if one.id != self.giver.principal.key_id:
                check_below(self.giver, self._rights(one, done))

    def check_admins(self, before: Iterable[KeyRecord], after: Iterable[KeyRecord]) -> None:
        """Raises Conflict if no administrator is left when ``before`` becomes ``after``."""
        if not any(is_admin(one, self.now_s) for one in before):
            return  # All keys of the platform are read below: others wait for that.
        taken = digests_of(self.ring.configured)
        changed = {one.id: without_taken(one, taken) for one in after}
        stored = [without_taken(one, taken) for one in self.tx.keys_of(PLATFORM)]
        check_an_admin_stays(self.ring.configured, stored, changed, self.now_s)

    def _giver(self, clearance: Clearance) -> Rights:
        if clearance.principal is LOCAL:
            return Rights(principal=LOCAL, expires_at=None, ip_allow=None)
        key_id = clearance.principal.key_id
        record = self._key(key_id)
        if record is None:
            raise WrongKey("Invalid API key")
        # What the door saw may be older than this: its tenant counts as it is now, too.
        reason = self._own(record).not_live(self.now_s)
        if reason is not None:
            raise WrongKey("Invalid API key", reason=reason)
        rights = self._rights(record)
        require(rights.principal, clearance.permission)
        return rights

    def _key(self, key_id: KeyId) -> KeyRecord | None:
        """Of the configuration, else the newest of the store."""
        record = self.ring.keys.get(key_id)
        if record is None or record.source is Source.STORE:
            record = self.tx.key(key_id)
        return record

    def _own(self, record: KeyRecord) -> Holding:
        return holding_of(record, self._tenants(record), self.ring.roles)

    def _rights(self, record: KeyRecord, done: dict[KeyId, Holding] | None = None) -> Rights:
        """What a key has at this moment. ``done`` keeps what those above it have, for others that
        are looked at before anything is written."""
        holding = holding_along(record, self._key, self._own, {} if done is None else done)
        networks = holding.networks
        return Rights(
            principal=holding.principal,
            expires_at=record.expires_at,
            ip_allow=None if networks is None else tuple(str(one) for one in networks),
        )

    def _written(self, record: KeyRecord) -> Rights:
        """What a key has whatever becomes of the one that it was made with."""
        principal = principal_of(record, self._tenants(record), self.ring.roles)
        return Rights(principal=principal, expires_at=record.expires_at, ip_allow=record.ip_allow)

    def _check_parent_has(self, record: KeyRecord) -> None:
        """Raises Escalation for what would be written and not given: a key has no more than the
        one that it was made with, whoever changes it."""
        parent = None if record.parent is None else self._key(record.parent)
        if parent is not None:
            written = self._written(record)
            above = replace(written, principal=self._rights(parent).principal)
            check_subset(
                above, written, "A key cannot have more than the one that it was made with"
            )

    def _check_generation(self, record: KeyRecord) -> None:
        """Raises Conflict for a key at the end of a line that is long enough."""
        parent = record.parent
        for _ in range(MAX_GENERATIONS):
            if parent is None:
                return
            above = self._key(parent)
            parent = None if above is None else above.parent
        raise Conflict(
            f"a key can have {MAX_GENERATIONS} above it and no more", code="too_many_generations"
        )

    def _tenants(self, record: KeyRecord) -> dict[TenantId, TenantRecord]:
        """The one that holds a key, if there is one."""
        holder = record.holder
        tenant = None if isinstance(holder, Platform) else self._tenant(holder)
        return {} if tenant is None else {tenant.id: tenant}

    def _tenant(self, tenant_id: TenantId) -> TenantRecord | None:
        """Of the configuration, else the newest of the store."""
        tenant = self.ring.tenants.get(tenant_id)
        if tenant is None or tenant.source is Source.STORE:
            tenant = self.tx.tenant(tenant_id)
        return tenant

    def _holder(self, request: KeyCreate) -> Holder:
        """Whose the new key is. Raises NotFound for a tenant the caller may not know of."""
        if isinstance(request.tenant, str):
            tenant_id = TenantId(request.tenant)
            # What can be no id is not looked for: a database may not even take it as text.
            tenant = self._tenant(tenant_id) if TENANT_ID.fullmatch(tenant_id) else None
            lives = tenant is not None and tenant.deleted_at is None
            if lives and self.giver.principal.governs(tenant_id):
                return tenant_id
            raise NotFound(f"Tenant '{request.tenant[:LONGEST_ID_CHARS]}' not found")
        return PLATFORM if request.tenant is None else self.giver.principal.holder

    def _check_role(self, record: KeyRecord) -> None:
        if not may_have(record.holder, record.role):
            raise InvalidRequest(
                f"`role` {record.role} is not for keys of tenants: use tenant-admin"
            )
        if record.role not in self.ring.roles:
            raise InvalidRequest(f"`role` must be one of {', '.join(self.ring.roles)}")

    def _check_name_free(self, record: KeyRecord) -> None:
        other = self.tx.live_key_named(record.holder, record.name)
        names = {alike(one.name) for one in self.ring.configured if one.holder == record.holder}
        if alike(record.name) in names or (other is not None and other.id != record.id):
            raise Conflict(
                "a key of that name, or of one that looks like it, is live", code="name_taken"
            )

    def _check_digest_free(self, record: KeyRecord) -> None:
        """One secret is one key: nobody could say whose it is otherwise."""
        digest = record.digests[0]
        configured = any(digest in one.digests for one in self.ring.configured)
        if configured or self.tx.key_with_digest(digest) is not None:
            raise Conflict("there is a key with that hash", code="hash_taken")


def governed(principal: Principal, record: KeyRecord | None, key_id: str) -> KeyRecord:
    """``record`` if it is the caller's business; one that is not looks like a missing one."""
    if record is None or not principal.governs(record.holder):
        raise NotFound(f"Key '{key_id[:LONGEST_ID_CHARS]}' not found")
    return record
