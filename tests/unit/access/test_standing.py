"""What is open goes on within what its key still opens, and ends beyond that."""

from __future__ import annotations

import math
from ipaddress import ip_network
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from open_mcp_gateway.access.authorize import authorize_by_id, decide
from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.access.standing import Standing
from open_mcp_gateway.auth.identify import NoAuthentication, anonymous, within
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.errors import NotFound, RightsChanged, WrongKey
from open_mcp_gateway.names import Namespace, ServerId
from tests.steps import calls_in
from tests.unit.access.worlds import ALPHA, ITEMS, SCOPES, TENANT, entry, record

PG: Final = ServerId("pg")
CATALOG: Final = Snapshot({PG: entry("pg", "prod"), ServerId("web"): entry("web", "stage")})
CALLER: Final = replace(record(ALPHA, "caller", ScopeText()), digests=(bytes(32),))


def ring(key: KeyRecord = CALLER, tenant: TenantRecord = TENANT) -> Keyring:
    return Keyring([tenant], [key], lambda: 0.0)


def loss(
    after: Keyring, before: Keyring | None = None, catalog: Snapshot = CATALOG
) -> type[Exception] | None:
    """Why a call of ``pg`` that was allowed by ``before`` has to end."""
    was = ring() if before is None else before
    principal = was.principal(next(iter(was.keys.values())))
    permit = authorize_by_id(principal, Permission.MCP_CALL, CATALOG, PG)
    found = Standing(after.identifier, was.identifier, catalog).loss(permit)
    return None if found is None else type(found)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, None),
        ({"role": "operator"}, None),
        ({"role": "viewer"}, RightsChanged),
        ({"name": "other", "metadata": {"a": "b"}}, None),
        ({"scope": ScopeText(servers=("*",))}, None),
        ({"scope": ScopeText(servers=("pg",))}, RightsChanged),
        ({"scope": ScopeText(deny_tools=("pg/x",))}, RightsChanged),
        ({"holder": "beta"}, WrongKey),
        ({"expires_at": math.inf}, None),
        ({"expires_at": 0.0}, WrongKey),
        ({"revoked_at": 0.0}, WrongKey),
        ({"ip_allow": ("10.0.0.0/8",)}, RightsChanged),
        ({"ip_allow": ()}, RightsChanged),
    ],
)
def test_a_key_that_was_changed(change: dict[str, Any], told: type[Exception] | None) -> None:
    assert loss(ring(replace(CALLER, **change))) is told


def test_a_key_of_another_holder_is_another_caller() -> None:
    both = [TENANT, replace(TENANT, id="beta")]
    moved = Keyring(both, [replace(CALLER, holder="beta")], lambda: 0.0)
    assert loss(moved) is RightsChanged


@pytest.mark.parametrize(
    ("namespaces", "told"),
    [
        (("prod", "dev", "stage"), None),
        (("prod",), RightsChanged),
        ((), RightsChanged),
    ],
)
def test_a_tenant_that_was_changed(namespaces: Any, told: type[Exception] | None) -> None:
    assert loss(ring(tenant=replace(TENANT, namespaces=namespaces))) is told


NETWORKS: Final = ("10.0.0.0/8", "2001:db8::/32")


@pytest.mark.parametrize(
    ("allowed", "told"),
    [
        (None, None),
        (NETWORKS, None),
        (NETWORKS[::-1], None),
        (("10.0.0.0/7", "2001:db8::/31", "1.1.1.1/32"), None),
        (("10.0.0.0/9", "2001:db8::/32"), RightsChanged),
        (("10.0.0.0/8",), RightsChanged),
        (("2001:db8::/32",), RightsChanged),
        ((), RightsChanged),
    ],
)
def test_networks_that_were_changed(allowed: Any, told: type[Exception] | None) -> None:
    before = ring(replace(CALLER, ip_allow=NETWORKS))
    assert loss(ring(replace(CALLER, ip_allow=allowed)), before) is told


def test_networks_are_compared_once_however_much_is_open() -> None:
    """Each of a key's sessions is asked about, on the event loop."""
    many = tuple(f"10.0.{n}.0/24" for n in range(100))
    before, after = ring(replace(CALLER, ip_allow=many)), ring(replace(CALLER, ip_allow=many[::-1]))
    permit = authorize_by_id(before.principal(CALLER), Permission.MCP_CALL, CATALOG, PG)
    standing = Standing(after.identifier, before.identifier, CATALOG)
    assert calls_in(lambda: standing.loss(permit)) > 100
    assert calls_in(lambda: standing.loss(permit)) < 100
    assert standing.loss(permit) is None


def test_networks_within_networks() -> None:
    ten = (ip_network("10.0.0.0/8"),)
    assert within(None, None)
    assert within((), ten)
    assert within((), ())
    assert not within(None, ten)


@pytest.mark.parametrize(
    ("role", "namespace", "told"),
    [
        ("caller", "dev", None),
        ("caller", "stage", NotFound),
        ("operator", "stage", NotFound),
    ],
)
def test_a_server_that_was_moved(role: str, namespace: str, told: type[Exception] | None) -> None:
    one = ring(replace(CALLER, role=role))
    moved = Snapshot({**CATALOG.entries, PG: entry("pg", namespace)})
    assert loss(one, one, moved) is told
    assert loss(ring(replace(CALLER, scope=ScopeText(namespaces=("dev",)))), one, moved) is (
        RightsChanged
    )


def test_a_server_that_moves_along_with_its_tenant() -> None:
    moved = Snapshot({PG: entry("pg", "stage")})
    wider = ring(tenant=replace(TENANT, namespaces=(*TENANT.namespaces, Namespace("stage"))))
    assert loss(wider, catalog=moved) is None


def test_a_server_that_has_left_is_no_business_of_this() -> None:
    assert loss(ring(), catalog=Snapshot()) is None


def test_authentication_switched_on_and_off() -> None:
    off, on = NoAuthentication(), ring().identifier
    permit = authorize_by_id(anonymous(), Permission.MCP_CALL, CATALOG, PG)
    assert Standing(off, off, CATALOG).loss(permit) is None
    assert isinstance(Standing(on, off, CATALOG).loss(permit), WrongKey)
    own = authorize_by_id(ring().principal(CALLER), Permission.MCP_CALL, CATALOG, PG)
    assert isinstance(Standing(off, on, CATALOG).loss(own), WrongKey)


scopes = st.sampled_from(SCOPES)
roles = st.sampled_from(["viewer", "caller", "operator", "auditor"])


@given(st.tuples(roles, scopes), st.tuples(roles, scopes))
def test_who_includes_another_may_do_all_that_it_may(
    one: tuple[str, ScopeText], other: tuple[str, ScopeText]
) -> None:
    more, less = (ring().principal(record(ALPHA, *each)) for each in (one, other))
    assert more.includes(more)
    if not more.includes(less):
        return
    for each in CATALOG.entries.values():
        for permission in Permission:
            for item in ITEMS:
                if decide(less, permission, each, item).allowed:
                    assert decide(more, permission, each, item).allowed
