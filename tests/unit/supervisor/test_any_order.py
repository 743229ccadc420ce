"""Whatever happens in whatever order: no request is lost, none is broken by idling."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import anyio
from anyio.abc import TaskGroup
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from open_mcp_gateway.access.authorize import authorize
from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.catalog.model import Isolation, LocalProcess, ServerSpec
from open_mcp_gateway.errors import (
    Busy,
    GatewayError,
    NotFound,
    UpstreamBroken,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from open_mcp_gateway.names import ServerId
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.supervisor.lease import Lease
from open_mcp_gateway.supervisor.settings import FleetSettings
from open_mcp_gateway.supervisor.states import ServerState
from tests.unit.supervisor.memory import (
    MODERN,
    MemoryPeer,
    Town,
    World,
    legacy,
    owned,
    principal,
    spec,
    town,
)
from tests.unit.supervisor.virtual_time import BACKEND

SETTINGS: Final = FleetSettings(
    idle_timeout_s=3.0,
    health_check_interval_s=2.0,
    health_check_timeout_s=1.0,
    start_timeout_s=4.0,
    max_connections_per_server=2,
    drain_timeout_s=20.0,
)
OWNERS: Final = ["s1", "s2"]
MANNERS: Final = {
    "any": ANY_MANNER,
    "modern": MODERN,
    "legacy": legacy(),
    "old": legacy("2024-11-05"),
    **{owner: owned(owner) for owner in OWNERS},
}
KEYS: Final = ["k1", "k2", "k3"]
ERAS: Final = [(Era.LEGACY,), (Era.MODERN,), (Era.MODERN, Era.LEGACY)]
EXPECTED: Final = (Busy, NotFound, UpstreamBroken, UpstreamTimeout, UpstreamUnavailable)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("request"), st.tuples(st.sampled_from(KEYS), st.just("any"))),
        st.tuples(
            st.sampled_from(["request", "release"]),
            st.tuples(st.sampled_from(KEYS), st.sampled_from([*MANNERS])),
        ),
        st.tuples(
            st.just("impatient"),
            st.tuples(st.sampled_from([0.1, 0.7, 2.0]), st.sampled_from([*MANNERS])),
        ),
        st.tuples(st.just("speaks"), st.sampled_from(ERAS)),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.2, 0.5, 1.0, 2.9, 3.0, 3.1, 8.0])),
        st.tuples(st.just("latency_s"), st.sampled_from([0.0, 0.1, 3.0, 6.0, None])),
        st.tuples(st.just("start_s"), st.sampled_from([0.0, 0.3, 1.0, 9.0])),
        st.tuples(st.just("stop_s"), st.sampled_from([0.0, 0.5, 4.0])),
        st.tuples(st.just("starts fail"), st.booleans()),
        st.tuples(st.just("isolation"), st.sampled_from([Isolation.SHARED, Isolation.KEY])),
        st.tuples(
            st.sampled_from(
                ["crash", "mute", "stop", "start", "restart", "reload", "remove", "settings"]
            ),
            st.none(),
        ),
    ),
    max_size=25,
)


class Story:
    """Plays steps on a fleet, and keeps every request and its outcomes."""

    def __init__(self, place: Town) -> None:
        self.place = place
        self.world = place.world
        self.requests = 0
        self.outcomes: list[GatewayError | None] = []
        self.version = 0
        self.isolation = Isolation.SHARED
        self.permit = place.permit()
        self.scopes: dict[MemoryPeer, str] = {}
        """Who uses each peer."""

    def spec(self) -> ServerSpec:
        runtime = LocalProcess(command=f"v{self.version}")
        return spec(isolation=self.isolation, runtime=runtime)

    async def play(self, step: str, value: object, tasks: TaskGroup) -> None:
        if step in {"request", "release", "impatient"} and isinstance(value, tuple):
            who, name = value
            self.call(step, who, MANNERS[name], tasks)
        elif step == "wait" and isinstance(value, float):
            await anyio.sleep(value)
        elif step in {"stop", "start", "restart"}:
            tasks.start_soon(self.admin, step)
        else:
            self.change(step, value)

    def call(self, step: str, who: str | float, manner: Manner, tasks: TaskGroup) -> None:
        if isinstance(who, float):
            tasks.start_soon(self.impatient, who, manner)
        elif step == "release":
            self.place.fleet.release(self.permit_for(who), manner)
        else:
            self.requests += 1
            tasks.start_soon(self.request, who, manner)

    def permit_for(self, key: str) -> Permit:
        # A permit of before a reload must do no harm after it.
        entry = self.place.snapshot.entries.get(ServerId("a"), self.permit.entry)
        return authorize(principal(key), Permission.MCP_CALL, entry)

    async def request(self, key: str, manner: Manner) -> None:
        permit, fleet = self.permit_for(key), self.place.fleet
        try:
            lease = fleet.lease(permit, manner) or await fleet.ready(permit, manner)
        except GatewayError as error:
            self.outcomes.append(error)
            return
        self.may_use(lease, key, manner)
        self.outcomes.append(await self.place.call(lease, permit, deadline_s=8.0))

    def may_use(self, lease: Lease, key: str, manner: Manner) -> None:
        """The peer lives, is nobody else's, and speaks as the caller needs it."""
        peer = lease.peer
        assert isinstance(peer, MemoryPeer)
        assert not peer.over.is_set()
        scope = key if self.isolation is Isolation.KEY else ""
        assert self.scopes.setdefault(peer, scope) == scope
        assert (peer.manner.owner, peer.manner.capabilities) == (manner.owner, manner.capabilities)
        assert manner.era in {None, peer.handshake.era}
        if manner.version is not None:
            assert manner.version == peer.handshake.version

    async def impatient(self, patience_s: float, manner: Manner) -> None:
        with anyio.move_on_after(patience_s), suppress(*EXPECTED):
            await self.place.fleet.ready(self.permit, manner)

    async def admin(self, what: str) -> None:
        fleet = self.place.fleet
        acts = {"stop": fleet.stop, "start": fleet.start, "restart": fleet.restart}
        with suppress(*EXPECTED):
            await acts[what](self.permit)

    def change(self, step: str, value: object) -> None:
        world, place = self.world, self.place
        if step == "crash":
            for peer in world.alive("a")[-1:]:
                peer.crash()
        elif step == "mute":
            for peer in world.alive("a")[-1:]:
                peer.mute = not peer.mute
        elif step == "starts fail":
            world.fail = UpstreamUnavailable("told to fail") if value else None
        elif step in {"latency_s", "start_s", "stop_s", "speaks"}:
            setattr(world, step, value)
        elif step == "remove":
            place.load(spec("b"))
        elif step == "settings":
            place.fleet.reconfigure(SETTINGS)
        else:
            self.reload(value)

    def reload(self, isolation: object) -> None:
        if isinstance(isolation, Isolation):
            self.isolation = isolation
        else:
            self.version += 1
        self.place.load(self.spec())


class Lines(logging.Handler):
    """What must never be in the log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.bad: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg != "server keeps failing; no more automatic restarts":
            self.bad.append(f"{record.msg} {record.__dict__}")


@contextmanager
def listening() -> Iterator[Lines]:
    lines = Lines()
    logger = logging.getLogger("open_mcp_gateway.supervisor")
    logger.addHandler(lines)
    try:
        yield lines
    finally:
        logger.removeHandler(lines)


async def tell(story_steps: list[tuple[str, object]]) -> None:
    world = World()
    restarts = sum(step == "restart" for step, _ in story_steps)
    regroups = any(step == "isolation" for step, _ in story_steps)
    with listening() as lines:
        async with town([spec()], SETTINGS, world) as place:
            story = Story(place)
            async with anyio.create_task_group() as tasks:
                for step, value in story_steps:
                    await story.play(step, value, tasks)
                await anyio.sleep(200)
            assert len(story.outcomes) == story.requests
            assert all(one is None or isinstance(one, EXPECTED) for one in story.outcomes)
            # Each scope has at most two instances; what is replaced may go on for a while beside
            # them. There are the scopes of each key and the one of all.
            limit = 2 + 2 * restarts
            assert world.most_alive <= (limit * 4 if regroups else limit)
            assert regroups or world.most_opening <= 1
            await anyio.sleep(200)
            assert place.state() in {ServerState.STOPPED, ServerState.UNHEALTHY}
            assert world.alive("a") == []
            # Whatever came before, a server that works now is there for who insists.
            world.start_s, world.latency_s, world.fail = 0.1, 0.1, None
            place.load(spec())
            await place.fleet.start(place.permit())
            assert await place.use() is None
    assert lines.bad == []


@settings(
    max_examples=1000,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(story_steps=steps)
def test_no_order_of_events_loses_a_request(story_steps: list[tuple[str, object]]) -> None:
    backend, options = BACKEND
    anyio.run(tell, story_steps, backend=backend, backend_options=options)


async def under_calls_only() -> None:
    """Calls of every length against an idle timeout of every length: idling never breaks one."""
    for idle_s in range(1, 8):
        settings_now = FleetSettings(idle_timeout_s=idle_s, health_check_interval_s=2)
        world = World()
        async with town([spec()], settings_now, world) as place:
            for length in range(60):
                world.latency_s = length / 4
                for peer in world.alive("a"):
                    peer.latency_s = world.latency_s
                assert await place.use() is None
                # Arrive around the very moment at which it idles out.
                await anyio.sleep(idle_s + (length % 7 - 3) * 0.1)
        assert world.most_alive == 1


def test_idling_never_meets_a_call() -> None:
    backend, options = BACKEND
    anyio.run(under_calls_only, backend=backend, backend_options=options)
