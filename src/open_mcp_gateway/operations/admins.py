"""The last administrator cannot be lost: nobody could let the next one in. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from open_mcp_gateway.access.policy import ADMIN_ROLE
from open_mcp_gateway.auth.principal import Platform
from open_mcp_gateway.auth.records import NEVER_S, KeyRecord, Status
from open_mcp_gateway.auth.scope import UNNARROWED
from open_mcp_gateway.errors import Conflict
from open_mcp_gateway.names import KeyId
from open_mcp_gateway.operations.minting import outside


def is_admin(record: KeyRecord, now_s: float) -> bool:
    """Whether this is a key in force that by itself may do everything everywhere."""
    return record.status(now_s) is Status.ACTIVE and _is_full(record)


def _is_full(record: KeyRecord) -> bool:
    return (
        isinstance(record.holder, Platform)
        and record.role == ADMIN_ROLE
        and record.ip_allow != ()
        and record.scope.compiled() == UNNARROWED
    )


def _line(record: KeyRecord, keys: Mapping[KeyId, KeyRecord]) -> list[KeyRecord]:
    """The key and those above it; empty if that leads nowhere."""
    line = [record]
    while (parent := line[-1].parent) is not None:
        above = keys.get(parent)
        if above is None or above in line:
            return []
        line.append(above)
    return line


def _admins(keys: Mapping[KeyId, KeyRecord], now_s: float) -> dict[KeyId, KeyRecord]:
    """Those that are not less by a key above them either."""
    return {
        one.id: one
        for one in keys.values()
        if is_admin(one, now_s)
        and (line := _line(one, keys))
        and all(_is_full(above) for above in line)
    }


def check_an_admin_stays(
    configured: Iterable[KeyRecord],
    stored: Iterable[KeyRecord],
    after: Mapping[KeyId, KeyRecord],
    now_s: float,
) -> None:
    """Whether the keys of the platform may become what ``after`` says of some of them.

    A key that ends sooner than before is as good as lost, and so is one that may be used from fewer
    networks: nobody knows whether the administrator is in one of those that are left.

    Raises:
        Conflict: an administrator would be lost, and there is no other.
    """
    before = {one.id: one for one in stored}
    admins, left = _admins(before, now_s), _admins({**before, **after}, now_s)
    lost = {key_id for key_id in before if _loses(before[key_id], after.get(key_id))}
    if any(key_id in left and not _is_below(one, before, lost) for key_id, one in admins.items()):
        return
    if not admins:
        return
    if not any(is_admin(one, now_s) for one in configured):
        raise Conflict("this is the last key of an administrator", code="last_admin")


def _loses(before: KeyRecord, after: KeyRecord | None) -> bool:
    return after is not None and (
        _end_s(after) < _end_s(before) or bool(outside(before.ip_allow, after.ip_allow))
    )


def _is_below(record: KeyRecord, keys: Mapping[KeyId, KeyRecord], heads: set[KeyId]) -> bool:
    """Whether it is one of these keys, or was made with one."""
    return any(one.id in heads for one in _line(record, keys))


def _end_s(record: KeyRecord) -> float:
    return NEVER_S if record.expires_at is None else record.expires_at
