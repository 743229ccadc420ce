"""What an administrator can do about tenants.

A tenant's namespaces are what its keys may reach at most, so giving a tenant a namespace is giving
rights: nobody gives one that its own key is not allowed, nor any at all while it may not call
everything in it, for that is what keys of the tenant then may. Taking away is no less: who is
narrowed changes, disables and deletes no tenant that reaches beyond that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec.structs import replace

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.access.permit import Clearance
from open_mcp_gateway.access.tenancy import require_tenant
from open_mcp_gateway.auth.principal import Principal
from open_mcp_gateway.auth.records import Source, TenantRecord
from open_mcp_gateway.clock import Clock
from open_mcp_gateway.errors import Conflict, Escalation, NotFound, Outdated
from open_mcp_gateway.keystore.store import Transaction
from open_mcp_gateway.names import Namespace, RequestId, TenantId
from open_mcp_gateway.operations.changes import Changer
from open_mcp_gateway.operations.editing import patched_tenant
from open_mcp_gateway.operations.keywork import KeyWork
from open_mcp_gateway.operations.minting import calls_kept_from
from open_mcp_gateway.operations.requests import (
    TenantCreate,
    TenantPatch,
    check_namespaces,
    check_shown,
    check_tenant_id,
)
from open_mcp_gateway.operations.tags import tag_of

log = logging.getLogger(__name__)


class TenantAdmin:
    """Tenant management; ``changer`` has what is in force, and carries changes out."""

    def __init__(self, changer: Changer, clock: Clock) -> None:
        self.changer = changer
        self.clock = clock

    def keyring(self) -> Keyring:
        """What is in force."""
        return self.changer.keys.keyring

    def get(self, clearance: Clearance, tenant_id: str) -> TenantRecord:
        """A tenant. Raises NotFound."""
        return _known(clearance.principal, self.keyring(), tenant_id)

    def list(self, clearance: Clearance) -> list[TenantRecord]:
        """The tenants that are the caller's business, by id."""
        found = (
            one
            for one in self.keyring().tenants.values()
            if one.deleted_at is None and clearance.principal.governs(one.id)
        )
        return sorted(found, key=lambda one: one.id)

    async def create(
        self, clearance: Clearance, request: TenantCreate, *, request_id: RequestId
    ) -> TenantRecord:
        """Make a tenant. An id is never given twice: what is left of a tenant keeps it."""

        def work(tx: Transaction) -> TenantRecord:
            doing = KeyWork(tx, self.keyring(), clearance, self.clock.wall())
            namespaces = check_namespaces(request.namespaces)
            record = TenantRecord(
                id=check_tenant_id(request.id),
                namespaces=tuple(Namespace(one) for one in namespaces),
                name=check_shown(request.name, "name"),
                created_at=doing.now_s,
                source=Source.STORE,
            )
            _check_within(doing.giver.principal, record)
            if record.id in doing.ring.tenants or tx.tenant(record.id) is not None:
                raise Conflict("the id is or was a tenant's", code="id_taken")
            return tx.put_tenant(record)

        record = await self.changer.change(work)
        _note("tenant created", record, clearance, request_id)
        return record

    async def patch(
        self,
        clearance: Clearance,
        tenant_id: str,
        patch: TenantPatch,
        *,
        request_id: RequestId,
        rev: str | None = None,
    ) -> TenantRecord:
        """Change a tenant; ``rev`` is the tag of the state that the caller has seen."""

        def after(doing: KeyWork, before: TenantRecord) -> TenantRecord:
            record = patched_tenant(before, patch, doing.now_s)
            check_shown(record.name, "name")
            _check_within(doing.giver.principal, record)
            return record

        what = "tenant changed"
        return await self._change(what, clearance, tenant_id, after, request_id=request_id, rev=rev)

    async def delete(
        self,
        clearance: Clearance,
        tenant_id: str,
        *,
        request_id: RequestId,
        rev: str | None = None,
    ) -> TenantRecord:
        """Delete a tenant that has no live keys."""

        def after(doing: KeyWork, before: TenantRecord) -> TenantRecord:
            if any(one.revoked_at is None for one in doing.tx.keys_of(before.id)):
                raise Conflict("the tenant has keys; revoke them first", code="has_keys")
            return replace(before, deleted_at=doing.now_s)

        what = "tenant deleted"
        return await self._change(what, clearance, tenant_id, after, request_id=request_id, rev=rev)

    async def _change(
        self,
        what: str,
        clearance: Clearance,
        tenant_id: str,
        after: Callable[[KeyWork, TenantRecord], TenantRecord],
        *,
        request_id: RequestId,
        rev: str | None,
    ) -> TenantRecord:
        def work(tx: Transaction) -> TenantRecord:
            doing = KeyWork(tx, self.keyring(), clearance, self.clock.wall())
            before = _stored(doing, tenant_id, rev)
            require_tenant(doing.giver.principal, clearance.permission, before)
            return tx.put_tenant(after(doing, before))

        record = await self.changer.change(work)
        _note(what, record, clearance, request_id)
        return record


def _known(principal: Principal, ring: Keyring, tenant_id: str) -> TenantRecord:
    record = ring.tenants.get(TenantId(tenant_id))
    return _live(principal, record, tenant_id)


def _live(principal: Principal, record: TenantRecord | None, tenant_id: str) -> TenantRecord:
    if record is None or record.deleted_at is not None or not principal.governs(record.id):
        raise NotFound(f"Tenant '{tenant_id}' not found")
    return record


def _stored(doing: KeyWork, tenant_id: str, rev: str | None) -> TenantRecord:
    """The newest state of a tenant that can be changed."""
    principal = doing.giver.principal
    known = doing.ring.tenants.get(TenantId(tenant_id))
    if known is not None and known.source is Source.CONFIG:
        _live(principal, known, tenant_id)
        raise Conflict("the tenant is kept in the configuration", code="read_only")
    record = _live(principal, doing.tx.tenant(TenantId(tenant_id)), tenant_id)
    if rev is not None and rev != tag_of(record):
        raise Outdated("the tenant has been changed since")
    return record


def _check_within(principal: Principal, record: TenantRecord) -> None:
    """Raises Escalation if the tenant could reach what the caller cannot."""
    allowed = principal.scope.namespaces
    over = tuple(f"namespaces: {one}" for one in record.namespaces if one not in allowed)
    over += calls_kept_from(principal)
    if over:
        raise Escalation("A key cannot give more than it has", excess=over)


def _note(what: str, record: TenantRecord, clearance: Clearance, request_id: RequestId) -> None:
    actor = clearance.principal.key_id
    log.info(what, extra={"tenant": record.id, "actor": actor, "request_id": request_id})
