"""The whole fleet: its end, its cost, and any order of events."""

from __future__ import annotations

import logging
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from open_mcp_gateway.auth.principal import PLATFORM
from open_mcp_gateway.catalog.model import CatalogEntry
from open_mcp_gateway.errors import (
    Draining,
    GatewayError,
    NotFound,
    UpstreamBroken,
    UpstreamUnavailable,
)
from open_mcp_gateway.names import ServerId
from open_mcp_gateway.supervisor.fleet import Fleet
from open_mcp_gateway.supervisor.settings import FleetSettings
from open_mcp_gateway.supervisor.states import ServerState, ServerStatus
from tests.unit.supervisor.memory import MemoryPeer, Town, World, spec, town
from tests.unit.supervisor.virtual_time import LoopClock

pytestmark = pytest.mark.anyio

SPECS = [spec(f"s{number}") for number in range(8)]


async def all_running(place: Town) -> None:
    async with anyio.create_task_group() as tasks:
        for one in SPECS:
            tasks.start_soon(place.use, one.id)


async def test_closing_stops_all_at_the_same_time() -> None:
    async with town(SPECS) as place:
        await all_running(place)
        place.world.stop_s = 5
        began_s = anyio.current_time()
        await place.fleet.aclose()
        assert anyio.current_time() - began_s == 5
        assert all(peer.gone.is_set() for peer in place.world.opened)
        await place.fleet.aclose()


async def test_cancelling_stops_all_in_the_same_orderly_way() -> None:
    class Unshielded(MemoryPeer):
        async def aclose(self) -> None:
            await anyio.sleep(self.world.stop_s)
            await super().aclose()

    class UnshieldedWorld(World):
        def make(self, world: World, entry: CatalogEntry, pid: int) -> MemoryPeer:
            return Unshielded(world, entry, pid)

    world = UnshieldedWorld()
    place = Town(Fleet(FleetSettings(), world, LoopClock()), world)
    place.load(*SPECS)
    async with anyio.create_task_group() as tasks:
        await tasks.start(partial(place.fleet.run))
        await all_running(place)
        world.stop_s = 5
        began_s = anyio.current_time()
        tasks.cancel_scope.cancel()
    assert anyio.current_time() - began_s == 10
    assert all(peer.gone.is_set() for peer in world.opened)
    assert place.state("s0") is ServerState.STOPPED


async def test_closing_is_bounded_when_a_server_is_not(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(MemoryPeer):
        async def aclose(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                self.gone.set()

    class StubbornWorld(World):
        def make(self, world: World, entry: CatalogEntry, pid: int) -> MemoryPeer:
            return Stubborn(world, entry, pid)

    async with town(world=StubbornWorld(), settings=FleetSettings(stop_timeout_s=15)) as place:
        await place.use()
        began_s = anyio.current_time()
        await place.fleet.aclose()
        assert anyio.current_time() - began_s == 15
    assert "server did not stop in time" in caplog.messages


async def test_nothing_starts_in_a_fleet_that_closes() -> None:
    async with town(SPECS) as place, anyio.create_task_group() as tasks:
        errors: list[GatewayError | None] = []

        async def one() -> None:
            errors.append(await place.use("s0"))

        tasks.start_soon(one)
        await anyio.sleep(0.5)
        tasks.start_soon(place.fleet.aclose)
        await checkpoint()
        for act in (place.fleet.ready, place.fleet.start, place.fleet.stop, place.fleet.restart):
            with pytest.raises(Draining):
                await act(place.permit("s1"))
        await anyio.sleep(1)
        assert [type(error) for error in errors] == [Draining]
        assert place.world.opened == []


async def test_calls_in_flight_when_it_closes_hear_of_it() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        place.world.latency_s = None
        errors: list[GatewayError | None] = []

        async def one() -> None:
            errors.append(await place.use())

        tasks.start_soon(one)
        await anyio.sleep(2)
        await place.fleet.aclose()
        assert [type(error) for error in errors] == [UpstreamBroken]


async def test_a_fleet_that_never_ran_can_be_closed() -> None:
    fleet = Fleet(FleetSettings(), World(), LoopClock())
    await fleet.aclose()


async def test_servers_that_nobody_wants_have_no_task() -> None:
    async with town([spec(f"s{number}") for number in range(500)]) as place:
        tasks = anyio.get_running_tasks()
        await anyio.sleep(1000)
        assert len(anyio.get_running_tasks()) == len(tasks)
        await place.use("s7")
        assert len(anyio.get_running_tasks()) == len(tasks) + 1
        await place.fleet.stop(place.permit("s7"))
        await checkpoint()
        assert len(anyio.get_running_tasks()) == len(tasks)


async def test_an_unknown_server_is_stopped_and_not_found() -> None:
    async with town() as place:
        permit = place.permit()
        place.load(spec("b"))
        assert place.fleet.status(ServerId("x"), PLATFORM) == ServerStatus(
            state=ServerState.STOPPED
        )
        with pytest.raises(NotFound, match="Server 'a' not found"):
            await place.fleet.ready(permit)


async def test_one_server_s_defect_is_not_the_others_end(caplog: pytest.LogCaptureFixture) -> None:
    class Defective(MemoryPeer):
        async def probe(self) -> None:
            raise KeyError("defect")

        async def aclose(self) -> None:
            await super().aclose()
            raise KeyError("another defect")

    class DefectiveWorld(World):
        def make(self, world: World, entry: CatalogEntry, pid: int) -> MemoryPeer:
            kind = MemoryPeer if self.opened else Defective
            return kind(world, entry, pid)

    async with town([spec("a"), spec("b")], world=DefectiveWorld()) as place:
        await place.use("a")
        await place.use("b")
        await anyio.sleep(40)
        assert caplog.messages.count("supervision failed") == 2
        assert place.state("a") is ServerState.RUNNING
        assert place.world.opened[0].gone.is_set()
        assert await place.use("b") is None


async def test_a_line_of_the_log_names_the_server_and_its_scope(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with town() as place:
        place.world.fail = UpstreamUnavailable("no")
        await place.use()
    facts = [record.__dict__ for record in caplog.records]
    assert [(one["server"], one["state"], one["reason"]) for one in facts] == [
        ("a", "starting", "wanted"),
        ("a", "stopped", "no"),
    ]
