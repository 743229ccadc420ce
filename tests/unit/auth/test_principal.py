"""The written "everything", and that a principal cannot be made without saying what it may."""

from __future__ import annotations

from typing import Any

import pytest

from open_mcp_gateway.auth.principal import EVERYTHING, Permission, Principal
from open_mcp_gateway.names import KeyId, Namespace

COMPLETE: dict[str, Any] = {
    "key_id": KeyId("k"),
    "role": "viewer",
    "permissions": frozenset({Permission.SERVERS_LIST}),
    "namespaces": frozenset({Namespace("default")}),
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
