"""Who shares an instance, room for more, stop, restart and reload of one server."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from open_mcp_gateway.auth.principal import PLATFORM
from open_mcp_gateway.catalog.model import Isolation, LocalProcess
from open_mcp_gateway.errors import (
    Busy,
    GatewayError,
    NotFound,
    UpstreamBroken,
    UpstreamUnavailable,
)
from open_mcp_gateway.names import TenantId
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner
from open_mcp_gateway.supervisor.settings import FleetSettings
from open_mcp_gateway.supervisor.states import ServerState
from tests.unit.supervisor.memory import Town, World, owned, spec, town

pytestmark = pytest.mark.anyio

RUNNING, STOPPED = ServerState.RUNNING, ServerState.STOPPED
APART = spec(isolation=Isolation.KEY)
NEWER = LocalProcess(command="newer")


class Caller:
    """A request that goes on in the background until its server answers."""

    def __init__(
        self, place: Town, server_id: str = "a", key: str = "k1", manner: Manner = ANY_MANNER
    ) -> None:
        self.place, self.server_id, self.key, self.manner = place, server_id, key, manner
        self.errors: list[GatewayError | None] = []
        self.over = anyio.Event()

    async def run(self) -> None:
        error = await self.place.use(self.server_id, self.key, 5000, self.manner)
        self.errors.append(error)
        self.over.set()


# Isolation and room


async def test_keys_apart_have_their_own_instances() -> None:
    async with town([APART]) as place:
        one = await place.fleet.ready(place.permit(key="k1"))
        two = await place.fleet.ready(place.permit(key="k2"))
        assert one is not two
        assert one.peer is not two.peer
        assert place.fleet.lease(place.permit(key="k1")) is one
        assert place.fleet.lease(place.permit(key="k3")) is None
        assert place.status().connection_count == 2


async def test_the_default_isolation_is_the_settings() -> None:
    settings = FleetSettings(default_isolation=Isolation.TENANT)
    async with town(settings=settings) as place:
        await place.use(key="k1")
        assert place.fleet.lease(place.permit(key="k2")) is not None
        assert place.fleet.lease(place.permit(key="k1", holder=TenantId("t"))) is None


async def test_a_full_server_parts_with_the_one_used_longest_ago() -> None:
    async with town(settings=FleetSettings(max_connections_per_server=2)) as place:
        await place.use(manner=owned("s1"))
        await place.use(manner=owned("s2"))
        await place.use(manner=owned("s1"))
        assert await place.use(manner=owned("s3")) is None
        assert [peer.gone.is_set() for peer in place.world.opened] == [False, True, False]
        assert place.world.most_alive == 2
        assert place.fleet.lease(place.permit(), owned("s1")) is not None


async def test_a_full_server_in_use_is_busy() -> None:
    async with town(settings=FleetSettings(max_connections_per_server=2)) as place:
        (await place.fleet.ready(place.permit())).began(PLATFORM)
        (await place.fleet.ready(place.permit(), owned("s1"))).began(PLATFORM)
        error = await place.use(manner=owned("s2"))
        assert isinstance(error, Busy)
        assert error.retry_after_s == 1
        assert place.world.most_alive == 2


async def test_callers_racing_for_room_never_exceed_it() -> None:
    async with town(settings=FleetSettings(max_connections_per_server=3)) as place:
        callers = [Caller(place, manner=owned(f"s{number}")) for number in range(12)]
        async with anyio.create_task_group() as tasks:
            for caller in callers:
                tasks.start_soon(caller.run)
        outcomes = [caller.errors for caller in callers]
        assert outcomes.count([None]) == 3
        assert sum(isinstance(one[0], Busy) for one in outcomes) == 9
        assert place.world.most_alive == 3


async def test_the_room_is_that_of_an_isolation_scope() -> None:
    async with town([APART], FleetSettings(max_connections_per_server=1)) as place:
        for key in ("k1", "k2"):
            (await place.fleet.ready(place.permit(key=key))).began(PLATFORM)
        assert isinstance(await place.use(key="k2", manner=owned("s1")), Busy)
        assert place.status().connection_count == 2


async def test_who_was_promised_the_place_of_one_that_is_gone_gets_it() -> None:
    async with town(settings=FleetSettings(max_connections_per_server=1)) as place:
        await place.use(manner=owned("s1"))
        callers = [Caller(place, manner=owned(session)) for session in ("s2", "s3")]

        async def come_first() -> None:
            # Hears that the first one is gone before the second one does.
            await place.fleet.stop(place.permit())
            assert place.world.attempts == [1000]
            await callers[1].run()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(come_first)
            await checkpoint()
            tasks.start_soon(callers[0].run)
        assert callers[0].errors == [None]
        assert isinstance(callers[1].errors[0], Busy)
        assert place.world.most_alive == 1


async def test_the_place_of_one_that_stops_is_promised_once() -> None:
    async with town(settings=FleetSettings(max_connections_per_server=1)) as place:
        await place.use(manner=owned("s1"))
        callers = [Caller(place, manner=owned(session)) for session in ("s2", "s3")]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place.fleet.stop, place.permit())
            for caller in callers:
                tasks.start_soon(caller.run)
        assert callers[0].errors == [None]
        assert isinstance(callers[1].errors[0], Busy)
        assert place.world.most_alive == 1


async def test_a_caller_that_does_not_share_need_not_wait_for_the_old_one() -> None:
    async with town([APART]) as place:
        await place.use()
        place.world.stop_s = 14
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place.fleet.stop, place.permit())
            await checkpoint()
            began_s = anyio.current_time()
            assert await place.use() is None
            assert anyio.current_time() - began_s < 2


# Stop


async def test_stop_is_at_once_and_tells_the_callers() -> None:
    async with town([APART]) as place, anyio.create_task_group() as tasks:
        place.world.latency_s = None
        callers = [Caller(place, key=key) for key in ("k1", "k2")]
        for caller in callers:
            tasks.start_soon(caller.run)
        await anyio.sleep(2)
        assert await place.fleet.stop(place.permit()) is True
        assert place.state() is STOPPED
        assert all(isinstance(caller.errors[0], UpstreamBroken) for caller in callers)
        assert await place.fleet.stop(place.permit()) is False
        await anyio.sleep(1000)
        assert len(place.world.opened) == 2


async def test_stop_of_a_start_tells_who_waits_for_it() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        caller = Caller(place)
        tasks.start_soon(caller.run)
        await anyio.sleep(0.5)
        assert await place.fleet.stop(place.permit()) is True
        await caller.over.wait()
        assert isinstance(caller.errors[0], UpstreamUnavailable)
        assert "stopped on request" in str(caller.errors[0])
        assert place.world.opening == []
        assert await place.use() is None


async def test_stop_ends_a_series_of_restarts() -> None:
    async with town() as place:
        await place.use()
        place.world.fail = UpstreamUnavailable("no")
        place.world.last.crash()
        await anyio.sleep(4)
        assert await place.fleet.stop(place.permit()) is True
        attempts = len(place.world.attempts)
        await anyio.sleep(1000)
        assert len(place.world.attempts) == attempts
        assert place.state() is STOPPED


async def test_stop_goes_on_without_the_one_who_asked() -> None:
    async with town() as place:
        await place.use()
        with anyio.move_on_after(0.1):
            await place.fleet.stop(place.permit())
        assert place.state() is ServerState.SHUTTING_DOWN
        await anyio.sleep(0.5)
        assert place.state() is STOPPED


# Restart


async def test_restart_has_the_new_one_ready_before_the_old_one_goes() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        place.world.latency_s = None
        caller = Caller(place)
        tasks.start_soon(caller.run)
        await anyio.sleep(2)
        old = place.world.last
        tasks.start_soon(place.fleet.restart, place.permit())
        await anyio.sleep(0.5)
        lease = place.fleet.lease(place.permit())
        assert lease is not None
        assert lease.peer is old
        await anyio.sleep(1)
        lease = place.fleet.lease(place.permit())
        assert lease is not None
        assert lease.peer is place.world.last is not old
        assert not old.over.is_set()
        old.answer_all()
        await caller.over.wait()
        assert caller.errors == [None]
        await anyio.sleep(1)
        assert old.gone.is_set()
        assert place.state() is RUNNING


async def test_a_replaced_one_cannot_keep_its_calls_for_ever() -> None:
    settings = FleetSettings(drain_timeout_s=50)
    async with town(settings=settings) as place, anyio.create_task_group() as tasks:
        place.world.latency_s = None
        caller = Caller(place)
        tasks.start_soon(caller.run)
        await anyio.sleep(2)
        await place.fleet.restart(place.permit())
        await anyio.sleep(49)
        assert caller.errors == []
        await anyio.sleep(2)
        assert isinstance(caller.errors[0], UpstreamBroken)


async def test_a_restart_that_fails_leaves_the_old_one() -> None:
    async with town() as place:
        await place.use()
        old = place.fleet.lease(place.permit())
        place.world.fail = UpstreamUnavailable("no such program")
        with pytest.raises(UpstreamUnavailable, match="no such program"):
            await place.fleet.restart(place.permit())
        assert place.fleet.lease(place.permit()) is old
        assert place.state() is RUNNING
        assert await place.use() is None


async def test_two_restarts_at_once_are_one() -> None:
    async with town() as place:
        await place.use()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place.fleet.restart, place.permit())
            tasks.start_soon(place.fleet.restart, place.permit())
        assert len(place.world.opened) == 2


async def test_restart_of_a_stopped_server_starts_it() -> None:
    async with town() as place:
        await place.fleet.restart(place.permit())
        assert place.state() is RUNNING


async def test_restart_during_a_start_on_an_old_definition_starts_again() -> None:
    async with town() as place:
        async with anyio.create_task_group() as tasks:
            caller = Caller(place)
            tasks.start_soon(caller.run)
            await anyio.sleep(0.5)
            place.load(spec(runtime=NEWER))
            await place.fleet.restart(place.permit())
        assert caller.errors == [None]
        assert place.world.last.entry.spec.runtime == NEWER
        assert place.world.most_opening == 1


async def test_the_replacement_takes_over_from_one_that_crashes_meanwhile() -> None:
    async with town() as place:
        await place.use()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place.fleet.restart, place.permit())
            await anyio.sleep(0.5)
            place.world.last.crash()
            assert await place.use() is None
        assert len(place.world.opened) == 2
        await anyio.sleep(5)
        assert place.world.most_opening == 1


async def test_a_replacement_that_became_the_only_one_is_tried_again() -> None:
    async with town() as place:
        await place.use()
        place.world.fail = UpstreamUnavailable("no")
        async with anyio.create_task_group() as tasks:

            async def restart() -> None:
                with pytest.raises(UpstreamUnavailable, match="no"):
                    await place.fleet.restart(place.permit())

            tasks.start_soon(restart)
            await anyio.sleep(0.5)
            place.world.last.crash()
        place.world.fail = None
        await anyio.sleep(5)
        assert place.state() is RUNNING


async def test_restart_of_a_mute_server_with_calls() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        place.world.latency_s = None
        caller = Caller(place)
        tasks.start_soon(caller.run)
        await anyio.sleep(2)
        old = place.world.last
        old.mute = True
        await anyio.sleep(150)
        assert place.state() is ServerState.UNHEALTHY
        await place.fleet.restart(place.permit())
        assert place.state() is RUNNING
        old.answer_all()
        await caller.over.wait()
        assert caller.errors == [None]
        await anyio.sleep(1)
        assert old.gone.is_set()
        assert len(place.world.opened) == 2


# Reload


async def test_an_unchanged_server_is_not_touched() -> None:
    async with town([spec("a"), spec("b")]) as place:
        await place.use("a")
        lease = place.fleet.lease(place.permit("a"))
        place.load(spec("a"), spec("b", runtime=NEWER), spec("c"))
        assert place.fleet.lease(place.permit("a")) is lease
        assert await place.use("c") is None


async def test_a_modified_server_runs_on_until_it_stops() -> None:
    async with town() as place:
        await place.use()
        place.load(spec(runtime=NEWER))
        assert await place.use() is None
        assert len(place.world.opened) == 1
        await place.fleet.restart(place.permit())
        assert place.world.last.entry.spec.runtime == NEWER


async def test_times_of_a_modified_server_hold_at_once() -> None:
    async with town() as place:
        await place.use()
        place.load(spec(idle_timeout_seconds=5))
        await anyio.sleep(6)
        assert place.state() is STOPPED


async def test_new_settings_hold_at_once() -> None:
    async with town() as place:
        await place.use()
        place.fleet.reconfigure(FleetSettings(idle_timeout_s=5))
        await anyio.sleep(6)
        assert place.state() is STOPPED


async def test_a_mended_definition_is_tried_without_waiting() -> None:
    async with town() as place:
        place.world.fail = UpstreamUnavailable("no")
        for _ in range(4):
            await place.use()
        place.world.fail = None
        assert isinstance(await place.use(), UpstreamUnavailable)
        place.load(spec(runtime=NEWER))
        assert await place.use() is None


async def test_a_mended_definition_ends_the_wait_for_a_restart() -> None:
    world = World()
    world.start_s = world.stop_s = 0.0
    world.crash_at_once = True
    async with town(world=world) as place:
        await place.fleet.start(place.permit())
        await anyio.sleep(4)  # the next restart is due at 7.5
        world.crash_at_once = False
        place.load(spec(runtime=NEWER))
        await anyio.sleep(0.1)
        assert place.state() is RUNNING
        assert world.last.entry.spec.runtime == NEWER


async def test_a_removed_server_finishes_what_it_has() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        place.world.latency_s = None
        caller = Caller(place)
        tasks.start_soon(caller.run)
        await anyio.sleep(2)
        permit = place.permit()
        place.load(spec("b"))
        await anyio.sleep(100)
        assert not place.world.last.over.is_set()
        place.world.last.answer_all()
        await caller.over.wait()
        assert caller.errors == [None]
        await anyio.sleep(0.1)
        assert place.world.last.over.is_set()
        assert place.fleet.lease(permit) is None
        with pytest.raises(NotFound):
            await place.fleet.ready(permit)
        with pytest.raises(NotFound):
            await place.fleet.start(permit)
        await anyio.sleep(1)
        place.load(spec("b"), spec("c"))
        assert place.status("a").request_count == 0


async def test_a_removed_server_serves_who_waited_for_its_start() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        caller = Caller(place)
        tasks.start_soon(caller.run)
        await anyio.sleep(0.5)
        place.load(spec("b"))
        await caller.over.wait()
        assert caller.errors == [None]
        await anyio.sleep(1)
        assert place.world.last.gone.is_set()


async def test_a_removed_server_that_is_mute_for_a_while_stops_after_its_calls() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        place.world.latency_s = None
        caller = Caller(place)
        tasks.start_soon(caller.run)
        await anyio.sleep(2)
        place.load(spec("b"))
        place.world.last.mute = True
        await anyio.sleep(150)
        place.world.last.mute = False
        await anyio.sleep(50)
        place.world.last.answer_all()
        await caller.over.wait()
        assert caller.errors == [None]
        await anyio.sleep(1)
        assert place.world.last.gone.is_set()
        assert len(place.world.attempts) == 1


async def test_a_removed_server_is_not_restarted() -> None:
    async with town() as place:
        (await place.fleet.ready(place.permit())).began(PLATFORM)
        place.load(spec("b"))
        place.world.last.crash()
        await anyio.sleep(100)
        assert len(place.world.attempts) == 1


async def test_a_removed_server_that_comes_back_has_never_been_away() -> None:
    async with town() as place:
        lease = await place.fleet.ready(place.permit())
        lease.began(PLATFORM)
        place.load(spec("b"))
        await anyio.sleep(10)
        place.load(spec("a"))
        lease.ended(PLATFORM, failed=False)
        await anyio.sleep(10)
        assert place.fleet.lease(place.permit()) is lease


async def test_isolation_changes_at_once() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        place.world.latency_s = None
        caller = Caller(place)
        tasks.start_soon(caller.run)
        await anyio.sleep(2)
        shared, stale = place.world.last, place.permit()
        place.load(APART)
        assert place.fleet.lease(stale) is None
        lease = await place.fleet.ready(stale)
        assert lease.peer is not shared
        assert not shared.over.is_set()
        shared.answer_all()
        await caller.over.wait()
        assert caller.errors == [None]
        await anyio.sleep(1)
        assert shared.gone.is_set()


async def test_isolation_that_changes_during_a_start_loses_no_request() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        caller = Caller(place)
        tasks.start_soon(caller.run)
        await anyio.sleep(0.5)
        place.load(APART)
        await caller.over.wait()
        assert caller.errors == [None]
        assert len(place.world.opened) == 1


async def test_secrets_stay_out_of_the_last_error() -> None:
    async with town() as place:
        place.load(spec(), secrets=("test-secret-1",))
        place.world.fail = UpstreamUnavailable("bad password test-secret-1")
        error = await place.use()
        assert str(error) == "bad password ***"
        assert place.status().last_error == "bad password ***"
