"""The built-in roles, and what a key may do by its role, its holder and its own scope. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import ip_network
from types import MappingProxyType
from typing import Final, TypeAlias, TypeVar

from msgspec.structs import replace

from open_mcp_gateway.auth.identify import ALWAYS_S, Holding, Reason, shared
from open_mcp_gateway.auth.principal import PLATFORM, Holder, Permission, Platform, Principal
from open_mcp_gateway.auth.records import KeyRecord, Source, TenantRecord
from open_mcp_gateway.auth.scope import EVERYTHING, UNNARROWED, Everything
from open_mcp_gateway.names import KeyId, Namespace, TenantId

_VIEWER: Final = frozenset(
    {Permission.SERVERS_LIST, Permission.SERVERS_READ, Permission.STATS_READ}
)
_CALLER: Final = _VIEWER | {Permission.MCP_CALL}
_OPERATOR: Final = _CALLER | {
    Permission.SERVERS_START,
    Permission.SERVERS_STOP,
    Permission.SERVERS_RESTART,
}
_TENANT_ADMIN: Final = _OPERATOR | {
    Permission.KEYS_READ,
    Permission.KEYS_WRITE,
    Permission.EXPLAIN_ANY,
}
_AUDITOR: Final = _VIEWER | {Permission.KEYS_READ, Permission.EXPLAIN_ANY}
_ADMIN: Final = _TENANT_ADMIN | {
    Permission.CATALOG_RELOAD,
    Permission.TENANTS_READ,
    Permission.TENANTS_WRITE,
}

ROLES: Final[Mapping[str, frozenset[Permission]]] = MappingProxyType(
    {
        "viewer": _VIEWER,
        "caller": _CALLER,
        "operator": _OPERATOR,
        "tenant-admin": _TENANT_ADMIN,
        "auditor": _AUDITOR,
        "admin": _ADMIN,
    }
)
"""Every permission of a role is written out: a new one belongs to none until it is put in."""

ADMIN_ROLE: Final = "admin"
TENANT_ROLE: Final = "operator"
"""Of the ``api_key`` of a tenant."""

KEY_ROLE: Final = "caller"
"""Of a key that does not say."""

API_KEY_ID: Final = KeyId("config:api_key")

OF_PLATFORM: Final = frozenset(
    {Permission.CATALOG_RELOAD, Permission.TENANTS_READ, Permission.TENANTS_WRITE}
)
"""Nothing that a key of a tenant can have, whatever its role: they are about all tenants."""

_KEPT: Final = 4096

Roles: TypeAlias = Mapping[str, frozenset[Permission]]
Common = TypeVar("Common")
Tenants: TypeAlias = Mapping[TenantId, TenantRecord]


def may_have(holder: Holder, role: str) -> bool:
    """Whether keys of ``holder`` can be given ``role``: one of a tenant that is called an admin
    would be none."""
    return role != ADMIN_ROLE or isinstance(holder, Platform)


def platform_admin(digest: bytes, key_id: KeyId = API_KEY_ID) -> KeyRecord:
    """The record of a top-level ``api_key``: the admin role on everything."""
    return KeyRecord(
        id=key_id,
        holder=PLATFORM,
        name=key_id.rpartition(":")[2],
        role=ADMIN_ROLE,
        digests=(digest,),
    )


def principal_of(record: KeyRecord, tenants: Tenants, roles: Roles) -> Principal:
    """What ``record`` may do. A role or tenant that does not exist gives nothing."""
    namespaces: frozenset[Namespace] | Everything = frozenset()
    permissions = roles.get(record.role, frozenset())
    if isinstance(record.holder, Platform):
        namespaces = EVERYTHING
    else:
        permissions = _of_tenants(permissions)
        tenant = tenants.get(record.holder)
        if tenant is not None and tenant.deleted_at is None:
            namespaces = _namespaces(tenant.namespaces)
    return Principal(
        key_id=record.id,
        holder=record.holder,
        role=record.role,
        permissions=permissions,
        namespaces=namespaces,
        scope=record.scope.compiled(),
    )


# A hundred thousand keys have a few of these sets between them: kept, they are a few in memory too.


@lru_cache(_KEPT)
def _of_tenants(permissions: frozenset[Permission]) -> frozenset[Permission]:
    return permissions - OF_PLATFORM


@lru_cache(_KEPT)
def _namespaces(names: tuple[Namespace, ...]) -> frozenset[Namespace]:
    return frozenset(names)


def holding_of(record: KeyRecord, tenants: Tenants, roles: Roles) -> Holding:
    """``record`` as the door needs it."""
    networks = record.ip_allow
    return Holding(
        principal=principal_of(record, tenants, roles),
        blocked=_blocked(record, tenants),
        opens_at_s=-ALWAYS_S if record.not_before is None else record.not_before,
        closes_at_s=ALWAYS_S if record.expires_at is None else record.expires_at,
        networks=None if networks is None else tuple(ip_network(one) for one in networks),
        stored=record.source is Source.STORE,
    )


def holding_along(
    record: KeyRecord,
    find: Callable[[KeyId], KeyRecord | None],
    own: Callable[[KeyRecord], Holding],
    done: dict[KeyId, Holding],
) -> Holding:
    """What ``record`` opens: of its own nothing that the key it was made with has not, and so on.

    Only rights and networks come down the line; how long a key lives is its own matter. A key that
    is said to have been made with one that nobody knows, or with itself, has nothing.

    Args:
        record: whose it is.
        find: gives the key with an id.
        own: gives what a key would open by itself.
        done: what is known already of keys that others were made with; more is put in.
    """
    line = [record]
    while (parent_id := line[-1].parent) is not None and parent_id not in done:
        parent = find(parent_id)
        if parent is None or any(one.id == parent_id for one in line):
            break
        line.append(parent)
    holding = None if parent_id is None else done.get(parent_id, NOTHING)
    for one in reversed(line):
        holding = own(one) if holding is None else _bounded(own(one), holding)
        if one is not record:
            done[one.id] = holding
    return holding or NOTHING


def bounded(own: Principal, by: Principal) -> Principal:
    """``own`` without what ``by`` may not do."""
    namespaces = own.namespaces
    if isinstance(namespaces, Everything):
        namespaces = by.namespaces
    elif not isinstance(by.namespaces, Everything):
        namespaces = _common(namespaces, by.namespaces)
    return replace(
        own,
        permissions=_common(own.permissions, by.permissions),
        namespaces=namespaces,
        scope=own.scope.within(by.scope),
    )


def _bounded(own: Holding, by: Holding) -> Holding:
    return replace(
        own,
        principal=bounded(own.principal, by.principal),
        networks=shared(own.networks, by.networks),
    )


NOTHING: Final = Holding(
    principal=Principal(
        key_id=KeyId("nobody"),
        holder=PLATFORM,
        role="",
        permissions=frozenset(),
        namespaces=frozenset(),
        scope=UNNARROWED,
    ),
    networks=(),
)


@lru_cache(_KEPT)
def _common(one: frozenset[Common], other: frozenset[Common]) -> frozenset[Common]:
    return one & other


def _blocked(record: KeyRecord, tenants: Tenants) -> Reason | None:
    if record.revoked_at is not None:
        return Reason.REVOKED
    if record.disabled_at is not None:
        return Reason.DISABLED
    if isinstance(record.holder, Platform):
        return None
    tenant = tenants.get(record.holder)
    lives = tenant is not None and tenant.disabled_at is None and tenant.deleted_at is None
    return None if lives else Reason.TENANT_DISABLED
