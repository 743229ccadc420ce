"""Records as rows of the database and back. Pure.

A row that does not say clearly which record it is or whose is no record: reading it fails. One that
does, but not what it grants, is a record that grants nothing and is marked as unusable: so it opens
nothing, can be seen, and can be revoked, and no other record suffers from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import ip_network
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace

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
_LONG_CHARS: Final = 4096

_PLATFORM: Final = "platform"
_TENANT: Final = "tenant"


class UnreadableRow(ValueError):
    """A row that none of our versions wrote, and of which nobody can say whose it is."""


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
    """Raises UnreadableRow: it is not said which one it is."""
    tenant_id, name, namespaces, disabled, deleted, created, rev = row
    read = _Reading()
    record = TenantRecord(
        id=TenantId(_identity("tenant", tenant_id)),
        name=read("name", _text, name, ""),
        namespaces=read("namespaces", _NAMESPACES.decode, namespaces, ()),
        disabled_at=read("disabled_at", _seconds, disabled, None),
        deleted_at=read("deleted_at", _seconds, deleted, 0.0),
        created_at=read("created_at", _seconds, created, 0.0),
        source=Source.STORE,
        rev=_revision(f"tenant {tenant_id!r}", rev),
    )
    if not read.mistakes:
        return record
    return replace(record, disabled_at=record.disabled_at or 0.0, unusable=", ".join(read.mistakes))


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
    """Raises UnreadableRow: it is not said which one it is, or whose."""
    key_id, kind, tenant_id, name, role, scope, hint, ip_allow, metadata = row[:9]
    not_before, expires, disabled, revoked, reason = row[9:14]
    created, created_by, parent, last_used, rev = row[14:]
    read = _Reading()
    record = KeyRecord(
        id=KeyId(_identity("key", key_id)),
        holder=_holder(key_id, kind, tenant_id),
        name=read("name", _text, name, ""),
        role=read("role", _same, role, ""),
        scope=read("scope", _scope, scope, _NOTHING),
        digests=tuple(digests),
        hint=read("hint", _text, hint, ""),
        ip_allow=None if ip_allow is None else read("ip_allow", _networks, ip_allow, ()),
        metadata=read("metadata", _METADATA.decode, metadata, {}),
        not_before=read("not_before", _seconds, not_before, None),
        expires_at=read("expires_at", _seconds, expires, 0.0),
        disabled_at=read("disabled_at", _seconds, disabled, None),
        revoked_at=read("revoked_at", _seconds, revoked, 0.0),
        revoke_reason=read("revoke_reason", _text_or_none, reason, None),
        created_at=read("created_at", _seconds, created, 0.0),
        created_by=read("created_by", _same_or_none, created_by, None),
        parent=read("parent", _parent, parent, None),
        last_used_at=read("last_used_at", _seconds, last_used, None),
        source=Source.STORE,
        rev=_revision(f"key {key_id!r}", rev),
    )
    return _unusable(record, read.mistakes) if read.mistakes else record


def _unusable(record: KeyRecord, mistakes: Iterable[str]) -> KeyRecord:
    """Nothing of what it may have granted is left, and whoever writes it back as it is now writes
    that: mending one column does not bring back what another one took away."""
    return replace(
        record,
        scope=_NOTHING,
        ip_allow=(),
        disabled_at=record.disabled_at or 0.0,
        unusable=", ".join(mistakes),
    )


_SCOPE: Final = msgspec.json.Decoder(ScopeText)
_TEXTS: Final = msgspec.json.Decoder(tuple[str, ...])
_METADATA: Final = msgspec.json.Decoder(dict[str, str])
_NAMESPACES: Final = msgspec.json.Decoder(tuple[Namespace, ...])
_NOTHING: Final = ScopeText(
    permissions=(), namespaces=(), servers=(), tools=(), resources=(), prompts=()
)

_LONGEST_MS: Final = 2**53
"""Of a moment; some hundred thousand years, which a float still holds to the millisecond."""

Read = TypeVar("Read")
Instead = TypeVar("Instead")


class _Reading:
    """Reads columns, and gathers the names of those that say nothing clear."""

    __slots__ = ("mistakes",)

    def __init__(self) -> None:
        self.mistakes: list[str] = []

    def __call__(
        self, column: str, reader: Callable[[Any], Read], value: object, instead: Instead
    ) -> Read | Instead:
        try:
            return reader(value)
        except (ValueError, TypeError):
            self.mistakes.append(column)
            return instead


# What many keys have in common is one object in memory, and read once. What is long is of one key
# alone, and would stay when the key is gone.


def _scope(text: str) -> ScopeText:
    return _read_scope(text) if len(text) > _LONG_CHARS else _kept_scope(text)


def _read_scope(text: str) -> ScopeText:
    scope = _SCOPE.decode(text)
    scope.compiled()
    return scope


def _networks(text: str) -> tuple[str, ...]:
    return _read_networks(text) if len(text) > _LONG_CHARS else _kept_networks(text)


def _read_networks(text: str) -> tuple[str, ...]:
    networks = _TEXTS.decode(text)
    for one in networks:
        ip_network(one)
    return networks


_kept_scope = lru_cache(_KEPT)(_read_scope)
_kept_networks = lru_cache(_KEPT)(_read_networks)


@lru_cache(_KEPT)
def _same(text: str) -> str:
    return _text(text)


def _same_or_none(text: str | None) -> str | None:
    return None if text is None else _same(text)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _parent(value: object) -> KeyId | None:
    return None if value is None else KeyId(_text(value))


def _identity(kind: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise UnreadableRow(f"{kind} {value!r}")
    return value


def _revision(whose: str, value: object) -> int:
    if not isinstance(value, int):
        raise UnreadableRow(whose)
    return value


def _holder(key_id: object, kind: object, tenant_id: object) -> Holder:
    if kind == _PLATFORM and tenant_id is None:
        return PLATFORM
    if kind == _TENANT and isinstance(tenant_id, str) and tenant_id:
        return TenantId(_same(tenant_id))
    raise UnreadableRow(f"key {key_id!r}")


def _must_be_kept_here(source: Source, created_at: float | None, record_id: str) -> None:
    if source is not Source.STORE or created_at is None:
        raise ValueError(f"{record_id!r} is not a record of the store: it lacks source or creation")


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _moment(seconds: float | None) -> int | None:
    return None if seconds is None else milliseconds(seconds)


def _seconds(moment: object) -> float | None:
    if moment is None:
        return None
    if not isinstance(moment, int) or abs(moment) > _LONGEST_MS:
        raise TypeError("not a moment")
    return moment / 1000
