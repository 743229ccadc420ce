"""The built-in roles against a table written independently of them."""

from __future__ import annotations

import itertools

import pytest

from open_mcp_gateway.access.policy import ROLES, platform_admin, role_permissions
from open_mcp_gateway.auth.apikeys import KeyDigest, digest_of
from open_mcp_gateway.auth.principal import EVERYTHING, Permission
from open_mcp_gateway.names import KeyId

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
}


def test_the_table_is_complete() -> None:
    """A new permission fails here until somebody decides who has it."""
    assert set(TABLE) == set(Permission)
    assert set(COLUMNS) == set(ROLES)


@pytest.mark.parametrize(("role", "permission"), list(itertools.product(COLUMNS, TABLE)))
def test_each_cell(role: str, permission: str) -> None:
    expected = TABLE[permission][COLUMNS.index(role)] == "x"
    assert (Permission(permission) in role_permissions(role)) is expected


@pytest.mark.parametrize(
    ("lesser", "greater"), list(itertools.pairwise(("viewer", "caller", "operator", "admin")))
)
def test_roles_grow(lesser: str, greater: str) -> None:
    assert role_permissions(lesser) < role_permissions(greater)


@pytest.mark.parametrize("name", ["", "*", "Admin", "ADMIN", "anonymous", "admin ", "root"])
def test_unknown_roles_have_no_permissions(name: str) -> None:
    with pytest.raises(KeyError):
        role_permissions(name)


def test_the_platform_admin() -> None:
    admin = platform_admin(KeyDigest(KeyId("config"), digest_of(b"test-key-a")))
    assert admin.key_id == "config"
    assert admin.role == "admin"
    assert admin.permissions == role_permissions("admin")
    assert admin.namespaces is EVERYTHING
