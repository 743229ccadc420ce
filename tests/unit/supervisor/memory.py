"""Servers in memory that can be slow, mute, broken or gone, and a fleet of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import anyio

from open_mcp_gateway.access.authorize import authorize
from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import PLATFORM, Holder, Permission, Principal
from open_mcp_gateway.auth.scope import EVERYTHING, UNNARROWED
from open_mcp_gateway.catalog.diff import Changes, diff
from open_mcp_gateway.catalog.model import CatalogEntry, LocalProcess, ServerSpec, Snapshot
from open_mcp_gateway.errors import (
    EraNotSpoken,
    GatewayError,
    UpstreamBroken,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from open_mcp_gateway.names import KeyId, ServerId
from open_mcp_gateway.outbound.peer import (
    ANY_MANNER,
    Audience,
    Handshake,
    Manner,
    Peer,
    Question,
    Waiter,
)
from open_mcp_gateway.protocol.eras import LATEST_LEGACY, LATEST_MODERN, Era
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming
from open_mcp_gateway.protocol.mirrored import Fields
from open_mcp_gateway.supervisor.fleet import Fleet
from open_mcp_gateway.supervisor.lease import Lease
from open_mcp_gateway.supervisor.settings import FleetSettings
from open_mcp_gateway.supervisor.states import ServerState, ServerStatus
from tests.unit.supervisor.virtual_time import LoopClock

CALL = Call(method="tools/list", id=b"1")


MODERN = Manner(era=Era.MODERN)
"""How stateless clients want a server opened."""


def legacy(version: str = LATEST_LEGACY) -> Manner:
    """How clients that can be asked nothing want it opened."""
    return Manner(era=Era.LEGACY, version=version)


def owned(session: str) -> Manner:
    """How a client that can be asked something wants it opened, for itself."""
    capabilities = b'{"sampling":{}}'
    return Manner(era=Era.LEGACY, version=LATEST_LEGACY, capabilities=capabilities, owner=session)


class Outcome:
    """Keeps what became of one call; a second outcome is an error of the peer."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.error: GatewayError | None = None
        self.answer: tuple[bytes, int] | None = None

    def answered(self, message: bytes, upstream_id: int) -> None:
        self.answer = (message, upstream_id)
        self._set(None)

    def failed(self, error: GatewayError) -> None:
        self._set(error)

    @property
    def whose(self) -> str | None:
        return "whoever tests"

    def related(self, message: bytes, incoming: Incoming) -> None:
        raise AssertionError(message, incoming)

    def asked(self, question: Question) -> None:
        raise AssertionError(question)

    def _set(self, error: GatewayError | None) -> None:
        assert not self.over.is_set()
        self.error = error
        self.over.set()


class MemoryTicket:
    def __init__(self, cancel: Callable[[], bool]) -> None:
        self._cancel = cancel
        self.reason = ""

    def extend(self, deadline_s: float) -> None:
        raise AssertionError(deadline_s)

    def cancel(self, reason: str) -> None:
        if self._cancel():
            self.reason = reason


class MemoryPeer:
    """Answers each call after ``latency_s``, or when told to; ``None`` never does by itself."""

    def __init__(self, world: World, entry: CatalogEntry, pid: int) -> None:
        self.world = world
        self.entry = entry
        self.manner = ANY_MANNER
        self.handshake = world.greets(ANY_MANNER)
        self.audience: Audience | None = None
        self.pid: int | None = pid
        self.mute = False
        self.latency_s: float | None = world.latency_s
        self.probes = 0
        self.calls: list[tuple[Permit, Call]] = []
        self.over = anyio.Event()
        """Ended, whatever the reason."""
        self.gone = anyio.Event()
        """Nothing of it is left."""
        self._lost: GatewayError | None = None
        self._callbacks: list[Callable[[GatewayError], None]] = []
        self._waiters: dict[Waiter, list[asyncio.TimerHandle]] = {}

    @property
    def inflight(self) -> int:
        return len(self._waiters)

    def given_up_by_others(self, whose: str) -> bool:  # noqa: ARG002
        return False

    def call(
        self, permit: Permit, call: Call, waiter: Waiter, *, deadline_s: float
    ) -> MemoryTicket:
        if self.over.is_set():
            raise UpstreamUnavailable("gone")
        self.calls.append((permit, call))
        loop = asyncio.get_running_loop()
        late = partial(self._finish, waiter, UpstreamTimeout("too late"))
        self._waiters[waiter] = [loop.call_at(deadline_s, late)]
        if self.latency_s is not None:
            answer = partial(self._finish, waiter, None)
            self._waiters[waiter].append(loop.call_later(self.latency_s, answer))
        return MemoryTicket(partial(self._drop, waiter))

    def notify(self, permit: Permit, call: Call) -> None:
        self.calls.append((permit, call))

    def attend(self, audience: Audience) -> None:
        self.audience = audience

    def mirrored(self, tool: str) -> Fields:
        raise AssertionError(tool)

    def wait_for_tools(self, then: Callable[[], None]) -> bool:
        raise AssertionError(then)

    async def probe(self) -> None:
        self.probes += 1
        await anyio.lowlevel.checkpoint()
        if self._lost is not None:
            raise self._lost
        if self.mute:
            await anyio.sleep_forever()

    def on_lost(self, callback: Callable[[GatewayError], None]) -> None:
        if self._lost is not None:
            callback(self._lost)
        else:
            self._callbacks.append(callback)

    async def aclose(self) -> None:
        self._end(UpstreamBroken("stopped"))
        with anyio.CancelScope(shield=True):
            if not self.gone.is_set():
                await anyio.sleep(self.world.stop_s)
        self.gone.set()

    def answer_all(self) -> None:
        for waiter in tuple(self._waiters):
            self._finish(waiter, None)

    def crash(self, text: str = "exit code 1") -> None:
        if self.over.is_set():
            return
        self._lost = UpstreamBroken(text)
        self._end(self._lost)
        for callback in self._callbacks:
            callback(self._lost)

    def _end(self, error: GatewayError) -> None:
        self.over.set()
        for waiter in tuple(self._waiters):
            self._finish(waiter, error)

    def _drop(self, waiter: Waiter) -> bool:
        timers = self._waiters.pop(waiter, None)
        for timer in timers or ():
            timer.cancel()
        return timers is not None

    def _finish(self, waiter: Waiter, error: GatewayError | None) -> None:
        if not self._drop(waiter):
            return
        if error is None:
            waiter.answered(b"{}", 1)
        else:
            waiter.failed(error)


class World:
    """Opens peers as told, and remembers all of them."""

    def __init__(self) -> None:
        self.start_s = 1.0
        self.stop_s = 0.5
        self.latency_s: float | None = 0.01
        self.fail: Exception | None = None
        self.crash_at_once = False
        self.speaks: tuple[Era, ...] = (Era.LEGACY,)
        """The first is that of callers who do not care."""
        self.only_version: str | None = None
        """Answers every ``initialize`` with this one; None: with the one that was offered."""
        self.opened: list[MemoryPeer] = []
        self.opening: list[tuple[ServerId, Manner]] = []
        self.attempts: list[float] = []
        self.manners: list[Manner] = []
        """One for each attempt."""
        self.most_opening = 0
        """In the same manner at the same time."""
        self.most_alive = 0

    async def __call__(self, entry: CatalogEntry, manner: Manner = ANY_MANNER) -> Peer:
        server_id = entry.spec.id
        self.attempts.append(asyncio.get_running_loop().time())
        self.manners.append(manner)
        opening = (server_id, manner)
        self.opening.append(opening)
        self.most_opening = max(self.most_opening, self.opening.count(opening))
        try:
            await anyio.sleep(self.start_s)
            if self.fail is not None:
                raise self.fail
            self.check_era(manner)
        finally:
            self.opening.remove(opening)
        peer = self.make(self, entry, 100 + len(self.opened))
        peer.manner, peer.handshake = manner, self.greets(manner)
        self.opened.append(peer)
        self.most_alive = max(self.most_alive, len(self.alive(server_id)))
        if self.crash_at_once:
            asyncio.get_running_loop().call_later(0.0, peer.crash)
        return peer

    def make(self, world: World, entry: CatalogEntry, pid: int) -> MemoryPeer:
        return MemoryPeer(world, entry, pid)

    def check_era(self, manner: Manner) -> None:
        if manner.era is not None and manner.era not in self.speaks:
            spoken = tuple(self.greets(Manner(era=era)).version for era in self.speaks)
            raise EraNotSpoken(f"does not speak {manner.era.value}", spoken=spoken)

    def greets(self, manner: Manner) -> Handshake:
        era = manner.era or self.speaks[0]
        legacy = self.only_version or manner.version or LATEST_LEGACY
        version = LATEST_MODERN if era is Era.MODERN else legacy
        return Handshake(era=era, version=version, result=b"{}")

    def alive(self, server_id: str) -> list[MemoryPeer]:
        return [
            peer
            for peer in self.opened
            if peer.entry.spec.id == server_id and not peer.gone.is_set()
        ]

    @property
    def last(self) -> MemoryPeer:
        return self.opened[-1]


def spec(server_id: str = "a", **changes: object) -> ServerSpec:
    fields: dict[str, object] = {
        "id": ServerId(server_id),
        "runtime": LocalProcess(command="true"),
        "display_name": server_id,
        **changes,
    }
    return ServerSpec(**fields)  # type: ignore[arg-type]


def entry_of(definition: ServerSpec, secrets: tuple[str, ...] = ()) -> CatalogEntry:
    return CatalogEntry(
        spec=definition, shown=definition, runtime_type="local-process", secrets=secrets
    )


def snapshot_of(*specs: ServerSpec, secrets: tuple[str, ...] = ()) -> Snapshot:
    return Snapshot({one.id: entry_of(one, secrets) for one in specs})


def principal(key: str = "k1", holder: Holder = PLATFORM) -> Principal:
    return Principal(
        key_id=KeyId(key),
        role="admin",
        permissions=frozenset(Permission),
        namespaces=EVERYTHING,
        holder=holder,
        scope=UNNARROWED,
    )


class Town:
    """A running fleet over a world, seen as the rest of the gateway sees it."""

    def __init__(self, fleet: Fleet, world: World) -> None:
        self.fleet = fleet
        self.world = world
        self.snapshot = Snapshot()

    def load(self, *specs: ServerSpec, secrets: tuple[str, ...] = ()) -> Changes:
        new = snapshot_of(*specs, secrets=secrets)
        changes = diff(self.snapshot, new)
        self.fleet.apply(new, changes)
        self.snapshot = new
        return changes

    def permit(self, server_id: str = "a", key: str = "k1", holder: Holder = PLATFORM) -> Permit:
        entry = self.snapshot.entries[ServerId(server_id)]
        return authorize(principal(key, holder), Permission.MCP_CALL, entry)

    def status(self, server_id: str = "a", holder: Holder = PLATFORM) -> ServerStatus:
        return self.fleet.status(ServerId(server_id), holder)

    def state(self, server_id: str = "a") -> ServerState:
        return self.status(server_id).state

    async def use(
        self,
        server_id: str = "a",
        key: str = "k1",
        deadline_s: float = 30.0,
        manner: Manner = ANY_MANNER,
        holder: Holder = PLATFORM,
    ) -> GatewayError | None:
        """One request from its beginning to its only outcome, as the pipeline does it."""
        permit = self.permit(server_id, key, holder)
        lease: Lease
        try:
            lease = self.fleet.lease(permit, manner) or await self.fleet.ready(permit, manner)
        except GatewayError as error:
            return error
        return await self.call(lease, permit, deadline_s)

    async def call(self, lease: Lease, permit: Permit, deadline_s: float) -> GatewayError | None:
        outcome = Outcome()
        lease.began(permit.principal.holder)
        try:
            at_s = asyncio.get_running_loop().time() + deadline_s
            lease.peer.call(permit, CALL, outcome, deadline_s=at_s)
            await outcome.over.wait()
        except GatewayError as error:
            outcome.error = error
        finally:
            broken = outcome.error
            cause = broken.public if isinstance(broken, UpstreamBroken) else None
            lease.ended(permit.principal.holder, failed=broken is not None, cause=cause)
        return outcome.error


@asynccontextmanager
async def town(
    specs: Sequence[ServerSpec] = (),
    settings: FleetSettings | None = None,
    world: World | None = None,
) -> AsyncIterator[Town]:
    """A fleet for the length of a test. Leaves nothing running, and says so if something does."""
    world = World() if world is None else world
    fleet = Fleet(settings or FleetSettings(), world, LoopClock(), jitter=lambda: 0.0)
    place = Town(fleet, world)
    place.load(*(specs or (spec(),)))
    async with anyio.create_task_group() as tasks:
        await tasks.start(partial(fleet.run))
        try:
            with anyio.fail_after(100_000):
                yield place
        finally:
            with anyio.fail_after(1000, shield=True):
                await fleet.aclose()
    assert [peer for peer in world.opened if not peer.gone.is_set()] == []
    assert world.opening == []
