"""One process or remote session of a server, from its first plan to its end."""

from __future__ import annotations

import hashlib
import logging
from datetime import datetime

import anyio

from open_mcp_gateway.auth.principal import Holder
from open_mcp_gateway.catalog.model import CatalogEntry
from open_mcp_gateway.clock import Clock
from open_mcp_gateway.errors import UpstreamError
from open_mcp_gateway.names import ServerId
from open_mcp_gateway.outbound.peer import Peer
from open_mcp_gateway.supervisor.ending import Ending
from open_mcp_gateway.supervisor.policy import COMMON, NEVER, SHARED_KEY, InstanceKey, Vitals
from open_mcp_gateway.supervisor.states import ServerState, can_become
from open_mcp_gateway.supervisor.tally import Tally

logger = logging.getLogger(__name__)


def _digest(owner: str) -> str:
    """Tells owners apart in the log. Who knows the id of a client session may act in it."""
    return hashlib.sha256(owner.encode()).hexdigest()[:8]


class Instance:
    """A lease while it runs; what it does with its life is decided by its seat.

    The moments are monotonic seconds. Whatever waits for it waits on one of its events.
    """

    __slots__ = (
        "_clock",
        "_hastened",
        "_monotonic",
        "_probing",
        "_settled",
        "_tallies",
        "_woken",
        "active",
        "after",
        "automatic",
        "awaited_by",
        "due_s",
        "ending",
        "entry",
        "failed_checks",
        "failure",
        "gone",
        "is_open",
        "key",
        "last_activity_s",
        "last_check_s",
        "last_reply_s",
        "leave_by_s",
        "leaving",
        "opened_s",
        "peer",
        "scope",
        "server_id",
        "serving",
        "spoken",
        "started_at",
        "state",
        "waiting",
    )

    peer: Peer
    """Set when it opens."""

    def __init__(
        self,
        server_id: ServerId,
        key: InstanceKey,
        clock: Clock,
        tallies: dict[Holder, Tally],
        *,
        due_s: float,
        automatic: bool,
        after: tuple[Instance, ...],
    ) -> None:
        self.server_id = server_id
        self.key = key
        self._clock = clock
        self._monotonic = clock.monotonic
        self._tallies = tallies
        """Those of the whole server."""
        self.due_s = due_s
        """Not before this moment, unless hastened."""
        self.automatic = automatic
        """A restart after a failure, not wanted by anybody in particular."""
        self.after = after
        """Not before these are gone."""
        self.state = ServerState.UNHEALTHY if automatic else ServerState.STOPPED
        self.is_open = self.serving = False
        """It takes new calls as long as it is ``serving``, which is up to ``Serving``."""
        self.ending: Ending | None = None
        """Set once it takes no more calls and is on its way out."""
        self.leaving: Ending | None = None
        """Set while it shall end as soon as nobody uses it."""
        self.leave_by_s: float = NEVER
        self.entry: CatalogEntry | None = None
        """The definition it was started with."""
        self.failure: str | None = None
        """Why it never opened."""
        self.spoken: tuple[str, ...] | None = None
        """Set with ``failure`` if it only does not speak the era asked for: what it does speak."""
        self.failed_checks = 0
        self.active = 0
        self.waiting = 0
        """Callers that wait for it to open, or were told and have not come back yet."""
        self.awaited_by: set[Holder] = set()
        """Who waited for it to open, and so may learn why it did not."""
        self.opened_s = self.last_activity_s = self.last_check_s = self.last_reply_s = NEVER
        self.started_at: datetime | None = None
        self.scope = anyio.CancelScope()
        self.gone = anyio.Event()
        self._settled = anyio.Event()
        self._hastened = anyio.Event()
        self._woken = anyio.Event()
        self._probing: anyio.CancelScope | None = None

    # A lease: on the path of every request.

    def began(self, holder: Holder) -> None:
        self.active += 1
        tally = self._tallies.get(holder) or self._tallies.setdefault(holder, Tally())
        tally.requests += 1
        tally.last_activity_s = self.last_activity_s = self._monotonic()

    def ended(self, holder: Holder, *, failed: bool, cause: str | None = None) -> None:
        self.active -= 1
        now_s = self._monotonic()
        tally = self._tallies[holder]
        tally.last_activity_s = self.last_activity_s = now_s
        if failed:
            tally.errors += 1
            if cause is not None and self.key.of is COMMON:
                # Why it ended is told to the platform; a holder knows what its own calls were told.
                tally.last_error = self.scrub(cause)
        else:
            self.last_reply_s = now_s
        if self.leaving is not None:
            self.wake()

    # What its seat and its keeper ask and tell.

    @property
    def busy(self) -> bool:
        """Whether anybody would notice if it ended now."""
        return self.active > 0 or self.waiting > 0 or (self.is_open and self.peer.inflight > 0)

    @property
    def queued(self) -> bool:
        """Whether it waits for its moment or for others to be gone."""
        return not self.is_open and self.state is not ServerState.STARTING

    @property
    def behind_others(self) -> bool:
        """Whether it waits for others to be gone; asked before it may know that they are."""
        return any(not other.gone.is_set() for other in self.after)

    def vitals(self) -> Vitals:
        return Vitals(
            busy=self.busy,
            last_activity_s=self.last_activity_s,
            last_check_s=self.last_check_s,
            last_reply_s=self.last_reply_s,
            leave_by_s=None if self.leaving is None else self.leave_by_s,
        )

    def become(self, state: ServerState, reason: str, *, failed: bool = False) -> None:
        """Turn to ``state`` and say so in the log; ``failed``: somebody should look into it."""
        old, self.state = self.state, state
        if not can_become(old, state):
            logger.error("illegal state change", extra={**self._facts(reason), "old": old.value})
        elif failed or state is ServerState.UNHEALTHY:
            logger.warning("server state changed", extra=self._facts(reason))
        else:
            logger.info("server state changed", extra=self._facts(reason))

    def _facts(self, reason: str) -> dict[str, object]:
        facts: dict[str, object] = {
            "server": self.server_id,
            "state": self.state.value,
            "reason": reason,
        }
        if self.is_open:
            facts["pid"] = self.peer.pid
            facts["seconds"] = round(self._monotonic() - self.opened_s, 3)
        manner = self.key.manner
        era = self.peer.handshake.era if self.is_open else manner.era
        if era is not None:
            facts["era"] = era.value
        if self.key.scope != SHARED_KEY.scope:
            facts["scope"] = self.key.scope
        if manner.owner:
            facts["owner"] = _digest(manner.owner)
        return facts

    def starting(self, entry: CatalogEntry) -> None:
        """Its turn has come, with this definition."""
        self.entry = entry
        if self.state is not ServerState.STARTING:
            self.become(ServerState.STARTING, "restart after a failure")

    def scrub(self, text: str) -> str:
        """``text`` without the secrets of the definition it was started with."""
        return text if self.entry is None else self.entry.scrub(text)

    def open(self, peer: Peer) -> None:
        """It is past its handshake."""
        self.peer = peer
        self.is_open = True
        now_s = self._monotonic()
        self.opened_s = self.last_activity_s = self.last_check_s = self.last_reply_s = now_s
        self.started_at = self._clock.now()

    def settle(self, failure: str | None = None) -> None:
        """Tell who waits for it that it opened, or why it did not. The first word counts."""
        if not self._settled.is_set():
            self.failure = failure
            self._settled.set()

    def leave(self, why: Ending, by_s: float) -> None:
        """End as soon as nobody uses it, and at ``by_s`` in any case."""
        self.leaving = why
        self.leave_by_s = by_s
        self.wake()

    def stay(self) -> None:
        """Take ``leave`` back."""
        self.leaving = None
        self.leave_by_s = NEVER

    def wake(self) -> None:
        """Make whoever watches it look again."""
        self._woken.set()
        leaves = self.ending is not None or (self.leaving is not None and not self.busy)
        if leaves and self._probing is not None:
            self._probing.cancel()

    def hasten(self) -> None:
        """Do not wait for the moment it was to start at."""
        self.due_s = self._monotonic()
        self._hastened.set()

    # What is waited for.

    async def settled(self, holder: Holder) -> None:
        """Wait until it opened or will not; as long as anybody is here it counts as busy."""
        self.awaited_by.add(holder)
        self.waiting += 1
        try:
            await self._settled.wait()
        finally:
            self.waiting -= 1
            if self.leaving is not None:
                self.wake()

    async def turn(self) -> None:
        """Wait until it may start."""
        delay_s = self.due_s - self._monotonic()
        if delay_s > 0:
            with anyio.move_on_after(delay_s):
                await self._hastened.wait()
        for other in self.after:
            await other.gone.wait()
        self.after = ()

    async def rest(self, until_s: float) -> None:
        """Wait for the moment, or until something changes."""
        with anyio.move_on_after(until_s - self._monotonic()):
            await self._woken.wait()
        if self._woken.is_set():
            self._woken = anyio.Event()

    async def probe(self, limit_s: float) -> bool:
        """Whether it gave a sign of life within ``limit_s``; an answer to a call is one too."""
        began_s = self._monotonic()
        alive = False
        with anyio.move_on_after(limit_s) as self._probing:
            try:
                await self.peer.probe()
                alive = True
            except UpstreamError:
                alive = False
        self._probing = None
        self.last_check_s = self._monotonic()
        return alive or self.last_reply_s >= began_s
