"""Starts, crashes, restarts and health of one server."""

from __future__ import annotations

import logging

import anyio
import pytest
from anyio.lowlevel import checkpoint

from open_mcp_gateway.auth.principal import PLATFORM
from open_mcp_gateway.catalog.model import CatalogEntry, Isolation
from open_mcp_gateway.errors import (
    GatewayError,
    UpstreamBroken,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner, Peer
from open_mcp_gateway.supervisor.settings import FleetSettings
from open_mcp_gateway.supervisor.states import ServerState
from tests.unit.supervisor.memory import MemoryPeer, World, owned, spec, town

pytestmark = pytest.mark.anyio

RUNNING, STOPPED = ServerState.RUNNING, ServerState.STOPPED
STARTING, UNHEALTHY = ServerState.STARTING, ServerState.UNHEALTHY


async def test_first_request_starts_it_and_the_next_finds_it() -> None:
    async with town() as place:
        permit = place.permit()
        assert place.fleet.lease(permit) is None
        assert place.state() is STOPPED
        lease = await place.fleet.ready(permit)
        assert place.fleet.lease(permit) is lease
        assert place.state() is RUNNING
        assert await place.use() is None
        assert len(place.world.opened) == 1


async def test_many_callers_wait_for_one_start() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        results: list[GatewayError | None] = []

        async def one() -> None:
            results.append(await place.use())

        for _ in range(100):
            tasks.start_soon(one)
        await anyio.sleep(0.5)
        assert place.state() is STARTING
        await anyio.sleep(1)
        assert results == [None] * 100
        assert len(place.world.opened) == 1
        assert place.status().request_count == 100


async def test_a_start_outlives_the_caller_that_wanted_it() -> None:
    async with town() as place:
        with anyio.move_on_after(0.5) as gone:
            await place.use()
        assert gone.cancelled_caught
        await anyio.sleep(0.6)
        assert place.state() is RUNNING


async def test_a_failed_start_tells_each_waiting_caller_why() -> None:
    async with town() as place:
        place.world.fail = UpstreamUnavailable("could not start: exit code 3")
        errors: list[GatewayError | None] = []

        async def one() -> None:
            errors.append(await place.use())

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(one)
        assert {str(error) for error in errors} == {"could not start: exit code 3"}
        assert {type(error) for error in errors} == {UpstreamUnavailable}
        assert len({id(error) for error in errors}) == 3  # each carries its own request id
        assert len(place.world.attempts) == 1
        assert place.state() is STOPPED
        assert place.status().last_error == "could not start: exit code 3"


async def test_after_a_failed_start_requests_fail_at_once_until_the_backoff_is_over() -> None:
    async with town() as place:
        place.world.fail = UpstreamUnavailable("no")
        await place.use()
        await place.use()  # the second attempt may come at once
        began_s = anyio.current_time()
        error = await place.use()
        assert isinstance(error, UpstreamUnavailable)
        assert (str(error), error.retry_after_s) == ("no", 1)
        assert anyio.current_time() == began_s
        assert len(place.world.attempts) == 2
        await anyio.sleep(0.5)
        place.world.fail = None
        assert await place.use() is None


async def test_nobody_retries_a_failed_start_by_itself() -> None:
    async with town() as place:
        place.world.fail = UpstreamUnavailable("no")
        await place.use()
        await anyio.sleep(1000)
        assert len(place.world.attempts) == 1


async def test_an_explicit_start_ignores_the_backoff() -> None:
    async with town() as place:
        place.world.fail = UpstreamUnavailable("no")
        for _ in range(3):
            with pytest.raises(UpstreamUnavailable, match="no"):
                await place.fleet.start(place.permit())
        assert len(place.world.attempts) == 3
        place.world.fail = None
        assert await place.fleet.start(place.permit()) is True
        assert await place.fleet.start(place.permit()) is False


@pytest.mark.parametrize(("own", "limit_s"), [(None, 60), (5, 5)])
async def test_a_start_is_bounded(own: int | None, limit_s: int) -> None:
    async with town([spec(start_timeout_seconds=own)]) as place:
        place.world.start_s = 1000
        began_s = anyio.current_time()
        error = await place.use()
        assert f"did not finish its handshake within {limit_s} s" in str(error)
        assert anyio.current_time() - began_s == limit_s
        assert place.world.opening == []


async def test_a_defect_while_opening_is_one_server_s_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with town([spec("a"), spec("b")]) as place:
        place.world.fail = ValueError("test-key-secret")
        error = await place.use("a")
        assert isinstance(error, UpstreamUnavailable)
        assert "test-key-secret" not in str(error)
        assert any(record.exc_info for record in caplog.records)
        place.world.fail = None
        assert await place.use("b") is None


async def test_a_crash_fails_the_calls_in_flight_and_restarts_at_once() -> None:
    async with town(world=World()) as place, anyio.create_task_group() as tasks:
        place.world.latency_s = None
        errors: list[GatewayError | None] = []

        async def one() -> None:
            errors.append(await place.use())

        tasks.start_soon(one)
        await anyio.sleep(2)
        place.world.last.crash("exit code 9")
        assert place.state() is UNHEALTHY
        assert place.fleet.lease(place.permit()) is None
        await checkpoint()
        await checkpoint()
        assert isinstance(errors[0], UpstreamBroken)
        await anyio.sleep(2)
        assert place.state() is RUNNING
        assert len(place.world.opened) == 2
        assert place.status().last_error == "exit code 9"
        assert place.status().error_count == 1


async def test_one_session_s_own_is_restarted_only_while_the_session_holds_it() -> None:
    async with town() as place:
        opened: list[str] = []
        place.fleet.on_opened = opened.append
        manner = owned("s")
        lease = await place.fleet.ready(place.permit(), manner)
        assert opened == ["a"]
        place.world.last.crash()
        await anyio.sleep(60)
        assert len(place.world.opened) == 1
        lease = await place.fleet.ready(place.permit(), manner)
        lease.began(PLATFORM)
        place.world.last.crash()
        await anyio.sleep(60)
        assert len(place.world.opened) == 3
        assert opened == ["a"] * 3
        assert place.fleet.lease(place.permit(), manner) is not None
        place.fleet.release(place.permit(), manner)
        lease.ended(PLATFORM, failed=False)
        await anyio.sleep(60)
        assert place.fleet.lease(place.permit(), manner) is None


async def test_a_request_during_a_restart_that_is_due_waits_for_it() -> None:
    async with town() as place:
        await place.use()
        place.world.last.crash()
        assert await place.use() is None
        assert len(place.world.opened) == 2


async def test_a_crash_loop_backs_off_and_then_stays_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    world.start_s = world.stop_s = 0.0
    world.crash_at_once = True
    async with town(world=world) as place:
        await place.fleet.start(place.permit())
        await anyio.sleep(1000)
        gaps = [b - a for a, b in zip(world.attempts, world.attempts[1:], strict=False)]
        assert [round(gap, 3) for gap in gaps] == [0, 0.5, 1, 2, 4]
        assert place.state() is UNHEALTHY
        assert "failed 6 times in a row" in str(place.status().last_error)
        assert [one.message for one in caplog.records if one.levelno == logging.ERROR] == [
            "server keeps failing; no more automatic restarts"
        ]
        world.crash_at_once = False
        assert await place.use() is None
        assert place.state() is RUNNING


async def test_a_request_in_a_crash_loop_is_told_when_to_come_back() -> None:
    world = World()
    world.start_s = world.stop_s = 0.0
    world.crash_at_once = True
    async with town(world=world) as place:
        await place.fleet.start(place.permit())
        await anyio.sleep(1.7)  # after the restarts at 0, 0.5 and 1.5; the next is due at 3.5
        began_s = anyio.current_time()
        error = await place.use()
        assert isinstance(error, UpstreamUnavailable)
        assert (str(error), error.retry_after_s) == ("exit code 1", 2)
        assert anyio.current_time() == began_s
        world.crash_at_once = False
        assert await place.fleet.start(place.permit()) is True
        assert anyio.current_time() == began_s


async def test_a_failed_restart_is_tried_again_but_a_good_run_forgives() -> None:
    async with town() as place:
        world = place.world
        await place.use()
        world.fail = UpstreamUnavailable("no")
        world.last.crash()
        await anyio.sleep(3.5)
        assert len(world.attempts) == 3
        assert place.state() is UNHEALTHY
        world.fail = None
        await anyio.sleep(30)
        assert place.state() is RUNNING
        await anyio.sleep(11)
        attempts = len(world.attempts)
        at_s = anyio.current_time()
        world.last.crash()
        await anyio.sleep(2)
        assert world.attempts[attempts] - at_s == world.stop_s  # at once, but not before it is gone
        assert place.state() is RUNNING


async def test_giving_up_is_over_with_the_next_good_start() -> None:
    world = World()
    world.start_s = world.stop_s = 0.0
    world.crash_at_once = True
    async with town([spec(idle_timeout_seconds=2)], world=world) as place:
        await place.fleet.start(place.permit())
        await anyio.sleep(100)
        assert place.state() is UNHEALTHY
        world.crash_at_once = False
        assert await place.use() is None
        await anyio.sleep(3)
        assert place.state() is STOPPED


async def test_a_good_run_with_a_good_end_forgives_too() -> None:
    async with town([spec(idle_timeout_seconds=20)]) as place:
        await place.use()
        for _ in range(3):
            place.world.last.crash()
            await anyio.sleep(4)
        await anyio.sleep(30)
        assert place.state() is STOPPED
        place.world.fail = UpstreamUnavailable("no")
        await place.use()
        attempts = len(place.world.attempts)
        await place.use()
        assert len(place.world.attempts) == attempts + 1


async def test_a_restart_waits_until_the_crashed_one_is_cleared_away() -> None:
    async with town([spec(isolation=Isolation.KEY)]) as place:
        place.world.stop_s = 4
        await place.use()
        place.world.last.crash()
        await anyio.sleep(10)
        assert len(place.world.opened) == 2
        assert place.world.most_alive == 1


async def test_a_start_that_succeeds_after_it_was_given_up_is_closed() -> None:
    class Deaf(World):
        async def __call__(self, entry: CatalogEntry, manner: Manner = ANY_MANNER) -> Peer:
            with anyio.CancelScope(shield=True):
                await super().__call__(entry, manner)
            return self.last

    async with town(world=Deaf()) as place, anyio.create_task_group() as tasks:
        tasks.start_soon(place.use)
        await anyio.sleep(0.5)
        assert await place.fleet.stop(place.permit()) is True
        assert place.world.last.gone.is_set()
        assert place.fleet.lease(place.permit()) is None
        assert place.state() is STOPPED


async def test_idle_stop_and_fresh_start() -> None:
    async with town() as place:
        await place.use()
        await anyio.sleep(299)
        assert place.state() is RUNNING
        assert await place.use() is None
        await anyio.sleep(299)
        assert place.state() is RUNNING  # the health checks meanwhile did not count, the call did
        await anyio.sleep(2)
        assert place.state() is STOPPED
        assert place.world.opened[0].probes > 10
        assert place.status().uptime_seconds is None
        assert await place.use() is None
        assert len(place.world.opened) == 2


@pytest.mark.parametrize(("own", "general"), [(0, 300), (None, 0)])
async def test_zero_never_idles_out(own: int | None, general: float) -> None:
    settings = FleetSettings(idle_timeout_s=general)
    async with town([spec(idle_timeout_seconds=own)], settings) as place:
        await place.use()
        await anyio.sleep(50_000)
        assert place.state() is RUNNING


async def test_never_idles_out_under_a_call() -> None:
    async with town([spec(idle_timeout_seconds=5)]) as place, anyio.create_task_group() as tasks:
        place.world.latency_s = None
        errors: list[GatewayError | None] = []

        async def one() -> None:
            errors.append(await place.use(deadline_s=500))

        tasks.start_soon(one)
        await anyio.sleep(400)
        place.world.last.answer_all()
        await checkpoint()
        assert errors == [None]
        await anyio.sleep(4)
        assert place.state() is RUNNING
        await anyio.sleep(2)
        assert place.state() is STOPPED


async def test_a_lease_in_use_holds_it_without_a_call() -> None:
    async with town([spec(idle_timeout_seconds=5)]) as place:
        lease = await place.fleet.ready(place.permit())
        lease.began(PLATFORM)
        await anyio.sleep(100)
        assert place.state() is RUNNING
        lease.ended(PLATFORM, failed=False)
        await anyio.sleep(5.1)
        assert place.state() is ServerState.SHUTTING_DOWN


async def test_a_request_that_meets_the_idle_stop_is_not_lost() -> None:
    async with town([spec(idle_timeout_seconds=5)]) as place:
        await place.use()
        await anyio.sleep(5.1)
        assert place.state() is ServerState.SHUTTING_DOWN
        assert place.fleet.lease(place.permit()) is None
        assert await place.use() is None
        assert place.world.most_alive == 1  # the old one was gone before


async def test_three_missed_checks_replace_an_idle_server() -> None:
    async with town([spec(idle_timeout_seconds=0)]) as place:
        await place.use()
        first = place.world.last
        first.mute = True
        await anyio.sleep(30 + 10 + 30 + 10 + 30 + 9)
        assert place.state() is RUNNING
        await anyio.sleep(1.1)
        assert first.over.is_set()
        await anyio.sleep(2)
        assert place.state() is RUNNING
        assert place.world.last is not first
        assert "did not answer 3 health checks" in str(place.status().last_error)


async def test_a_mute_server_keeps_its_calls_but_gets_no_new_ones() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        place.world.latency_s = None
        errors: list[GatewayError | None] = []

        async def one() -> None:
            errors.append(await place.use(deadline_s=500))

        tasks.start_soon(one)
        await anyio.sleep(2)
        first = place.world.last
        first.mute = True
        await anyio.sleep(150)
        assert place.state() is UNHEALTHY
        error = await place.use()
        assert isinstance(error, UpstreamUnavailable)
        assert error.retry_after_s == 1
        await anyio.sleep(200)
        assert errors == []
        assert not first.over.is_set()
        await anyio.sleep(200)
        assert isinstance(errors[0], UpstreamTimeout)
        assert first.gone.is_set()
        assert place.state() is RUNNING
        assert place.world.last is not first


async def test_a_mute_server_that_answers_again_is_back_with_its_calls() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        place.world.latency_s = None
        errors: list[GatewayError | None] = []

        async def one() -> None:
            errors.append(await place.use(deadline_s=500))

        tasks.start_soon(one)
        await anyio.sleep(2)
        place.world.last.mute = True
        await anyio.sleep(150)
        assert place.state() is UNHEALTHY
        place.world.last.mute = False
        await anyio.sleep(41)
        assert place.state() is RUNNING
        place.world.last.latency_s = 0.01
        assert await place.use() is None
        place.world.last.answer_all()
        await checkpoint()
        assert errors == [None]
        await anyio.sleep(1)
        assert len(place.world.opened) == 1


async def test_an_explicit_start_of_a_mute_server_does_not_wait_for_its_calls() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        place.world.latency_s = None
        errors: list[GatewayError | None] = []

        async def one() -> None:
            errors.append(await place.use(deadline_s=500))

        tasks.start_soon(one)
        await anyio.sleep(2)
        place.world.last.mute = True
        await anyio.sleep(150)
        assert await place.fleet.start(place.permit()) is True
        assert isinstance(errors[0], UpstreamBroken)
        assert place.state() is RUNNING
        assert place.world.most_alive == 1


async def test_a_check_that_fails_is_as_bad_as_one_without_answer() -> None:
    class Broken(MemoryPeer):
        async def probe(self) -> None:
            raise UpstreamBroken("not JSON")

    class BrokenWorld(World):
        def make(self, world: World, entry: CatalogEntry, pid: int) -> MemoryPeer:
            return MemoryPeer(world, entry, pid) if self.opened else Broken(world, entry, pid)

    async with town([spec(idle_timeout_seconds=0)], world=BrokenWorld()) as place:
        await place.use()
        await anyio.sleep(89)
        assert place.state() is RUNNING
        assert len(place.world.opened) == 1
        await anyio.sleep(5)
        assert place.state() is RUNNING
        assert len(place.world.opened) == 2


async def test_a_server_that_answers_calls_is_not_unhealthy_for_missing_checks() -> None:
    async with town() as place:
        await place.use()
        place.world.last.mute = True
        for _ in range(100):
            await anyio.sleep(35)
            assert await place.use() is None
        assert len(place.world.opened) == 1


@pytest.mark.parametrize("own", [0, None])
async def test_interval_zero_checks_nothing(own: int | None) -> None:
    settings = FleetSettings(health_check_interval_s=30 if own == 0 else 0, idle_timeout_s=0)
    async with town([spec(health_check_interval_seconds=own)], settings) as place:
        await place.use()
        await anyio.sleep(10_000)
        assert place.world.last.probes == 0
        assert place.state() is RUNNING


async def test_state_changes_are_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with town([spec(idle_timeout_seconds=5)]) as place:
        await place.use()
        place.world.last.crash("exit code 9")
        await anyio.sleep(20)
    lines = [
        (one.__dict__["state"], one.__dict__["reason"])
        for one in caplog.records
        if one.message == "server state changed"
    ]
    assert lines == [
        ("starting", "wanted"),
        ("running", "ready"),
        ("unhealthy", "exit code 9"),
        ("starting", "restart after a failure"),
        ("running", "ready"),
        ("shutting_down", "not used for its idle timeout"),
        ("stopped", "not used for its idle timeout"),
    ]
    assert "illegal state change" not in caplog.messages
