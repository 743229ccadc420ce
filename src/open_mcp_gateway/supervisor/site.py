"""What all instances of one server have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

from anyio.abc import TaskGroup

from open_mcp_gateway.auth.principal import Holder
from open_mcp_gateway.catalog.model import CatalogEntry, Isolation
from open_mcp_gateway.clock import Clock
from open_mcp_gateway.errors import Busy, Draining, EraNotSpoken, NotFound
from open_mcp_gateway.names import ServerId
from open_mcp_gateway.outbound.open import Opener
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.supervisor.ending import Ending
from open_mcp_gateway.supervisor.instance import Instance
from open_mcp_gateway.supervisor.policy import (
    Common,
    InstanceKey,
    Timing,
    is_common,
    is_known,
    isolation_of,
    timing_of,
)
from open_mcp_gateway.supervisor.serving import Serving
from open_mcp_gateway.supervisor.settings import FleetSettings
from open_mcp_gateway.supervisor.tally import Tally

logger = logging.getLogger(__name__)


class Means(NamedTuple):
    """What instances are made and kept with; the same for the whole fleet."""

    opener: Opener
    clock: Clock
    jitter: Callable[[], float]
    tasks: TaskGroup
    """Owns the task of every instance."""
    opened: Callable[[ServerId], None] = lambda _: None
    """Hears of every instance that takes calls from now on. Must not raise."""
    left: Callable[[Instance], None] = lambda _: None
    """Hears of every instance that is to end as soon as nobody uses it. Must not raise."""
    ask_again: Callable[[ServerId], None] = lambda _: None
    """Forgets what a server was found not to speak."""


class Refusal(NamedTuple):
    """What a server said that does not speak an era."""

    text: str
    spoken: tuple[str, ...]
    until_s: float
    """It is not asked again before this moment."""


class Site:
    """One server: its definition now, its instances, its counters."""

    __slots__ = (
        "closed",
        "entry",
        "given_up",
        "instances",
        "last_error",
        "means",
        "refusals",
        "removed",
        "serving",
        "settings",
        "tallies",
    )

    def __init__(self, entry: CatalogEntry, settings: FleetSettings, means: Means) -> None:
        self.entry = entry
        """For the next start; instances that run may be on an older one."""
        self.settings = settings
        self.means = means
        self.serving = Serving()
        """Those that take calls."""
        self.instances: set[Instance] = set()
        """All that are not gone, planned ones too."""
        self.tallies: dict[Holder, Tally] = {}
        """By whose use it was."""
        self.last_error: str | None = None
        """Of whatever scope; for the platform and the log."""
        self.given_up: set[InstanceKey] = set()
        """Those that failed too often in a row to be restarted without being asked for, until any
        start in their scope shows that the server works."""
        self.refusals: dict[tuple[str, Era], Refusal] = {}
        """By the scope that asked and the era that was refused. Kept here so that a request which
        comes to nothing anyway takes no room from what is in use."""
        self.removed = False
        self.closed = False

    @property
    def server_id(self) -> ServerId:
        return self.entry.spec.id

    def now_s(self) -> float:
        """Monotonic seconds."""
        return self.means.clock.monotonic()

    def timing(self) -> Timing:
        """The times in force now; a reload changes them for what already runs, too."""
        return timing_of(self.entry.spec, self.settings)

    @property
    def isolation(self) -> Isolation:
        """Who may share an instance by the rule in force now."""
        return isolation_of(self.entry, self.settings.default_isolation)

    def knows(self, holder: Holder, key: InstanceKey) -> bool:
        """Whether an instance under ``key`` exists for ``holder``."""
        return is_known(key, holder, self.isolation)

    def tally_of(self, holder: Holder) -> Tally:
        """To count the use of ``holder`` in."""
        return self.tallies.get(holder) or self.tallies.setdefault(holder, Tally())

    def blame(self, key: InstanceKey, text: str, told: Iterable[Holder]) -> str:
        """Keep ``text`` as the last error of whose instance it was, without the server's secrets,
        and give it back so. Of what is everybody's only those are concerned who were ``told``."""
        text = self.last_error = self.entry.scrub(text)
        for holder in told if isinstance(key.of, Common) else (key.of,):
            self.tally_of(holder).last_error = text
        return text

    def give_up(self, key: InstanceKey, failures: int) -> None:
        """No more automatic restarts under ``key``."""
        self.given_up.add(key)
        logger.error(
            "server keeps failing; no more automatic restarts",
            extra={"server": self.server_id, "failures": failures},
        )

    def works(self, scope: str, era: Era) -> None:
        """What failed in ``scope``, or was refused there in ``era``, means nothing any more."""
        self.given_up -= {key for key in self.given_up if key.scope == scope}
        self.refusals.pop((scope, era), None)

    def check_open(self) -> None:
        """Raises Draining or NotFound if nothing may start here any more."""
        if self.closed:
            raise Draining("The gateway is stopping")
        if self.removed:
            raise NotFound(f"Server '{self.server_id}' not found")

    def leave(self, instance: Instance, why: Ending) -> None:
        """Let ``instance`` finish its calls and end; who only waits for news of it is not waited
        for, and is told so."""
        instance.leave(why, self.now_s() + self.settings.drain_timeout_s)
        self.means.left(instance)

    def refused(self, key: InstanceKey, text: str, spoken: tuple[str, ...]) -> None:
        """Remember for a while that the server does not speak the era of ``key``."""
        era, now_s = key.manner.era, self.now_s()
        if era is not None:
            kept = {one: was for one, was in self.refusals.items() if now_s < was.until_s}
            kept[key.scope, era] = Refusal(text, spoken, now_s + self.settings.refusal_s)
            self.refusals = kept

    def ask_again(self, scope: str) -> None:
        """Forget what was refused in ``scope``."""
        self.refusals = {one: was for one, was in self.refusals.items() if one[0] != scope}
        self.means.ask_again(self.server_id)

    def check_era(self, key: InstanceKey) -> None:
        """Raises EraNotSpoken if the server said so a moment ago."""
        era = key.manner.era
        refusal = None if era is None else self.refusals.get((key.scope, era))
        if refusal is not None and self.now_s() < refusal.until_s:
            raise EraNotSpoken(refusal.text, spoken=refusal.spoken)

    def in_the_way(self, key: InstanceKey) -> list[Instance]:
        """Those that end and must be gone before one under ``key`` starts: its predecessors.

        A shared server may hold a file or a port; the others are started beside one that ends. One
        that is to be replaced is not in the way: it ends when the new one is ready.
        """
        if self.isolation is not Isolation.SHARED:
            return []
        common = is_common(key.manner)
        return [
            one
            for one in self.instances
            if one.ending is not None and (one.key == key or (common and is_common(one.key.manner)))
        ]

    def room(self, scope: str) -> Instance | None:
        """Who must be gone, and may have to be told so, before one more may start in ``scope``;
        None: nobody.

        Of those that nobody uses, a planned restart goes first, or one that is about to leave, then
        the one whose last use is longest ago.

        Raises:
            Busy: all are in use.
        """
        # One that waits for another to be gone takes that one's place.
        promised = {other for instance in self.instances for other in instance.after}
        present = [
            instance
            for instance in self.instances
            if instance.key.scope == scope and not instance.behind_others
        ]
        limit = self.settings.max_connections_per_server
        if len(present) < limit:
            return None
        for instance in present:
            if instance.ending is not None and instance not in promised:
                return instance
        idle = [instance for instance in present if _unused(instance)]
        if not idle:
            raise Busy(
                f"Server '{self.server_id}' has no room: all {limit} connections are in use",
                retry_after_s=1,
            )
        return min(idle, key=_last_use_s)


def _last_use_s(instance: Instance) -> float:
    stays = instance.is_open and instance.leaving is None
    return instance.last_activity_s if stays else 0.0


def _unused(instance: Instance) -> bool:
    settled = instance.is_open or instance.queued
    return settled and instance.ending is None and not instance.busy
