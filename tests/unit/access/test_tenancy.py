"""Whoever changes a tenant acts on everything in its namespaces; less is not enough for it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from open_mcp_gateway.access.authorize import Rule
from open_mcp_gateway.access.explain import Change, Question, Step, Subject, explain
from open_mcp_gateway.access.policy import ROLES, principal_of
from open_mcp_gateway.access.tenancy import decide_tenant, require_tenant
from open_mcp_gateway.auth.principal import PLATFORM, Permission, Principal
from open_mcp_gateway.auth.records import TenantRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.errors import Denied
from tests.unit.access.worlds import ALPHA, TENANT, record

WRITE = Permission.TENANTS_WRITE
EMPTY = TenantRecord(id=ALPHA, namespaces=())


def admin(scope: ScopeText, role: str = "admin") -> Principal:
    return principal_of(record(PLATFORM, role, scope), {}, ROLES)


@pytest.mark.parametrize(
    ("scope", "failed"),
    [
        (ScopeText(), []),
        (ScopeText(namespaces=("prod", "d*"), servers=("*",), permissions=("tenants:*",)), []),
        (ScopeText(namespaces=("prod",)), [(Rule.OF_TENANT, "dev")]),
        (ScopeText(namespaces=()), [(Rule.OF_TENANT, "prod"), (Rule.OF_TENANT, "dev")]),
        (ScopeText(servers=("pg",)), [(Rule.WHOLE, "alpha")]),
        (ScopeText(tools=("*",)), [(Rule.WHOLE, "alpha")]),
        (ScopeText(deny_tools=("pg/drop",)), [(Rule.WHOLE, "alpha")]),
        (ScopeText(permissions=("tenants:read",)), [(Rule.OWN_PERMISSION, "tenants:write")]),
    ],
)
def test_who_may_change_a_tenant(scope: ScopeText, failed: list[tuple[Rule, str]]) -> None:
    decision = decide_tenant(admin(scope), WRITE, TENANT)
    assert [(one.rule, one.subject) for one in decision.trail if not one.ok] == failed
    assert [(one.rule, one.subject) for one in decision.trail] == [
        (Rule.PERMISSION, "tenants:write"),
        (Rule.OWN_PERMISSION, "tenants:write"),
        (Rule.OF_TENANT, "prod"),
        (Rule.OF_TENANT, "dev"),
        (Rule.WHOLE, "alpha"),
    ]
    assert decision.allowed is (not failed)
    assert decision.code == ("permission_denied" if failed else "allowed")


def test_a_tenant_that_reaches_nothing_still_wants_a_whole_key() -> None:
    assert decide_tenant(admin(ScopeText(namespaces=())), WRITE, EMPTY).allowed
    assert not decide_tenant(admin(ScopeText(servers=())), WRITE, EMPTY).allowed


def test_a_refusal_names_the_tenant() -> None:
    require_tenant(admin(ScopeText()), WRITE, TENANT)
    for who in (admin(ScopeText(), "operator"), admin(ScopeText(servers=("pg",)))):
        with pytest.raises(Denied) as caught:
            require_tenant(who, WRITE, TENANT)
        assert (caught.value.permission, caught.value.resource) == ("tenants:write", "tenant/alpha")


def test_what_would_have_to_change_for_it() -> None:
    scope = ScopeText(
        namespaces=("prod",),
        servers=("pg",),
        tools=("pg/x",),
        deny_tools=("pg/y",),
        resources=("pg/x",),
        prompts=(),
    )
    question, asker = Question(permission=WRITE, tenant=TENANT), admin(ScopeText())
    answer = explain(asker, Subject(admin(scope), scope), question, Snapshot(), roles=ROLES)
    assert isinstance(answer.trail, list)
    assert [one for one in answer.trail if not one.ok] == [
        Step("each namespace of the tenant is one of the key's", "dev", False, ["prod"]),
        Step("the key may call everything in a namespace", "alpha", False),
    ]
    calls = ("servers", "tools", "deny_tools", "resources", "prompts")
    assert answer.smallest_fix == [
        Change("add", "/scope/namespaces/-", "dev"),
        *(Change("remove", f"/scope/{one}") for one in calls),
    ]
    whole = Subject(admin(ScopeText(namespaces=("prod", "dev"))), scope)
    assert explain(asker, whole, question, Snapshot(), roles=ROLES).allowed
    few = replace(scope, servers=None, tools=None, resources=None, prompts=None)
    answer = explain(asker, Subject(admin(few), few), question, Snapshot(), roles=ROLES)
    assert answer.smallest_fix == [
        Change("add", "/scope/namespaces/-", "dev"),
        Change("remove", "/scope/deny_tools"),
    ]
