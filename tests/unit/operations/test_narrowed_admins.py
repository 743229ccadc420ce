"""An administrator who is narrowed neither opens anything for others nor shuts out who has more."""

from __future__ import annotations

from typing import Any, Final

import pytest

from open_mcp_gateway.access.permit import Clearance
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.errors import Escalation
from open_mcp_gateway.operations.requests import TenantCreate, TenantPatch
from tests.unit.operations.desk import REQUEST, Desk, refused, tell

NARROWINGS: Final[tuple[tuple[dict[str, Any], tuple[str, ...]], ...]] = (
    ({"servers": ["s"]}, ("servers: *",)),
    ({"tools": ["s/*"]}, ("tools: *", "resources: *", "prompts: *")),
    ({"deny_tools": ["s/drop*"]}, ("deny_tools: s/drop* is not denied",)),
    ({"resources": []}, ("resources: *",)),
    ({"prompts": ["s/p"]}, ("prompts: *",)),
)
"""Scopes, and what keys of a tenant may beyond each."""


async def narrowed(desk: Desk, scope: dict[str, Any]) -> Clearance:
    made = await desk.make(name="narrow", role="admin", scope=scope)
    return desk.by(made.record.id, Permission.TENANTS_WRITE)


@pytest.mark.parametrize(("scope", "excess"), NARROWINGS)
def test_who_may_not_call_everything_opens_no_tenant(
    scope: dict[str, Any], excess: tuple[str, ...]
) -> None:
    async def story(desk: Desk) -> None:
        root = desk.by(permission=Permission.TENANTS_WRITE)
        for name, namespaces in (("t", ("one", "two")), ("off", ("one",))):
            request = TenantCreate(id=name, namespaces=namespaces)
            await desk.tenants.create(root, request, request_id=REQUEST)
        off = TenantPatch(disabled=True)
        await desk.tenants.patch(root, "off", off, request_id=REQUEST)
        by = await narrowed(desk, scope)
        request = TenantCreate(id="u", namespaces=("one",))
        with pytest.raises(Escalation) as raised:
            await desk.tenants.create(by, request, request_id=REQUEST)
        assert raised.value.excess == excess
        for name, patch in (
            ("t", TenantPatch(namespaces=("one", "two", "three"))),
            ("t", TenantPatch(namespaces=("three",))),
            ("off", TenantPatch(disabled=False)),
            ("off", TenantPatch(disabled=None)),
        ):
            doing = desk.tenants.patch(by, name, patch, request_id=REQUEST)
            await refused(Escalation, "scope_escalation", doing)

    tell(story)


@pytest.mark.parametrize("scope", [scope for scope, _ in NARROWINGS])
def test_who_may_not_call_everything_still_closes_tenants(scope: dict[str, Any]) -> None:
    async def story(desk: Desk) -> None:
        root = desk.by(permission=Permission.TENANTS_WRITE)
        request = TenantCreate(id="t", namespaces=("one", "two"))
        await desk.tenants.create(root, request, request_id=REQUEST)
        by = await narrowed(desk, scope)
        for patch in (
            TenantPatch(disabled=False, name="as it was"),
            TenantPatch(namespaces=("two",)),
            TenantPatch(disabled=True),
        ):
            await desk.tenants.patch(by, "t", patch, request_id=REQUEST)
        await desk.tenants.delete(by, "t", request_id=REQUEST)

    tell(story)
