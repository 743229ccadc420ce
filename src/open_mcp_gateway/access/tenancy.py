"""The access decision where a tenant as a whole is meant. Pure."""

from __future__ import annotations

from open_mcp_gateway.access.authorize import (
    Check,
    Code,
    Decision,
    Rule,
    all_ok,
    denied,
    granted,
)
from open_mcp_gateway.auth.principal import Permission, Principal
from open_mcp_gateway.auth.records import TenantRecord
from open_mcp_gateway.auth.scope import EVERYTHING


def decide_tenant(principal: Principal, permission: Permission, tenant: TenantRecord) -> Decision:
    """Whether ``principal`` may exercise ``permission`` on a tenant: that is on everything in its
    namespaces, so a key that is narrowed to less may not."""
    scope = principal.scope
    whole = scope.servers is EVERYTHING and not scope.narrows_calls
    trail = (
        *granted(principal, permission),
        *(Check(Rule.OF_TENANT, one, one in scope.namespaces) for one in tenant.namespaces),
        Check(Rule.WHOLE, tenant.id, whole),
    )
    allowed = all_ok(trail)
    return Decision(allowed, Code.ALLOWED if allowed else Code.PERMISSION_DENIED, trail)


def require_tenant(principal: Principal, permission: Permission, tenant: TenantRecord) -> None:
    """Raises Denied if ``principal`` may not exercise ``permission`` on the tenant."""
    if not decide_tenant(principal, permission, tenant).allowed:
        raise denied(principal, permission, f"tenant/{tenant.id}")
