"""The identity of a caller after the door."""

from __future__ import annotations

import enum
from typing import Final, TypeAlias, final

from msgspec import Struct

from open_mcp_gateway.auth.scope import Everything, Scope
from open_mcp_gateway.names import KeyId, Namespace, TenantId


@final
class Platform:
    """Stands where a tenant would for keys of the gateway itself. Never an absent value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "PLATFORM"


PLATFORM: Final = Platform()

Holder: TypeAlias = TenantId | Platform
"""Whose key it is."""


class Permission(enum.StrEnum):
    """What a route can demand. A role is a set of these."""

    SERVERS_LIST = "servers:list"
    SERVERS_READ = "servers:read"
    SERVERS_START = "servers:start"
    SERVERS_STOP = "servers:stop"
    SERVERS_RESTART = "servers:restart"
    STATS_READ = "stats:read"
    MCP_CALL = "mcp:call"
    CATALOG_RELOAD = "catalog:reload"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    TENANTS_READ = "tenants:read"
    TENANTS_WRITE = "tenants:write"
    EXPLAIN_ANY = "explain:any"


class Principal(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Who a request acts for. There is no value that means "anybody": rights are spelled out.

    Everything a decision depends on is in here, so that equal principals have equal rights.
    """

    key_id: KeyId
    holder: Holder
    role: str
    permissions: frozenset[Permission]
    """By the role."""

    namespaces: frozenset[Namespace] | Everything
    """Of the holder."""

    scope: Scope
    """What the key itself is narrowed to, within all of the above."""

    def may(self, permission: Permission) -> bool:
        """Whether role and key both grant ``permission``."""
        return permission in self.permissions and permission in self.scope.permissions

    def is_same_caller(self, other: Principal) -> bool:
        """Whether both are the same key of the same holder, whatever each may do."""
        return self.key_id == other.key_id and self.holder == other.holder

    def includes(self, other: Principal) -> bool:
        """Whether it is the same caller, and may do all that ``other`` may."""
        if self is other:
            return True
        every = isinstance(self.namespaces, Everything) or (
            not isinstance(other.namespaces, Everything) and other.namespaces <= self.namespaces
        )
        return (
            every
            and self.is_same_caller(other)
            and other.permissions <= self.permissions
            and self.scope.includes(other.scope)
        )

    def governs(self, holder: Holder) -> bool:
        """Whether keys of ``holder`` are its business at all: its own, or all for the platform."""
        return isinstance(self.holder, Platform) or self.holder == holder
