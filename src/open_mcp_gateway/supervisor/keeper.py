"""One server: its seats, one for each group of callers and manner of being spoken to."""

from __future__ import annotations

from collections.abc import Callable

from open_mcp_gateway.auth.principal import Holder, Platform, Principal
from open_mcp_gateway.catalog.model import CatalogEntry
from open_mcp_gateway.errors import EraNotSpoken, GatewayError, UpstreamUnavailable
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner
from open_mcp_gateway.supervisor.ending import Ending
from open_mcp_gateway.supervisor.instance import Instance
from open_mcp_gateway.supervisor.policy import InstanceKey, fits, key_of, may_suit, scope_of
from open_mcp_gateway.supervisor.report import state_of, status_for
from open_mcp_gateway.supervisor.seat import Seat
from open_mcp_gateway.supervisor.settings import FleetSettings
from open_mcp_gateway.supervisor.site import Means, Site
from open_mcp_gateway.supervisor.states import ServerState, ServerStatus


class Keeper:
    """Everything that runs, or ran, for one server. Holds no task while nothing runs."""

    __slots__ = ("_seats", "_serving", "_site")

    def __init__(self, entry: CatalogEntry, settings: FleetSettings, means: Means) -> None:
        self._site = Site(entry, settings, means)
        self._seats: dict[InstanceKey, Seat] = {}
        self._serving = self._site.serving

    # What callers want. The calls in flight of an instance that stops end with UpstreamBroken.

    def find(self, principal: Principal, manner: Manner) -> Instance | None:
        """An instance that takes calls now. On the path of every request."""
        site = self._site
        key = key_of(site.entry, principal, site.settings.default_isolation, manner)
        return self._serving.find(key)

    def _key_for(self, principal: Principal, manner: Manner) -> InstanceKey:
        """By the isolation in force now, not the one that was when the caller was let in."""
        site = self._site
        return key_of(site.entry, principal, site.settings.default_isolation, manner)

    async def ready(self, principal: Principal, manner: Manner) -> Instance:
        """An instance that takes calls at the moment this returns; failing, a counted request."""
        try:
            return await self._ready(principal, manner)
        except EraNotSpoken:
            raise  # no failure, and the client may come back in the other era
        except GatewayError:
            self._site.tally_of(principal.holder).refused()
            raise

    async def _ready(self, principal: Principal, manner: Manner) -> Instance:
        instance = self.find(principal, manner)
        if instance is None:
            await self._other_coming(self._key_for(principal, manner), principal.holder)
            instance = self.find(principal, manner)
        while instance is None:
            seat = self._seat(self._key_for(principal, manner))
            awaited = seat.demand(principal.holder)
            await awaited.settled(principal.holder)
            if awaited.failure is not None and awaited.ending is not Ending.REGROUPED:
                raise self._failure(seat, awaited, principal.holder)
            if awaited.leaving is Ending.RELEASED:
                raise UpstreamUnavailable(f"Server '{self._site.server_id}': {awaited.leaving}")
            # Nothing can come between this look and the caller's first step after this returns;
            # what was found on waking up has to be looked at again for that reason.
            instance = self.find(principal, manner)
        return instance

    async def _other_coming(self, key: InstanceKey, holder: Holder) -> None:
        """Wait for one of another manner that is starting and may suit ``key``, if there is one.

        Once only: whether it suits or even opens is not known before.
        """
        own = self._seats.get(key)
        if own is not None and own.coming is not None:
            return
        for seat in self._seats.values():
            coming = seat.coming
            if coming is None or seat.key.scope != key.scope:
                continue
            if may_suit(key.manner, seat.key.manner):
                await coming.settled(holder)
                return

    def release(self, principal: Principal, manner: Manner) -> None:
        """The client session that owns connections of this manner is over."""
        seat = self._seats.get(self._key_for(principal, manner)) if manner.owner else None
        if seat is not None:
            seat.detach(Ending.RELEASED)

    async def start(self, principal: Principal) -> bool:
        if self.find(principal, ANY_MANNER) is not None:
            return False
        key = self._key_for(principal, ANY_MANNER)
        holder = principal.holder
        await self._other_coming(key, holder)
        if self._serving.find(key) is None:
            self._site.ask_again(key.scope)
            seat = self._seat(key)
            await self._opened(seat, seat.insist(), holder)
            if self._serving.find(key) is None:
                raise seat.unavailable(holder)
        return True

    async def stop(self, principal: Principal) -> bool:
        """Stop every instance that is the caller's to stop at once, in the orderly way; True if
        there was something to stop."""
        governed = self._governed_by(principal)
        state = state_of(self._site, governed)
        leaving = [one for one in self._site.instances if governed(one.key)]
        self._end_those(governed, Ending.ASKED)
        for instance in leaving:
            await instance.gone.wait()
        return state not in {ServerState.STOPPED, ServerState.SHUTTING_DOWN}

    async def restart(self, principal: Principal) -> None:
        """Replace what runs and is the caller's, each by a new one that is ready first; start it
        if nothing runs."""
        governed, holder = self._governed_by(principal), principal.holder
        live = [
            seat for seat in self._seats.values() if seat.current is not None and governed(seat.key)
        ]
        if not live:
            await self.start(principal)
            return
        for scope in {seat.key.scope for seat in live}:
            self._site.ask_again(scope)
        coming = [self._replacement(seat) for seat in live]
        failed: GatewayError | None = None
        for seat, instance in zip(live, coming, strict=True):
            try:
                await self._replaced(seat, instance, holder)
            except GatewayError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def end_all(self, why: Ending) -> None:
        """Begin to stop every instance, planned ones too; failures are forgotten."""
        self._end_those(lambda _: True, why)

    def _end_those(self, chosen: Callable[[InstanceKey], bool], why: Ending) -> None:
        for instance in tuple(self._site.instances):
            if chosen(instance.key):
                self._end(instance, why)
        for seat in self._seats.values():
            if chosen(seat.key):
                self._site.ask_again(seat.key.scope)
                seat.forgive()

    def _governed_by(self, principal: Principal) -> Callable[[InstanceKey], bool]:
        """Which instances ``principal`` may stop: those in its own scope, the platform all."""
        site, holder = self._site, principal.holder
        if isinstance(holder, Platform):
            return lambda _: True
        scope = scope_of(site.entry, principal, site.settings.default_isolation)
        return lambda key: key.scope == scope and site.knows(holder, key)

    def desert(self, deserted: Callable[[CatalogEntry, InstanceKey], bool]) -> None:
        """Part with instances that are for nobody any more; their calls are over, or end soon."""
        for seat in self._seats.values():
            if seat.current is not None and deserted(self._site.entry, seat.key):
                seat.detach(Ending.DESERTED)

    def close(self) -> None:
        """Stop everything; nothing starts here again."""
        self._site.closed = True
        self.end_all(Ending.SHUTDOWN)

    # What a reload brings.

    def redefine(self, entry: CatalogEntry, *, relaunch: bool) -> None:
        """What runs keeps its definition; times and isolation of the new one hold at once.

        ``relaunch`` says that a new start would differ, so that old failures mean nothing for it.
        """
        site = self._site
        site.entry = entry
        if site.removed:
            site.removed = False
            for instance in site.instances:
                if instance.leaving is Ending.REMOVED:
                    instance.stay()
        if relaunch:
            site.refusals.clear()
            for seat in self._seats.values():
                seat.forgive()
                if seat.current is not None and seat.current.queued:
                    seat.current.hasten()
        self._regroup()

    def reconfigure(self, settings: FleetSettings) -> None:
        """New times and limits hold at once."""
        self._site.settings = settings
        self._regroup()

    def _regroup(self) -> None:
        """Part with instances that no caller belongs to any more; the others look at the clock."""
        site = self._site
        for seat in self._seats.values():
            if not fits(seat.key, site.entry, site.settings.default_isolation):
                seat.detach(Ending.REGROUPED)
        for instance in site.instances:
            instance.wake()

    def remove(self) -> None:
        """What is in use finishes its calls, and nothing starts any more."""
        site = self._site
        site.removed = True
        for instance in tuple(site.instances):
            if instance.leaving not in {None, Ending.HUNG}:
                continue  # it leaves already, and does not stay if the server comes back
            if instance.is_open or instance.waiting:
                site.leave(instance, Ending.REMOVED)
            else:
                self._end(instance, Ending.REMOVED)

    @property
    def vacant(self) -> bool:
        """Whether it was removed and nothing of it is left."""
        return self._site.removed and not self._site.instances

    # What is known.

    def status(self, holder: Holder) -> ServerStatus:
        """What ``holder`` may know."""
        return status_for(self._site, holder)

    # Inside.

    async def _opened(self, seat: Seat, instance: Instance, holder: Holder) -> None:
        """Wait until ``instance`` opened. If this caller is cancelled the start goes on."""
        await instance.settled(holder)
        if instance.failure is not None:
            raise self._failure(seat, instance, holder)

    def _failure(self, seat: Seat, instance: Instance, holder: Holder) -> GatewayError:
        """A new error for each caller: each gets its own request's id. May raise as well."""
        self._site.check_open()
        if instance.spoken is not None and instance.failure is not None:
            return EraNotSpoken(instance.failure, spoken=instance.spoken)
        return seat.unavailable(holder, cause=instance.failure)

    def _replacement(self, seat: Seat) -> Instance:
        """The new instance that shall take over in ``seat``; one that is starting is new enough."""
        current = seat.current
        if current is None or current.queued:
            return seat.insist()
        return seat.replace() if current.is_open else current

    async def _replaced(self, seat: Seat, instance: Instance, holder: Holder) -> None:
        await self._opened(seat, instance, holder)
        # It may have been starting already, on a definition that a reload has replaced since.
        if instance is seat.current and instance.entry is not self._site.entry:
            await self._opened(seat, seat.replace(), holder)

    def _seat(self, key: InstanceKey) -> Seat:
        seat = self._seats.get(key)
        if seat is None:
            for blank in [one.key for one in self._seats.values() if one.blank]:
                del self._seats[blank]
                self._site.given_up.discard(blank)
            seat = self._seats[key] = Seat(self._site, key, self._make_room)
        return seat

    def _make_room(self, scope: str) -> Instance | None:
        instance = self._site.room(scope)
        if instance is not None:
            self._end(instance, Ending.EVICTED)
        return instance

    def _end(self, instance: Instance, why: Ending) -> None:
        # A seat that was forgotten meanwhile has nothing to lose by it: any other one will do.
        seat = self._seats.get(instance.key)
        (seat or Seat(self._site, instance.key, self._make_room)).end(instance, why)
