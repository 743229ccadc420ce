"""The built-in roles, and what a configured key may do by its role."""

from __future__ import annotations

from typing import Final

from open_mcp_gateway.auth.apikeys import KeyDigest
from open_mcp_gateway.auth.principal import EVERYTHING, Permission, Principal

_VIEWER: Final = frozenset(
    {Permission.SERVERS_LIST, Permission.SERVERS_READ, Permission.STATS_READ}
)
_CALLER: Final = _VIEWER | {Permission.MCP_CALL}
_OPERATOR: Final = _CALLER | {
    Permission.SERVERS_START,
    Permission.SERVERS_STOP,
    Permission.SERVERS_RESTART,
}
_ADMIN: Final = _OPERATOR | {Permission.CATALOG_RELOAD}

ROLES: Final[dict[str, frozenset[Permission]]] = {
    "viewer": _VIEWER,
    "caller": _CALLER,
    "operator": _OPERATOR,
    "tenant-admin": _OPERATOR,
    "auditor": _VIEWER,
    "admin": _ADMIN,
}
"""Every permission of a role is written out: a new one belongs to none until it is put in."""

ADMIN_ROLE: Final = "admin"


def role_permissions(name: str) -> frozenset[Permission]:
    """What the role ``name`` may do. KeyError if there is no such role."""
    return ROLES[name]


def platform_admin(key: KeyDigest) -> Principal:
    """The owner of a top-level ``api_key``: the admin role on every server."""
    return Principal(
        key_id=key.key_id,
        role=ADMIN_ROLE,
        permissions=role_permissions(ADMIN_ROLE),
        namespaces=EVERYTHING,
    )
