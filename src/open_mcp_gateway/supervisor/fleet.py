"""All servers of the catalog: who asks gets a running one, and a reload finds its way to each."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import anyio
from anyio.abc import TaskStatus

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Holder
from open_mcp_gateway.catalog.diff import Changes
from open_mcp_gateway.catalog.model import CatalogEntry, Isolation, Snapshot
from open_mcp_gateway.clock import Clock
from open_mcp_gateway.errors import Draining, NotFound
from open_mcp_gateway.names import ServerId
from open_mcp_gateway.outbound.open import Opener
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner
from open_mcp_gateway.supervisor.keeper import Keeper
from open_mcp_gateway.supervisor.lease import Lease
from open_mcp_gateway.supervisor.policy import InstanceKey, isolation_of
from open_mcp_gateway.supervisor.settings import FleetSettings
from open_mcp_gateway.supervisor.site import Means
from open_mcp_gateway.supervisor.states import ServerState, ServerStatus

_STOPPED: Final = ServerStatus(state=ServerState.STOPPED)
_chance: Final = random.SystemRandom().random


class Fleet:
    """Knows the servers of the snapshot last applied. A server never wanted costs nothing.

    Whatever acts on a server takes a Permit for it. A caller that is cancelled while it waits
    leaves what it waited for going on.
    """

    __slots__ = (
        "_ask_again",
        "_clock",
        "_jitter",
        "_keepers",
        "_means",
        "_opener",
        "_ran",
        "_settings",
        "_snapshot",
        "_stop",
        "_stopped",
        "on_left",
        "on_opened",
    )

    def __init__(
        self,
        settings: FleetSettings,
        opener: Opener,
        clock: Clock,
        *,
        jitter: Callable[[], float] = _chance,
        ask_again: Callable[[ServerId], None] = lambda _: None,
    ) -> None:
        """``ask_again`` makes ``opener`` forget what a server was found not to speak: called where
        somebody starts, restarts or stops it."""
        self._ask_again = ask_again
        self._settings = settings
        self._opener = opener
        self._clock = clock
        self._jitter = jitter
        self._snapshot = Snapshot()
        self._keepers: dict[ServerId, Keeper] = {}
        self._means: Means | None = None
        """Set while the fleet runs and takes work."""
        self._ran = False
        self._stop = anyio.Event()
        self._stopped = anyio.Event()
        self.on_opened: Callable[[ServerId], None] = lambda _: None
        """Called when an instance of a server begins to take calls. Must not raise."""
        self.on_left: Callable[[Lease], None] = lambda _: None
        """Called when an instance is to end as soon as nobody uses it. Must not raise."""

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own every server until ``aclose`` or cancellation, then stop them all at the same time.

        Started once what wants servers can be let in. Cancelled or not, it returns after the last
        one is gone, which is bounded by ``stop_timeout_s``.
        """
        self._ran = True
        try:
            async with anyio.create_task_group() as tasks:
                self._means = Means(
                    self._opener,
                    self._clock,
                    self._jitter,
                    tasks,
                    self._opened,
                    self._left,
                    self._ask_again,
                )
                try:
                    task_status.started()
                    await self._stop.wait()
                finally:
                    self._means = None
                    for keeper in self._keepers.values():
                        keeper.close()
        finally:
            self._stopped.set()

    async def aclose(self) -> None:
        """Stop every server, in the orderly way and all at the same time, until all are gone.

        Calls still in flight fail; let them finish before. Nothing starts any more.
        """
        self._stop.set()
        if self._ran:
            await self._stopped.wait()

    def lease(self, permit: Permit, manner: Manner = ANY_MANNER) -> Lease | None:
        """An instance for this caller that takes calls now; None if ``ready`` has to find one.

        One opened in ``manner``, or in another one that comes to the same; never one that a client
        session owns, but for that session. Good for the rest of this step of the event loop: begin
        the call before awaiting anything.
        """
        keeper = self._keepers.get(permit.entry.spec.id)
        return None if keeper is None else keeper.find(permit.principal, manner)

    async def ready(self, permit: Permit, manner: Manner = ANY_MANNER) -> Lease:
        """An instance for this caller, started if need be; good as long as that of ``lease``.

        Raises:
            EraNotSpoken: the server works, but does not speak the era of ``manner``.
            UpstreamUnavailable: it does not start, or keeps failing; says why and when to retry.
            Busy: no room within ``max_connections_per_server``.
            NotFound: no longer in the catalog.
            Draining: the gateway is stopping.
        """
        return await self._keeper(permit).ready(permit.principal, manner)

    def release(self, permit: Permit, manner: Manner) -> None:
        """The client session that owns ``manner`` is over: what it alone used stops once its calls
        are over. Does nothing where there is nothing."""
        keeper = self._keepers.get(permit.entry.spec.id)
        if keeper is not None:
            keeper.release(permit.principal, manner)

    async def start(self, permit: Permit) -> bool:
        """Start it now, whatever happened before; False if it was running. Raises as ``ready``."""
        return await self._keeper(permit).start(permit.principal)

    async def stop(self, permit: Permit) -> bool:
        """Stop its instances in the caller's scope now, for the platform all; False if none ran.
        Calls in flight fail (UpstreamBroken)."""
        return await self._keeper(permit).stop(permit.principal)

    async def restart(self, permit: Permit) -> None:
        """Replace what runs in the caller's scope, for the platform all that runs, by new instances
        on the newest definition, each ready before the old one finishes its calls and stops. Where
        the new one does not start, the old one stays.

        Raises as ``ready``.
        """
        await self._keeper(permit).restart(permit.principal)

    def apply(self, snapshot: Snapshot, changes: Changes) -> None:
        """Take over a new catalog; ``changes`` is the difference to the one applied before."""
        self._snapshot = snapshot
        for server_id in changes.removed:
            if server_id in self._keepers:
                self._keepers[server_id].remove()
        for server_id in (*changes.added, *changes.modified):
            keeper = self._keepers.get(server_id)
            if keeper is not None:
                relaunch = server_id in changes.relaunch or server_id in changes.added
                keeper.redefine(snapshot.entries[server_id], relaunch=relaunch)
        for server_id in [one for one, keeper in self._keepers.items() if keeper.vacant]:
            del self._keepers[server_id]

    def reconfigure(self, settings: FleetSettings) -> None:
        """New times and limits hold at once, for what runs too."""
        self._settings = settings
        for keeper in self._keepers.values():
            keeper.reconfigure(settings)

    def desert(self, deserted: Callable[[CatalogEntry, InstanceKey], bool]) -> None:
        """Stop what is for nobody any more, by the definition in force and whom it is for."""
        for keeper in self._keepers.values():
            keeper.desert(deserted)

    def status(self, server_id: ServerId, holder: Holder) -> ServerStatus:
        """What ``holder`` may know of a server; one never heard of is stopped."""
        keeper = self._keepers.get(server_id)
        return _STOPPED if keeper is None else keeper.status(holder)

    def isolation(self, permit: Permit) -> Isolation:
        """Who may share an instance of this server by the rule in force now."""
        entry = self._snapshot.entries.get(permit.entry.spec.id, permit.entry)
        return isolation_of(entry, self._settings.default_isolation)

    def _opened(self, server_id: ServerId) -> None:
        self.on_opened(server_id)

    def _left(self, lease: Lease) -> None:
        self.on_left(lease)

    def _keeper(self, permit: Permit) -> Keeper:
        if self._means is None:
            raise Draining("The gateway is stopping")
        server_id = permit.entry.spec.id
        keeper = self._keepers.get(server_id)
        if keeper is None:
            # The definition last applied, not the one the permit was given for.
            entry = self._snapshot.entries.get(server_id)
            if entry is None:
                raise NotFound(f"Server '{server_id}' not found")
            keeper = self._keepers[server_id] = Keeper(entry, self._settings, self._means)
        return keeper
