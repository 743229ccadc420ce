"""Whatever happens in whatever order: one reply each, and every lease given back.

A lease that began and never ended would keep its server from ever being idle; one that ended twice
would let it be stopped under a call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Holder
from open_mcp_gateway.catalog.model import Isolation
from open_mcp_gateway.errors import UpstreamUnavailable
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner, Peer
from open_mcp_gateway.pipeline.errand import Errand, Means
from open_mcp_gateway.pipeline.forward import Forwarder
from open_mcp_gateway.protocol.jsonrpc import Call
from open_mcp_gateway.supervisor.lease import Lease
from open_mcp_gateway.supervisor.settings import FleetSettings
from tests.unit.pipeline.exchanges import Caller
from tests.unit.supervisor.memory import Town, World, principal, spec, town
from tests.unit.supervisor.virtual_time import BACKEND, LoopClock


class Booked:
    """A lease of the real fleet with an account of its own."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.open = 0

    @property
    def peer(self) -> Peer:
        return self.lease.peer

    @property
    def serving(self) -> bool:
        return self.lease.serving

    def began(self, holder: Holder) -> None:
        self.open += 1
        self.lease.began(holder)

    def ended(self, holder: Holder, *, failed: bool, cause: str | None = None) -> None:
        self.open -= 1
        assert self.open >= 0, "ended more often than it began"
        self.lease.ended(holder, failed=failed, cause=cause)


class Books:
    """The real fleet, with every lease in the books."""

    def __init__(self, place: Town) -> None:
        self.fleet = place.fleet
        self.leases: dict[int, Booked] = {}

    def isolation(self, permit: Permit) -> Isolation:
        return self.fleet.isolation(permit)

    def lease(self, permit: Permit, manner: Manner = ANY_MANNER) -> Booked | None:
        found = self.fleet.lease(permit, manner)
        return None if found is None else self._booked(found)

    async def ready(self, permit: Permit, manner: Manner = ANY_MANNER) -> Booked:
        return self._booked(await self.fleet.ready(permit, manner))

    def release(self, permit: Permit, manner: Manner) -> None:
        self.fleet.release(permit, manner)

    def _booked(self, lease: Lease) -> Booked:
        return self.leases.setdefault(id(lease), Booked(lease))


class Street:
    """Callers in front of a town, and what can happen there."""

    def __init__(self, place: Town, tasks: anyio.abc.TaskGroup) -> None:
        self.place = place
        self.books = Books(place)
        means = Means(self.books, tasks, LoopClock(), request_timeout_s=30, max_request_s=600)
        self.forwarder = Forwarder(means, place.snapshot)
        self.callers: list[tuple[Caller, Errand | None]] = []
        self.left: set[int] = set()

    async def send(self, method: str) -> None:
        caller = Caller()
        raw_id = None if method.startswith("notifications/") else b"%d" % len(self.callers)
        exchange = self.forwarder.forward(
            principal(), "a", Call(method, raw_id, {}), request_id="r", responder=caller
        )
        self.callers.append((caller, exchange))

    async def leave(self, number: int) -> None:
        if not self.callers:
            return
        caller, exchange = self.callers[-1 - number % len(self.callers)]
        if exchange is not None:
            if not caller.replies:
                self.left.add(id(caller))
            exchange.abandon()

    async def everybody_leaves(self, number: int) -> None:
        for which in range(number):
            await self.leave(which)

    async def wait(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def step(self, number: int) -> None:
        for _ in range(number):
            await anyio.lowlevel.checkpoint()

    async def crash(self, number: int) -> None:
        alive = self.place.world.alive("a")
        if alive:
            alive[number % len(alive)].crash()

    async def answer(self) -> None:
        for peer in self.place.world.alive("a"):
            peer.answer_all()

    async def latency(self, seconds: float | None) -> None:
        self.place.world.latency_s = seconds
        for peer in self.place.world.alive("a"):
            peer.latency_s = seconds

    async def starts(self, fails: bool) -> None:
        self.place.world.fail = UpstreamUnavailable("exit code 1") if fails else None

    async def stop(self) -> None:
        await self.place.fleet.stop(self.place.permit())

    async def reload(self, name: str) -> None:
        self.place.load(spec("a", display_name=name), spec("b"))
        self.forwarder.snapshot = self.place.snapshot


Act = tuple[str, tuple[Any, ...]]

METHODS: Final = ("tools/call",) * 4 + ("notifications/custom", "initialize", "notifications/x")
POSSIBLE: Final[list[Act]] = [
    *[("send", (method,)) for method in METHODS],
    *[("leave", (number,)) for number in (0, 0, 1, 2, 5)],
    ("everybody_leaves", (4,)),
    *[("wait", (seconds,)) for seconds in (0.0, 0.01, 0.5, 1.0, 29.0, 31.0, 400.0)],
    *[("step", (number,)) for number in (1, 2, 4)],
    *[("crash", (number,)) for number in (0, 1)],
    ("answer", ()),
    *[("latency", (seconds,)) for seconds in (None, 0.0, 5.0)],
    *[("starts", (fails,)) for fails in (True, False)],
    ("stop", ()),
    *[("reload", (name,)) for name in ("one", "other")],
]
ACTS: Final = st.sampled_from(POSSIBLE)

WARM_UP: Final[list[Act]] = [("send", ("tools/call",)), ("wait", (2.0,)), ("latency", (None,))]
"""It runs, and answers when told to."""


@given(
    st.sampled_from([WARM_UP, WARM_UP, []]),
    st.lists(ACTS, min_size=8, max_size=40),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_one_reply_each_and_every_lease_given_back(
    warm_up: list[Act], acts: list[Act], killed: bool
) -> None:
    play = partial(_play, warm_up + acts, killed=killed)
    anyio.run(play, backend="asyncio", backend_options=BACKEND[1])


async def _play(acts: list[Act], *, killed: bool) -> None:
    world = World()
    async with town([spec("a"), spec("b")], FleetSettings(), world) as place:
        async with anyio.create_task_group() as tasks:
            street = Street(place, tasks)
            for name, arguments in acts:
                act: Callable[..., Any] = getattr(street, name)
                await act(*arguments)
            if killed:
                tasks.cancel_scope.cancel()
            else:
                await anyio.sleep(2_000)  # every deadline has passed, and the idle timeout too
        if killed:
            await place.fleet.aclose()
        for caller, _ in street.callers:
            gone = id(caller) in street.left
            assert len(caller.replies) == (0 if gone else 1), caller.replies
        assert [booked.open for booked in street.books.leases.values() if booked.open] == []
        assert [peer.inflight for peer in world.opened if peer.inflight] == []
        if not killed:
            assert world.alive("a") == [], "idle, and still not stopped"
