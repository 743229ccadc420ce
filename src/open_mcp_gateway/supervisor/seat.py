"""The place of one instance of a server: at most one takes calls, at most one is starting."""

from __future__ import annotations

from collections.abc import Callable

from open_mcp_gateway.auth.principal import Holder
from open_mcp_gateway.errors import UpstreamUnavailable
from open_mcp_gateway.outbound.peer import Peer
from open_mcp_gateway.supervisor.ending import Ending
from open_mcp_gateway.supervisor.instance import Instance
from open_mcp_gateway.supervisor.life import live
from open_mcp_gateway.supervisor.policy import InstanceKey, after_failure, is_common
from open_mcp_gateway.supervisor.site import Site
from open_mcp_gateway.supervisor.states import ServerState
from open_mcp_gateway.supervisor.trouble import Trouble

_FAILED = frozenset({Ending.LOST, Ending.HUNG})


class Seat:
    """Starts, watches, replaces and stops the instances of one server under one key.

    All decisions are made synchronously, so that nothing can come between looking and doing. Each
    instance has one task (``life.live``) that carries them out and owns the peer.
    """

    __slots__ = ("_failures", "_retry_at_s", "_room", "_site", "_why", "current", "key", "next")

    def __init__(
        self, site: Site, key: InstanceKey, make_room: Callable[[str], Instance | None]
    ) -> None:
        self._site = site
        self._room = make_room
        """Gives the instance that must be gone before one more may start in a scope. Raises Busy.
        """
        self.key = key
        self.current: Instance | None = None
        """Planned, starting, running, or not answering its health checks."""
        self.next: Instance | None = None
        """Starting, to replace ``current``."""
        self._failures = 0
        self._retry_at_s = 0.0
        self._why = Trouble(site, key)

    # What callers want.

    def demand(self, holder: Holder) -> Instance:
        """The instance that a request can wait for; started if there is none.

        Raises:
            UpstreamUnavailable: it failed a moment ago and is not tried again yet.
            EraNotSpoken: it said so a moment ago.
            Busy, Draining, NotFound: nothing can start.
        """
        coming = self.coming
        if coming is not None:
            return coming
        site = self._site
        current = self.current
        if current is not None:
            # Open, it does not answer its health checks: no calls until it does, or is replaced.
            again_s = site.now_s() + site.settings.patience_s if current.is_open else current.due_s
            raise self.unavailable(holder, again_s)
        site.check_open()
        site.check_era(self.key)
        if site.now_s() < self._retry_at_s:
            raise self.unavailable(holder)
        return self._start()

    @property
    def coming(self) -> Instance | None:
        """One that a request can wait for: it is starting, or will be in a moment."""
        current, site = self.current, self._site
        if current is None or current.is_open:
            return None
        late = current.queued and current.due_s - site.now_s() > site.settings.patience_s
        return None if late else current

    def insist(self) -> Instance:
        """Like ``demand``, but try now whatever happened before."""
        self.forgive()
        current = self.current
        if current is not None and current.is_open:
            self.end(current, Ending.HUNG)
            current = self.current
        if current is not None:
            current.hasten()
            return current
        self._site.check_open()
        return self._start()

    def replace(self) -> Instance:
        """A new instance that takes over from the running one once it is ready."""
        self._site.check_open()
        if self.next is None:
            self.forgive()
            self.next = self._spawn()
            self.next.become(ServerState.STARTING, "to replace the running one")
        return self.next

    @property
    def blank(self) -> bool:
        """Whether forgetting it would lose nothing of use.

        Keys that clients make up as they please leave no failures behind after the backoff.
        """
        if self.current is not None or self.next is not None:
            return False
        made_up = not is_common(self.key.manner)
        return not self._failures or (made_up and self._site.now_s() >= self._retry_at_s)

    def forgive(self) -> None:
        """Forget failures: the next start is as good as the first."""
        self._failures = 0
        self._retry_at_s = 0.0
        self._site.given_up.discard(self.key)

    def detach(self, why: Ending) -> None:
        """Let what is here finish its calls and end, out of reach of new ones."""
        for instance in (self.next, self.current):
            if instance is None:
                continue
            if not instance.is_open:
                self.end(instance, why)
                continue
            self._site.serving.remove(instance)
            self.current = None
            self._site.leave(instance, why)

    def end(self, instance: Instance, why: Ending) -> None:
        """Begin to end ``instance`` now, if that has not begun yet; its task does the work."""
        if instance.ending is not None:
            return
        site = self._site
        instance.ending = why
        site.serving.remove(instance)
        was_current = instance is self.current
        if was_current:
            self.current, self.next = self.next, None
        elif instance is self.next:
            self.next = None
        if instance.is_open:
            state = ServerState.UNHEALTHY if why is Ending.LOST else ServerState.SHUTTING_DOWN
            instance.become(state, self._reason(why))
            instance.wake()
        else:
            instance.settle(f"Server '{site.server_id}' did not start: {why.value}")
            instance.scope.cancel()
        ran_s = site.now_s() - instance.opened_s if instance.is_open else 0.0
        if was_current and why in _FAILED:
            # The session that owns one asks again if it still needs it, but for one that only
            # listens: that holds it, and calls that were in flight have ended by now.
            self._failed(instance, ran_s, wanted=not self.key.manner.owner or instance.active > 0)
        elif ran_s >= site.settings.stable_after_s:
            self.forgive()

    def unavailable(
        self, holder: Holder, due_s: float = 0.0, *, cause: str | None = None
    ) -> UpstreamUnavailable:
        """Why no call of ``holder`` can be taken; ``due_s`` is when to come again, at first after
        the backoff."""
        return self._why.error(holder, max(due_s, self._retry_at_s), cause)

    # What happens to instances.

    def _start(self) -> Instance:
        room = self._room(self.key.scope)
        self.current = self._spawn(after=() if room is None else (room,))
        self.current.become(ServerState.STARTING, "wanted")
        return self.current

    def _spawn(
        self, *, due_s: float = 0.0, automatic: bool = False, after: tuple[Instance, ...] = ()
    ) -> Instance:
        site = self._site
        instance = Instance(
            site.server_id,
            self.key,
            site.means.clock,
            site.tallies,
            due_s=due_s,
            automatic=automatic,
            after=tuple({*after, *site.in_the_way(self.key)}),
        )
        site.instances.add(instance)
        site.means.tasks.start_soon(live, instance, site, self, name=f"server {site.server_id}")
        return instance

    def opened(self, instance: Instance, peer: Peer) -> None:
        site = self._site
        instance.open(peer)
        instance.become(ServerState.RUNNING, "ready")
        site.works(self.key.scope, peer.handshake.era)
        old = None
        if instance is self.next:
            old, self.current, self.next = self.current, instance, None
        site.serving.add(instance)
        if old is not None:
            site.leave(old, Ending.REPLACED)
        site.means.opened(site.server_id)
        instance.settle()

    def checked(self, instance: Instance, *, alive: bool) -> None:
        """Draw the consequence of a health check.

        A server that stops answering takes no more calls. Those it has keep it until their own
        deadlines: it may be busy computing, and comes back into service when it answers again. Once
        they are over it is stopped and started afresh.
        """
        if instance.ending is not None:
            return
        site = self._site
        hung = instance.leaving is Ending.HUNG
        instance.failed_checks = 0 if alive else instance.failed_checks + 1
        if alive and hung and instance is self.current:
            instance.stay()
            instance.become(ServerState.RUNNING, "answers health checks again")
            site.serving.add(instance)
        elif instance.failed_checks >= site.settings.failed_checks and instance.leaving is None:
            self._why.because(
                f"Server '{site.server_id}' did not answer {instance.failed_checks} health checks"
                " in a row"
            )
            site.serving.remove(instance)
            instance.become(ServerState.UNHEALTHY, Ending.HUNG.value)
            site.leave(instance, Ending.HUNG)

    def lost(self, instance: Instance, cause: str) -> None:
        """The peer died by itself."""
        if instance.ending is None:
            self._why.because(cause)
            self.end(instance, Ending.LOST)

    def declined(self, instance: Instance, cause: str, spoken: tuple[str, ...]) -> None:
        """A verdict: told to who waits, but nothing has failed and nothing is tried again."""
        if instance.ending is not None or instance.is_open:
            return
        self._site.refused(self.key, cause, spoken)
        instance.ending = Ending.DECLINED
        instance.spoken = spoken
        instance.settle(cause)
        if instance is self.next:
            self.next = None
        elif instance is self.current:
            self.current = None
        instance.become(ServerState.STOPPED, Ending.DECLINED.value)

    def start_failed(self, instance: Instance, cause: str) -> None:
        if instance.ending is not None or instance.is_open:
            return
        cause = self._why.because(cause, instance.awaited_by)
        instance.ending = Ending.LOST
        instance.settle(cause)
        if instance is self.next:
            self.next = None
        elif instance is self.current:
            self.current = None
            self._failed(instance, 0.0, wanted=instance.automatic)
        again = self.current is not None and self.current.automatic
        unwell = again or self.key in self._site.given_up
        state = ServerState.UNHEALTHY if unwell else ServerState.STOPPED
        instance.become(state, cause, failed=True)

    def _failed(self, instance: Instance, ran_s: float, *, wanted: bool) -> None:
        """Count a failure, and plan the restart if there is to be one."""
        site = self._site
        verdict = after_failure(
            self._failures,
            ran_s=ran_s,
            wanted=wanted,
            now_s=site.now_s(),
            jitter=site.means.jitter(),
            settings=site.settings,
        )
        self._failures, self._retry_at_s = verdict.failures, verdict.retry_at_s
        if site.removed or site.closed:
            return
        if self.current is not None:
            # A replacement is on its way and takes the place of the restart.
            self.current.automatic = wanted
        elif verdict.restart:
            self.current = self._spawn(due_s=verdict.retry_at_s, automatic=True, after=(instance,))
        elif wanted:
            self._why.give_up(verdict.failures)

    def _reason(self, why: Ending) -> str:
        return (why is Ending.LOST and self._why.text) or why.value

    def gone(self, instance: Instance) -> None:
        """Nothing of the instance is left."""
        site = self._site
        if instance.ending is None:
            self.end(instance, Ending.SHUTDOWN)
        if instance.state in {ServerState.SHUTTING_DOWN, ServerState.STARTING}:
            instance.become(ServerState.STOPPED, instance.ending.value if instance.ending else "")
        site.instances.discard(instance)
        instance.gone.set()
