"""Tenants and keys as they are shown: never a secret, never a digest. Pure."""

from __future__ import annotations

from msgspec import Struct

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.auth.principal import Holder, Platform
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.clock import rfc3339_at
from open_mcp_gateway.operations.minting import effective
from open_mcp_gateway.operations.tags import tag_of


class SecretView(Struct, frozen=True, kw_only=True):
    """What may be known of one secret."""

    version: int
    hint: str
    created_at: str | None
    expires_at: str | None


class KeyView(Struct, frozen=True, kw_only=True):
    """A key."""

    id: str
    name: str
    tenant: str | None
    role: str
    scope: ScopeText
    permissions: list[str]
    status: str
    source: str
    ip_allow: tuple[str, ...] | None
    not_before: str | None
    expires_at: str | None
    secrets: list[SecretView]
    last_used_at: str | None
    created_at: str | None
    created_by: str | None
    parent: str | None
    metadata: dict[str, str]
    rev: str


class TenantView(Struct, frozen=True, kw_only=True):
    """A tenant."""

    id: str
    name: str
    namespaces: tuple[str, ...]
    disabled: bool
    source: str
    created_at: str | None
    rev: str


def key_view(
    record: KeyRecord, keyring: Keyring, now_s: float, last_used_s: float | None
) -> KeyView:
    """``record`` at a moment."""
    created_at = moment(record.created_at)
    secret = SecretView(version=1, hint=record.hint, created_at=created_at, expires_at=None)
    return KeyView(
        id=record.id,
        name=record.name,
        tenant=tenant_of(record.holder),
        role=record.role,
        scope=record.scope,
        permissions=effective(keyring.principal(record)),
        status=record.status(now_s).value,
        source=record.source.value,
        ip_allow=record.ip_allow,
        not_before=moment(record.not_before),
        expires_at=moment(record.expires_at),
        secrets=[secret],
        last_used_at=moment(last_used_s),
        created_at=created_at,
        created_by=record.created_by,
        parent=record.parent,
        metadata=record.metadata,
        rev=tag_of(record),
    )


def tenant_view(record: TenantRecord) -> TenantView:
    """``record`` as it is shown."""
    return TenantView(
        id=record.id,
        name=record.name,
        namespaces=record.namespaces,
        disabled=record.disabled_at is not None,
        source=record.source.value,
        created_at=moment(record.created_at),
        rev=tag_of(record),
    )


def tenant_of(holder: Holder) -> str | None:
    """The written form of a holder: null is the platform."""
    return None if isinstance(holder, Platform) else holder


def moment(seconds: float | None) -> str | None:
    """A moment since the epoch as RFC 3339; None stays None."""
    return None if seconds is None else rfc3339_at(seconds)
