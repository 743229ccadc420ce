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
    """Whether this is a key in force that may do everything everywhere."""
    return (
        isinstance(record.holder, Platform)
        and record.role == ADMIN_ROLE
        and record.status(now_s) is Status.ACTIVE
        and record.ip_allow != ()
        and record.scope.compiled() == UNNARROWED
    )


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
    admins = [one for one in stored if is_admin(one, now_s)]
    lost = {one.id for one in admins if one.id in after and _loses(one, after[one.id], now_s)}
    if not lost or any(one.id not in lost for one in admins):
        return
    if not any(is_admin(one, now_s) for one in configured):
        raise Conflict("this is the last key of an administrator", code="last_admin")


def _loses(before: KeyRecord, after: KeyRecord, now_s: float) -> bool:
    return (
        not is_admin(after, now_s)
        or _end_s(after) < _end_s(before)
        or bool(outside(before.ip_allow, after.ip_allow))
    )


def _end_s(record: KeyRecord) -> float:
    return NEVER_S if record.expires_at is None else record.expires_at
