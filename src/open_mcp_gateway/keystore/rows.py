"""Records as rows of the database and back. Pure.

A row that does not say clearly whose key it is, or what it is narrowed to, is no record: reading it
fails, because whatever it might stand for could be more than was meant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from open_mcp_gateway.auth.principal import PLATFORM, Holder, Platform
from open_mcp_gateway.auth.records import KeyRecord, Source, TenantRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.names import KeyId, Namespace, TenantId

Value: TypeAlias = str | bytes | int | None
Row: TypeAlias = Sequence[Any]

TENANT_COLUMNS: Final = (
    "id",
    "name",
    "namespaces",
    "disabled_at",
    "deleted_at",
    "created_at",
    "rev",
)
KEY_COLUMNS: Final = (
    *("id", "holder", "tenant_id", "name", "role", "scope", "hint", "ip_allow", "metadata"),
    *("not_before", "expires_at", "disabled_at", "revoked_at", "revoke_reason"),
    *("created_at", "created_by", "parent_id", "last_used_at", "rev"),
)

_KEPT: Final = 4096

_PLATFORM: Final = "platform"
_TENANT: Final = "tenant"


class UnreadableRow(ValueError):
    """A row that none of our versions wrote."""


def holder_values(holder: Holder) -> tuple[str, str | None]:
    """The kind of holder and the tenant. The kind is written, so that a tenant that got lost does
    not turn its key into one of the platform."""
    return (_PLATFORM, None) if isinstance(holder, Platform) else (_TENANT, holder)


def milliseconds(moment_s: float) -> int:
    """A moment as the database keeps it.

    Raises:
        ValueError: it is not a moment, but infinite or not a number.
    """
    if not math.isfinite(moment_s):
        raise ValueError("a moment must be a finite number of seconds; never is None")
    return round(moment_s * 1000)


def tenant_values(record: TenantRecord, rev: int) -> list[Value]:
    """In the order of ``TENANT_COLUMNS``."""
    _must_be_kept_here(record.source, record.created_at, record.id)
    return [
        record.id,
        record.name,
        _json(record.namespaces),
        _moment(record.disabled_at),
        _moment(record.deleted_at),
        _moment(record.created_at),
        rev,
    ]


def tenant_of(row: Row) -> TenantRecord:
    """Raises UnreadableRow."""
    tenant_id, name, namespaces, disabled, deleted, created, rev = row
    try:
        return TenantRecord(
            id=TenantId(tenant_id),
            name=name,
            namespaces=msgspec.json.decode(namespaces, type=tuple[Namespace, ...]),
            disabled_at=_seconds(disabled),
            deleted_at=_seconds(deleted),
            created_at=_seconds(created),
            source=Source.STORE,
            rev=rev,
        )
    except (ValueError, TypeError):
        raise UnreadableRow(f"tenant {tenant_id!r}") from None


def key_values(record: KeyRecord, rev: int) -> list[Value]:
    """In the order of ``KEY_COLUMNS``; digests have rows of their own."""
    _must_be_kept_here(record.source, record.created_at, record.id)
    return [
        record.id,
        *holder_values(record.holder),
        record.name,
        record.role,
        _json(record.scope),
        record.hint,
        None if record.ip_allow is None else _json(record.ip_allow),
        _json(record.metadata),
        _moment(record.not_before),
        _moment(record.expires_at),
        _moment(record.disabled_at),
        _moment(record.revoked_at),
        record.revoke_reason,
        _moment(record.created_at),
        record.created_by,
        record.parent,
        _moment(record.last_used_at),
        rev,
    ]


def key_of(row: Row, digests: Iterable[bytes]) -> KeyRecord:
    """Raises UnreadableRow."""
    key_id, kind, tenant_id, name, role, scope, hint, ip_allow, metadata = row[:9]
    not_before, expires, disabled, revoked, reason = row[9:14]
    created, created_by, parent, last_used, rev = row[14:]
    try:
        return KeyRecord(
            id=KeyId(key_id),
            holder=_holder(kind, tenant_id),
            name=name,
            role=_same(role),
            scope=_scope(scope),
            digests=tuple(digests),
            hint=hint,
            ip_allow=None if ip_allow is None else _TEXTS.decode(ip_allow),
            metadata=_METADATA.decode(metadata),
            not_before=_seconds(not_before),
            expires_at=_seconds(expires),
            disabled_at=_seconds(disabled),
            revoked_at=_seconds(revoked),
            revoke_reason=reason,
            created_at=_seconds(created),
            created_by=_same(created_by),
            parent=None if parent is None else KeyId(parent),
            last_used_at=_seconds(last_used),
            source=Source.STORE,
            rev=rev,
        )
    except (ValueError, TypeError):
        raise UnreadableRow(f"key {key_id!r}") from None


_SCOPE: Final = msgspec.json.Decoder(ScopeText)
_TEXTS: Final = msgspec.json.Decoder(tuple[str, ...])
_METADATA: Final = msgspec.json.Decoder(dict[str, str])


_Text = TypeVar("_Text", str, None)


# What many keys have in common is one object in memory, and read once.


@lru_cache(_KEPT)
def _scope(text: str) -> ScopeText:
    return _SCOPE.decode(text)


@lru_cache(_KEPT)
def _same(text: _Text) -> _Text:
    return text


def _holder(kind: object, tenant_id: object) -> Holder:
    if kind == _PLATFORM and tenant_id is None:
        return PLATFORM
    if kind == _TENANT and isinstance(tenant_id, str) and tenant_id:
        return TenantId(_same(tenant_id))
    raise UnreadableRow("holder")


def _must_be_kept_here(source: Source, created_at: float | None, record_id: str) -> None:
    if source is not Source.STORE or created_at is None:
        raise ValueError(f"{record_id!r} is not a record of the store: it lacks source or creation")


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _moment(seconds: float | None) -> int | None:
    return None if seconds is None else milliseconds(seconds)


def _seconds(moment: int | None) -> float | None:
    return None if moment is None else moment / 1000
