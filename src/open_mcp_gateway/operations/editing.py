"""What a record becomes by a merge-patch (RFC 7396): absent keeps, null clears. Pure."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import asdict, replace

from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.errors import InvalidRequest
from open_mcp_gateway.names import Namespace
from open_mcp_gateway.operations.requests import (
    KeyPatch,
    ScopePatch,
    TenantPatch,
    check_metadata,
    check_name,
    check_namespaces,
    check_networks,
    check_scope,
    end_s,
)


def patched_key(record: KeyRecord, patch: KeyPatch, now_s: float) -> KeyRecord:
    """``record`` with the changes of ``patch``. Raises InvalidRequest."""
    expires_at = patch.expires_at
    after = replace(
        record,
        name=record.name if patch.name is UNSET else check_name(patch.name),
        role=record.role if patch.role is UNSET else patch.role,
        # One that is not changed is not judged: a key must always be possible to switch off.
        scope=(
            record.scope if patch.scope is UNSET else check_scope(_scope(record.scope, patch.scope))
        ),
        ip_allow=(record.ip_allow if patch.ip_allow is UNSET else check_networks(patch.ip_allow)),
        metadata=check_metadata(_metadata(record.metadata, patch.metadata)),
        not_before=_moment(record.not_before, patch.not_before),
        expires_at=record.expires_at if expires_at is UNSET else end_s(None, expires_at, now_s),
        disabled_at=_switched(record.disabled_at, patch.disabled, now_s),
    )
    if patch.not_before is not UNSET or expires_at is not UNSET:
        check_moments(after)
    return after


def check_moments(record: KeyRecord) -> None:
    """Raises InvalidRequest for a key that would never open."""
    start, end = record.not_before, record.expires_at
    if start is not None and end is not None and end <= start:
        raise InvalidRequest("`expires_at` must be after `not_before`")


def patched_tenant(record: TenantRecord, patch: TenantPatch, now_s: float) -> TenantRecord:
    """``record`` with the changes of ``patch``. Raises InvalidRequest."""
    namespaces = record.namespaces
    if patch.namespaces is not UNSET:
        namespaces = tuple(Namespace(one) for one in check_namespaces(patch.namespaces))
    return replace(
        record,
        name=record.name if patch.name is UNSET else patch.name or "",
        namespaces=namespaces,
        disabled_at=_switched(record.disabled_at, patch.disabled, now_s),
    )


def _scope(scope: ScopeText, patch: ScopePatch | UnsetType | None) -> ScopeText:
    if patch is UNSET:
        return scope
    if patch is None:
        return ScopeText()
    given = {name: value for name, value in asdict(patch).items() if value is not UNSET}
    return msgspec.structs.replace(scope, **given)


def _metadata(
    metadata: dict[str, str], patch: dict[str, str | None] | UnsetType | None
) -> dict[str, str]:
    if patch is UNSET:
        return metadata
    merged = {**metadata, **patch} if patch is not None else {}
    return {name: value for name, value in merged.items() if value is not None}


def _moment(before: float | None, patch: datetime | UnsetType | None) -> float | None:
    if patch is UNSET:
        return before
    return None if patch is None else patch.timestamp()


def _switched(since: float | None, off: bool | UnsetType | None, now_s: float) -> float | None:
    """Since when it is switched off; switching off twice keeps the first moment."""
    if off is UNSET:
        return since
    if not off:
        return None
    return now_s if since is None else since
