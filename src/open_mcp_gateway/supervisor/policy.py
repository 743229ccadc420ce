"""What to do with a server, decided from values: who shares it, when it is stopped or restarted."""

from __future__ import annotations

import enum
import math
from functools import lru_cache
from typing import Final, TypeAlias, final

from msgspec import Struct

from open_mcp_gateway.auth.principal import Holder, Platform, Principal
from open_mcp_gateway.catalog.model import CatalogEntry, Isolation, ServerSpec
from open_mcp_gateway.names import KeyId
from open_mcp_gateway.outbound.peer import ANY_MANNER, Handshake, Manner
from open_mcp_gateway.protocol.eras import LATEST_LEGACY, Era
from open_mcp_gateway.supervisor.settings import FleetSettings

NEVER: Final = math.inf

RECHECK_S: Final = 0.25
"""How soon to look again whether a leaving server's last call is over when nothing announces it."""


@final
class Common:
    """Stands where a holder would for what the catalog declares to be everybody's."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "COMMON"


COMMON: Final = Common()

Of: TypeAlias = Holder | Common
"""Whose an instance is."""


class InstanceKey(Struct, frozen=True, cache_hash=True):
    """Which instance of a server serves a caller."""

    scope: str
    """The group of callers it is for."""

    of: Of
    """Who may know of it, besides the platform."""

    manner: Manner = ANY_MANNER
    """How it is opened."""


_key: Final = lru_cache(4096)(InstanceKey)
"""Kept, because the same few are looked up by every request; the same one is found faster."""

SHARED_KEY: Final = InstanceKey(Isolation.SHARED.value, COMMON)


def isolation_of(entry: CatalogEntry, default: Isolation) -> Isolation:
    """Who may share an instance of this server."""
    return default if entry.spec.isolation is None else entry.spec.isolation


def scope_of(
    entry: CatalogEntry, principal: Principal, default: Isolation = Isolation.SHARED
) -> str:
    """The group of callers that ``principal`` shares an instance of this server with.

    Client sessions are told apart by the owner in the manner, which no two of them have in common,
    so the scope of ``session`` is the key's: that bounds the room for the sessions of one key, and
    callers without a session are kept apart by key.
    """
    isolation = isolation_of(entry, default)
    if isolation is Isolation.SHARED:
        return SHARED_KEY.scope
    # The isolation is part of the name: what was started under one rule never serves under another.
    # The holder is part of it too: a key that comes back with another holder finds nothing.
    holder = principal.holder
    # Ids are free of slashes, so that no two pairs of them come to the same name.
    group = isolation.value if isinstance(holder, Platform) else f"{isolation.value}:{holder}"
    return group if isolation is Isolation.TENANT else f"{group}:/{principal.key_id}"


def key_id_of(key: InstanceKey) -> KeyId | None:
    """The key whose callers alone an instance is for; None if it is for more than that."""
    # Only such a scope has a slash, and ids are free of slashes.
    _, slash, key_id = key.scope.partition(":/")
    return KeyId(key_id) if slash else None


def key_of(
    entry: CatalogEntry, principal: Principal, default: Isolation, manner: Manner = ANY_MANNER
) -> InstanceKey:
    """The instance of this server that serves ``principal`` in this manner."""
    if isolation_of(entry, default) is Isolation.SHARED:
        if manner is ANY_MANNER:
            return SHARED_KEY
        # What one client session owns is no more everybody's than the session itself.
        of: Of = principal.holder if manner.owner else COMMON
        return _key(SHARED_KEY.scope, of, manner)
    return _key(scope_of(entry, principal, default), principal.holder, manner)


def fits(key: InstanceKey, entry: CatalogEntry, default: Isolation) -> bool:
    """Whether an instance under ``key`` can still be somebody's, by the rule now in force."""
    return key.scope.partition(":")[0] == isolation_of(entry, default).value


def is_known(key: InstanceKey, holder: Holder, isolation: Isolation) -> bool:
    """Whether ``holder`` may know of an instance under ``key`` of a server with this isolation.

    What was everybody's is nobody's but the platform's once the catalog says otherwise.
    """
    if isinstance(holder, Platform) or key.of == holder:
        return True
    return key.of is COMMON and isolation is Isolation.SHARED


def is_common(manner: Manner) -> bool:
    """Whether all callers of a scope may use a connection opened so, each for any of its calls.

    The server has been told of nothing that it could ask one client for, and no client owns it.
    """
    return not manner.owner and manner.capabilities == ANY_MANNER.capabilities


def suits(wanted: Manner, opened: Manner, handshake: Handshake) -> bool:
    """Whether a connection opened in one manner, with this outcome, will do for another.

    A server that was offered the wanted revision and chose another would choose it again.
    """
    if not (is_common(wanted) and is_common(opened)):
        return False
    if wanted.era is not None and wanted.era is not handshake.era:
        return False
    if wanted.version is None or handshake.era is Era.MODERN:
        return True
    return wanted.version in {handshake.version, opened.version or LATEST_LEGACY}


def may_suit(wanted: Manner, opening: Manner) -> bool:
    """Whether a connection that is being opened may turn out to suit ``wanted``."""
    if not (is_common(wanted) and is_common(opening)):
        return False
    same_era = wanted.era is opening.era or wanted.era is None or opening.era is None
    versions = {wanted.version, opening.version} - {None}
    return same_era and len(versions) <= 1


class Timing(Struct, frozen=True, kw_only=True):
    """The times of one server: its own where it has some, else the settings'. In seconds."""

    idle_timeout_s: float
    """NEVER where the setting is 0."""

    check_interval_s: float
    """NEVER where the setting is 0."""

    check_timeout_s: float
    start_timeout_s: float


def timing_of(spec: ServerSpec, settings: FleetSettings) -> Timing:
    """The times that hold for ``spec`` now."""
    idle_s = _own(spec.idle_timeout_seconds, settings.idle_timeout_s) or NEVER
    interval_s = _own(spec.health_check_interval_seconds, settings.health_check_interval_s) or NEVER
    return Timing(
        idle_timeout_s=idle_s,
        check_interval_s=interval_s,
        check_timeout_s=min(interval_s, settings.health_check_timeout_s),
        start_timeout_s=_own(spec.start_timeout_seconds, settings.start_timeout_s) or NEVER,
    )


def _own(own: int | None, general: float) -> float:
    return general if own is None else float(own)


class Vitals(Struct, frozen=True, kw_only=True):
    """What is to be known of a running instance to decide about it. In monotonic seconds."""

    busy: bool
    """Somebody waits for something from it."""

    last_activity_s: float
    last_check_s: float
    """End of the last probe, at first the start."""

    last_reply_s: float
    """End of the last call that was answered, at first the start."""

    leave_by_s: float | None = None
    """It shall stop as soon as it is not busy, and at this moment at the latest; None: it stays."""


class Act(enum.Enum):
    WAIT = enum.auto()
    CHECK = enum.auto()
    STOP = enum.auto()


class Step(Struct, frozen=True):
    """What to do next with a running instance; for ``WAIT``, until when."""

    act: Act
    until_s: float = NEVER


def next_step(vitals: Vitals, timing: Timing, now_s: float) -> Step:
    """Stop it, check it, or leave it alone until a moment.

    A check is no activity: it never puts off the idle stop. An answered call is as good as a check.
    """
    stop_at_s = _stop_at_s(vitals, timing, now_s)
    if stop_at_s <= now_s:
        return Step(Act.STOP)
    check_at_s = max(vitals.last_check_s, vitals.last_reply_s) + timing.check_interval_s
    if check_at_s <= now_s:
        return Step(Act.CHECK)
    look_again_s = now_s + RECHECK_S if vitals.leave_by_s is not None else NEVER
    if vitals.busy:
        look_again_s = min(look_again_s, now_s + timing.idle_timeout_s)
    return Step(Act.WAIT, min(stop_at_s, check_at_s, look_again_s))


def _stop_at_s(vitals: Vitals, timing: Timing, now_s: float) -> float:
    if vitals.leave_by_s is not None:
        return vitals.leave_by_s if vitals.busy else now_s
    if vitals.busy:
        return NEVER
    return vitals.last_activity_s + timing.idle_timeout_s


def backoff_s(failures: int, jitter: float, settings: FleetSettings) -> float:
    """How long to wait after so many failures in a row.

    ``jitter`` from 0 to 1 takes up to half off: what fell together shall not come back together.
    """
    if failures <= 1:
        return 0.0
    # The exponent is bounded before it is used: a float overflows at 2**1024.
    doubled_s = settings.first_backoff_s * 2.0 ** min(failures - 2, 64)
    return min(doubled_s, settings.max_backoff_s) * (1 - jitter / 2)


class Verdict(Struct, frozen=True):
    """What follows from a failure."""

    failures: int
    """In a row, this one included."""

    retry_at_s: float
    """No start before this moment, but an explicit one."""

    restart: bool
    """Start it again by itself at that moment."""


def after_failure(
    failures: int,
    *,
    ran_s: float,
    wanted: bool,
    now_s: float,
    jitter: float,
    settings: FleetSettings,
) -> Verdict:
    """What to do after a crash or a failed start that follows ``failures`` others.

    ``ran_s`` is how long it ran; ``wanted`` says that it was running, or that it should be again.
    """
    count = 1 if ran_s >= settings.stable_after_s else failures + 1
    return Verdict(
        count,
        now_s + backoff_s(count, jitter, settings),
        wanted and count <= settings.max_restarts,
    )


def retry_after_s(due_s: float, now_s: float) -> int | None:
    """``due_s`` as a Retry-After: whole seconds, at least one; None when it has already come."""
    return max(1, math.ceil(due_s - now_s)) if due_s > now_s else None
