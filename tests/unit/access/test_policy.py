"""The built-in roles against a table written independently of them; what a record opens."""

from __future__ import annotations

import itertools
import math
from ipaddress import ip_network

import pytest

from open_mcp_gateway.access.policy import (
    API_KEY_ID,
    KEY_ROLE,
    OF_PLATFORM,
    ROLES,
    TENANT_ROLE,
    holding_along,
    holding_of,
    may_have,
    platform_admin,
    principal_of,
)
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.identify import Holding, Reason
from open_mcp_gateway.auth.principal import PLATFORM, Holder, Permission
from open_mcp_gateway.auth.records import KeyRecord, Source, TenantRecord
from open_mcp_gateway.auth.scope import EVERYTHING, NOTHING, UNNARROWED, Patterns, ScopeText
from open_mcp_gateway.names import KeyId, Namespace, TenantId

COLUMNS = ("viewer", "caller", "operator", "tenant-admin", "auditor", "admin")
TABLE = {
    "servers:list": "xxxxxx",
    "servers:read": "xxxxxx",
    "stats:read": "xxxxxx",
    "mcp:call": ".xxx.x",
    "servers:start": "..xx.x",
    "servers:stop": "..xx.x",
    "servers:restart": "..xx.x",
    "catalog:reload": ".....x",
    "keys:read": "...xxx",
    "keys:write": "...x.x",
    "tenants:read": ".....x",
    "tenants:write": ".....x",
    "explain:any": "...xxx",
}

ALPHA = TenantId("alpha")
TENANTS = {ALPHA: TenantRecord(id=ALPHA, namespaces=(Namespace("prod"), Namespace("dev")))}


def key(holder: Holder = ALPHA, role: str = "caller", **more: object) -> KeyRecord:
    made = {"id": KeyId("k"), "holder": holder, "name": "k", "role": role, "digests": ()}
    return KeyRecord(**(made | more))  # type: ignore[arg-type]


def test_the_table_is_complete() -> None:
    """A new permission fails here until somebody decides who has it."""
    assert set(TABLE) == set(Permission)
    assert set(COLUMNS) == set(ROLES)


@pytest.mark.parametrize(("role", "permission"), list(itertools.product(COLUMNS, TABLE)))
def test_each_cell(role: str, permission: str) -> None:
    expected = TABLE[permission][COLUMNS.index(role)] == "x"
    assert (Permission(permission) in ROLES[role]) is expected


@pytest.mark.parametrize(
    ("lesser", "greater"),
    [
        *itertools.pairwise(("viewer", "caller", "operator", "tenant-admin", "admin")),
        ("viewer", "auditor"),
        ("auditor", "admin"),
    ],
)
def test_roles_grow(lesser: str, greater: str) -> None:
    assert ROLES[lesser] < ROLES[greater]


@pytest.mark.parametrize("name", ["", "*", "Admin", "ADMIN", "anonymous", "admin ", "root"])
def test_unknown_roles_have_no_permissions(name: str) -> None:
    assert principal_of(key(role=name), TENANTS, ROLES).permissions == frozenset()
    assert principal_of(key(PLATFORM, name), TENANTS, ROLES).permissions == frozenset()


@pytest.mark.parametrize("role", [*COLUMNS, "none", ""])
def test_only_the_platform_has_admins(role: str) -> None:
    assert may_have(PLATFORM, role) is True
    assert may_have(ALPHA, role) is (role != "admin")


def test_the_platform_admin() -> None:
    record = platform_admin(digest_of(b"test-key-a"))
    assert (record.id, record.name) == ("config:api_key", "api_key")
    admin = principal_of(record, {}, ROLES)
    assert admin.role == "admin"
    assert admin.holder is PLATFORM
    assert admin.permissions == frozenset(Permission)
    assert admin.namespaces is EVERYTHING
    assert admin.scope == UNNARROWED


@pytest.mark.parametrize("role", COLUMNS)
def test_a_key_of_a_tenant_reaches_the_tenant(role: str) -> None:
    who = principal_of(key(role=role), TENANTS, ROLES)
    assert who.permissions == ROLES[role] - OF_PLATFORM
    assert who.namespaces == frozenset({Namespace("prod"), Namespace("dev")})


def test_a_key_of_nobody_known_reaches_nothing() -> None:
    gone = {ALPHA: TenantRecord(id=ALPHA, namespaces=(Namespace("prod"),), deleted_at=1.0)}
    for tenants in ({}, gone):
        assert principal_of(key(), tenants, ROLES).namespaces == frozenset()
        assert holding_of(key(), tenants, ROLES).blocked is Reason.TENANT_DISABLED


def test_a_tenant_without_namespaces_reaches_nothing() -> None:
    empty = {ALPHA: TenantRecord(id=ALPHA, namespaces=())}
    assert principal_of(key(), empty, ROLES).namespaces == frozenset()
    assert holding_of(key(), empty, ROLES).blocked is None


def test_a_record_as_the_door_needs_it() -> None:
    plain = holding_of(key(), TENANTS, ROLES)
    assert (plain.opens_at_s, plain.closes_at_s) == (-math.inf, math.inf)
    assert plain.networks is None
    assert plain.blocked is None
    bounded = holding_of(
        key(not_before=1.0, expires_at=2.0, ip_allow=("10.0.0.0/8", "::1")), TENANTS, ROLES
    )
    assert (bounded.opens_at_s, bounded.closes_at_s) == (1.0, 2.0)
    assert bounded.networks == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert holding_of(key(ip_allow=()), TENANTS, ROLES).networks == ()
    scoped = principal_of(key(scope=ScopeText(tools=("pg/query",))), TENANTS, ROLES).scope
    assert scoped.tools == Patterns(frozenset({"pg/query"}))
    assert scoped.resources == NOTHING


def test_what_blocks_a_key() -> None:
    off = {ALPHA: TenantRecord(id=ALPHA, namespaces=(), disabled_at=1.0)}
    assert holding_of(key(), off, ROLES).blocked is Reason.TENANT_DISABLED
    assert holding_of(key(PLATFORM), off, ROLES).blocked is None
    assert holding_of(key(disabled_at=1.0), TENANTS, ROLES).blocked is Reason.DISABLED
    both = key(disabled_at=1.0, revoked_at=1.0)
    assert holding_of(both, off, ROLES).blocked is Reason.REVOKED


def test_what_keys_are_and_are_called_that_do_not_say() -> None:
    assert (KEY_ROLE, TENANT_ROLE, API_KEY_ID) == ("caller", "operator", "config:api_key")


def test_keys_of_the_store_are_known_as_such() -> None:
    for source in Source:
        held = holding_of(key(source=source), TENANTS, ROLES)
        assert held.stored is (source is Source.STORE)


def test_a_line_of_keys_is_worked_out_once() -> None:
    """Else each key would cost as much as its line is long."""
    line = [key(id="a"), key(id="b", parent="a"), key(id="c", parent="b"), key(id="d", parent="b")]
    asked: list[str] = []

    def find(key_id: KeyId) -> KeyRecord | None:
        asked.append(key_id)
        return next((one for one in line if one.id == key_id), None)

    def own(record: KeyRecord) -> Holding:
        return holding_of(record, TENANTS, ROLES)

    done: dict[KeyId, Holding] = {}
    found = [holding_along(one, find, own, done).principal.key_id for one in line]
    assert found == ["a", "b", "c", "d"]
    assert asked == ["a", "b"]
    assert list(done) == ["a", "b"]
