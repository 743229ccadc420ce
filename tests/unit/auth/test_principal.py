"""The written "everything", and that a principal cannot be made without saying what it may."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from open_mcp_gateway.auth.principal import PLATFORM, Permission, Principal
from open_mcp_gateway.auth.scope import EVERYTHING, UNNARROWED, ScopeText
from open_mcp_gateway.names import KeyId, Namespace, TenantId

COMPLETE: dict[str, Any] = {
    "key_id": KeyId("k"),
    "holder": PLATFORM,
    "role": "viewer",
    "permissions": frozenset({Permission.SERVERS_LIST}),
    "namespaces": frozenset({Namespace("default")}),
    "scope": UNNARROWED,
}
NARROW = ScopeText(servers=("pg",)).compiled()
ONE, TWO = (frozenset(map(Namespace, names)) for names in (("a",), ("a", "b")))


def test_everything_holds_anything() -> None:
    assert Namespace("default") in EVERYTHING
    assert "" in EVERYTHING
    assert repr(EVERYTHING) == '"*"'


@pytest.mark.parametrize("member", COMPLETE)
def test_nothing_may_be_left_out(member: str) -> None:
    with pytest.raises(TypeError):
        Principal(**{name: value for name, value in COMPLETE.items() if name != member})


def test_a_principal_does_not_change() -> None:
    principal = Principal(**COMPLETE)
    with pytest.raises(AttributeError):
        principal.role = "admin"  # type: ignore[misc]


def test_whose_keys_are_its_business() -> None:
    alpha, beta = TenantId("alpha"), TenantId("beta")
    of_platform = Principal(**COMPLETE)
    of_alpha = Principal(**(COMPLETE | {"holder": alpha}))
    assert all(of_platform.governs(holder) for holder in (alpha, beta, PLATFORM))
    assert of_alpha.governs(alpha)
    assert not of_alpha.governs(beta)
    assert not of_alpha.governs(PLATFORM)
    assert repr(PLATFORM) == "PLATFORM"


def test_role_and_key_must_both_grant() -> None:
    assert Principal(**COMPLETE).may(Permission.SERVERS_LIST)
    assert not Principal(**COMPLETE).may(Permission.SERVERS_READ)
    narrowed = ScopeText(permissions=("servers:read",)).compiled()
    assert not Principal(**(COMPLETE | {"scope": narrowed})).may(Permission.SERVERS_LIST)


def made(**more: Any) -> Principal:
    return Principal(**(COMPLETE | {"holder": TenantId("alpha")} | more))


def test_the_same_caller_is_the_same_key_of_the_same_holder() -> None:
    assert made().is_same_caller(made(role="admin", permissions=frozenset(), scope=NARROW))
    assert not made().is_same_caller(made(key_id=KeyId("other")))
    assert not made().is_same_caller(made(holder=TenantId("beta")))
    assert not made().is_same_caller(made(holder=PLATFORM))


@pytest.mark.parametrize(
    ("more", "less"),
    [
        ({"permissions": frozenset(Permission)}, {}),
        ({}, {"permissions": frozenset()}),
        ({"namespaces": TWO}, {"namespaces": ONE}),
        ({"namespaces": EVERYTHING}, {"namespaces": TWO}),
        ({}, {"scope": NARROW}),
    ],
)
def test_who_lost_a_right_no_longer_includes_who_had_it(
    more: dict[str, Any], less: dict[str, Any]
) -> None:
    assert made(**more).includes(made(**less))
    assert not made(**less).includes(made(**more))
    for same in (made(**more), made(**less)):
        assert same.includes(same)
        assert same.includes(replace(same))


@pytest.mark.parametrize("other", [{"key_id": KeyId("other")}, {"holder": TenantId("beta")}])
def test_the_rights_of_another_caller_are_not_included(other: dict[str, Any]) -> None:
    assert not made(namespaces=EVERYTHING).includes(made(**other))


def test_namespaces_beside_one_another() -> None:
    here, there = (made(namespaces=frozenset({Namespace(name)})) for name in ("a", "b"))
    assert not here.includes(there)
    assert not there.includes(here)


def test_the_words_of_permissions() -> None:
    """They stand in configurations and in stored keys."""
    assert list(Permission) == [
        *("servers:list", "servers:read", "servers:start", "servers:stop", "servers:restart"),
        *("stats:read", "mcp:call", "catalog:reload", "keys:read", "keys:write"),
        *("tenants:read", "tenants:write", "explain:any"),
    ]
