"""The written "everything", and that a principal cannot be made without saying what it may."""

from __future__ import annotations

from typing import Any

import pytest

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
