"""Which keys a list shows, in which order, and where it goes on. Pure.

A cursor holds for the filters it was given out with: with others it would skip or repeat silently.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import math
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from msgspec import Struct

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.auth.principal import Principal
from open_mcp_gateway.auth.records import KeyRecord, Source, Status
from open_mcp_gateway.errors import InvalidRequest
from open_mcp_gateway.operations.requests import period_s
from open_mcp_gateway.operations.views import tenant_of

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200


class Filters(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a listed key must be like; None: no matter."""

    tenant: str | None = None
    """Empty: keys of the platform, which belong to none."""

    namespace: str | None = None
    role: str | None = None
    status: str | None = None
    name: str | None = None
    created_by: str | None = None
    source: str | None = None
    expiring_within: str | None = None
    unused_for: str | None = None


FILTERS: Final = Filters.__struct_fields__


class Page(Struct, frozen=True):
    """Records of one page, and the cursor for the next; None: this was the last."""

    records: list[KeyRecord]
    next_cursor: str | None


class _Position(Struct, frozen=True, array_like=True):
    """Where a page ended, and the filters it was under."""

    filters: str
    created_at: float
    key_id: str


def check_filters(filters: Filters) -> Filters:
    """``filters`` if each can match something. Raises InvalidRequest."""
    if filters.status is not None and filters.status not in [*Status]:
        raise InvalidRequest(f"`status` must be one of {', '.join(Status)}")
    if filters.source is not None and filters.source not in [*Source]:
        raise InvalidRequest(f"`source` must be one of {', '.join(Source)}")
    for member in ("expiring_within", "unused_for"):
        period = getattr(filters, member)
        if period is not None:
            period_s(period, member)
    return filters


def page(
    keyring: Keyring,
    principal: Principal,
    filters: Filters,
    now_s: float,
    last_used_s: Callable[[KeyRecord], float | None],
    *,
    limit: int = DEFAULT_LIMIT,
    cursor: str | None = None,
) -> Page:
    """The keys that ``principal`` governs and ``filters`` let through, newest first.

    Raises:
        InvalidRequest: ``cursor`` does not belong to a list under these filters.
    """
    found: Iterable[KeyRecord] = (
        record
        for record in keyring.keys.values()
        if principal.governs(record.holder)
        and _passes(record, keyring, filters, now_s)
        and _rests(record, last_used_s(record), filters.unused_for, now_s)
    )
    if cursor is not None:
        after = _decode(cursor, filters)
        found = (record for record in found if _order(record) > after)
    # Not ``sorted``: that would hold up every other thread until all were in order.
    ordered = heapq.nsmallest(limit + 1, found, key=_order)
    chosen = ordered[:limit]
    more = len(ordered) > limit
    return Page(chosen, _encode(chosen[-1], filters) if more else None)


def _order(record: KeyRecord) -> tuple[float, str]:
    """Newest first, then by id; those that have no beginning come last."""
    return (math.inf if record.created_at is None else -record.created_at, record.id)


def _passes(record: KeyRecord, keyring: Keyring, filters: Filters, now_s: float) -> bool:
    exact = (
        (filters.tenant, tenant_of(record.holder) or ""),
        (filters.role, record.role),
        (filters.status, record.status(now_s).value),
        (filters.name, record.name),
        (filters.created_by, record.created_by),
        (filters.source, record.source.value),
    )
    return (
        all(wanted is None or wanted == value for wanted, value in exact)
        and _reaches(record, keyring, filters.namespace)
        and _expires(record, filters.expiring_within, now_s)
    )


def _reaches(record: KeyRecord, keyring: Keyring, namespace: str | None) -> bool:
    if namespace is None:
        return True
    principal = keyring.principal(record)
    return namespace in principal.namespaces and namespace in principal.scope.namespaces


def _expires(record: KeyRecord, within: str | None, now_s: float) -> bool:
    if within is None:
        return True
    end = record.expires_at
    lives = record.revoked_at is None and end is not None and end > now_s
    return lives and end is not None and end <= now_s + period_s(within, "expiring_within")


def _rests(record: KeyRecord, used_s: float | None, unused: str | None, now_s: float) -> bool:
    """Neither used nor made since: a key of yesterday is not unused for a month.

    Of configured keys nobody keeps when they were used, so nobody can call them unused.
    """
    if unused is None:
        return True
    if record.source is Source.CONFIG:
        return False
    since = now_s - period_s(unused, "unused_for")
    return max(used_s or 0.0, record.created_at or 0.0) <= since


def _encode(record: KeyRecord, filters: Filters) -> str:
    # JSON has no infinity: a missing beginning is a positive number, a real one is none.
    created, key_id = _order(record)
    position = _Position(_mark(filters), min(created, 1.0), key_id)
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode("ascii").rstrip("=")


def _decode(cursor: str, filters: Filters) -> tuple[float, str]:
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        position = msgspec.json.decode(raw, type=_Position)
    except (ValueError, msgspec.MsgspecError):
        raise _bad_cursor("`cursor` is none that was given out") from None
    if position.filters != _mark(filters):
        raise _bad_cursor("`cursor` belongs to other filters")
    created = math.inf if position.created_at > 0 else position.created_at
    return (created, position.key_id)


def _bad_cursor(text: str) -> InvalidRequest:
    error = InvalidRequest(text)
    error.code = "bad_cursor"
    return error


def _mark(filters: Filters) -> str:
    return hashlib.sha256(msgspec.json.encode(filters)).hexdigest()[:16]
