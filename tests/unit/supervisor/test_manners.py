"""Who shares an instance by how it is opened, and what becomes of those of one session."""

from __future__ import annotations

import logging

import anyio
import pytest
from anyio.lowlevel import checkpoint

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import PLATFORM
from open_mcp_gateway.catalog.model import Isolation, LocalProcess
from open_mcp_gateway.errors import Busy, EraNotSpoken, GatewayError, UpstreamUnavailable
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner
from open_mcp_gateway.protocol.eras import LATEST_LEGACY, LATEST_MODERN, Era
from open_mcp_gateway.supervisor.settings import FleetSettings
from open_mcp_gateway.supervisor.states import ServerState
from tests.unit.supervisor.memory import MODERN, Town, World, legacy, owned, spec, town

pytestmark = pytest.mark.anyio

RUNNING, STOPPED = ServerState.RUNNING, ServerState.STOPPED
ONLY_LEGACY = (Era.LEGACY,)
ONLY_MODERN = (Era.MODERN,)
DUAL = (Era.MODERN, Era.LEGACY)
OLD = legacy("2024-11-05")
SESSION, OTHER = owned("session-1"), owned("session-2")
APART = spec(isolation=Isolation.KEY)


def speaking(*eras: Era) -> World:
    world = World()
    world.speaks = eras
    return world


async def together(place: Town, *manners: Manner) -> list[GatewayError | None]:
    """One request in each manner, at the same moment and in this order."""
    errors: list[GatewayError | None] = []

    async def one(manner: Manner) -> None:
        errors.append(await place.use(manner=manner))

    async with anyio.create_task_group() as tasks:
        for manner in manners:
            tasks.start_soon(one, manner)
    return errors


async def refusal(place: Town, manner: Manner) -> EraNotSpoken:
    error = await place.use(manner=manner)
    assert isinstance(error, EraNotSpoken)
    return error


# Who shares


@pytest.mark.parametrize(
    ("eras", "manners"),
    [
        (ONLY_LEGACY, (ANY_MANNER, legacy())),
        (ONLY_LEGACY, (legacy(), ANY_MANNER)),
        (ONLY_LEGACY, (OLD, ANY_MANNER)),
        (ONLY_LEGACY, (ANY_MANNER, Manner(era=Era.LEGACY), legacy())),
        (DUAL, (ANY_MANNER, MODERN)),
        (DUAL, (MODERN, ANY_MANNER)),
        (DUAL, (legacy(), ANY_MANNER)),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_manners_that_agree_share_one_process(
    eras: tuple[Era, ...], manners: tuple[Manner, ...], at_once: bool
) -> None:
    async with town(world=speaking(*eras)) as place:
        if at_once:
            assert await together(place, *manners) == [None] * len(manners)
        for manner in manners:
            assert await place.use(manner=manner) is None
        leases = {place.fleet.lease(place.permit(), manner) for manner in manners}
        assert len(leases) == 1
        assert None not in leases
        assert len(place.world.attempts) == 1


@pytest.mark.parametrize(
    ("eras", "manners"),
    [
        (DUAL, (ANY_MANNER, legacy())),
        (DUAL, (MODERN, legacy())),
        (ONLY_LEGACY, (ANY_MANNER, OLD)),
        (ONLY_LEGACY, (legacy("2025-06-18"), OLD)),
        (ONLY_LEGACY, (ANY_MANNER, SESSION, OTHER)),
        (ONLY_LEGACY, (SESSION, ANY_MANNER)),
        (ONLY_LEGACY, (legacy(), Manner(era=Era.LEGACY, capabilities=b'{"experimental":{}}'))),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_manners_that_do_not_agree_have_their_own(
    eras: tuple[Era, ...], manners: tuple[Manner, ...], at_once: bool
) -> None:
    async with town(world=speaking(*eras)) as place:
        if at_once:
            assert await together(place, *manners) == [None] * len(manners)
        for _ in range(2):
            for manner in manners:
                assert await place.use(manner=manner) is None
        peers = {}
        for manner in manners:
            lease = place.fleet.lease(place.permit(), manner)
            assert lease is not None
            peers[lease.peer] = manner
        assert len(peers) == len(place.world.opened) == len(manners)
        assert place.status().connection_count == len(manners)


async def test_a_server_with_a_version_of_its_own_is_not_asked_for_it_again() -> None:
    world = World()
    world.only_version = "2025-06-18"
    async with town(world=world) as place:
        for manner in (ANY_MANNER, legacy(LATEST_LEGACY), legacy("2025-06-18")):
            assert await place.use(manner=manner) is None
        assert len(world.opened) == 1
        assert await place.use(manner=OLD) is None
        assert len(world.opened) == 2


async def test_keys_apart_never_share_whatever_the_manner() -> None:
    async with town([APART]) as place:
        await place.use(key="k1")
        for manner in (ANY_MANNER, legacy(), SESSION):
            assert place.fleet.lease(place.permit(key="k2"), manner) is None
        assert place.fleet.lease(place.permit(key="k1"), legacy()) is not None


async def test_a_session_finds_its_own_again() -> None:
    async with town() as place:
        lease = await place.fleet.ready(place.permit(), SESSION)
        assert place.fleet.lease(place.permit(), owned("session-1")) is lease
        assert place.fleet.lease(place.permit(), OTHER) is None
        assert place.fleet.lease(place.permit()) is None
        assert place.fleet.lease(place.permit(), legacy()) is None


async def test_a_start_that_fails_is_tried_once_in_the_caller_s_own_manner() -> None:
    async with town() as place:
        place.world.fail = UpstreamUnavailable("no")
        errors = await together(place, ANY_MANNER, legacy(), legacy())
        assert [str(error) for error in errors] == ["no"] * 3
        assert [one.era for one in place.world.manners] == [None, Era.LEGACY]


async def test_what_an_instance_was_found_to_suit_ends_with_it() -> None:
    async with town([spec(idle_timeout_seconds=5)]) as place:
        await place.use(manner=legacy())
        await place.use()
        await anyio.sleep(6)
        for manner in (ANY_MANNER, legacy()):
            assert place.fleet.lease(place.permit(), manner) is None
        await place.use()
        assert len(place.world.opened) == 2
        assert place.world.most_alive == 1


async def test_a_mute_instance_s_other_callers_get_another_until_it_is_back() -> None:
    async with town([spec(idle_timeout_seconds=0)]) as place, anyio.create_task_group() as tasks:
        place.world.latency_s = None
        tasks.start_soon(place.use, "a", "k1", 1000.0, legacy())
        await anyio.sleep(2)
        first = place.world.last
        assert place.fleet.lease(place.permit()) is not None
        first.mute = True
        await anyio.sleep(150)
        place.world.latency_s = 0.01
        assert await place.use() is None
        first.mute = False
        await anyio.sleep(60)
        for manner, peer in ((legacy(), first), (ANY_MANNER, place.world.last)):
            lease = place.fleet.lease(place.permit(), manner)
            assert lease is not None
            assert lease.peer is peer
        first.answer_all()


async def test_a_restart_waits_for_and_is_found_by_every_manner() -> None:
    async with town() as place:
        await place.use()
        await place.use(manner=legacy())
        place.world.last.crash()
        assert await together(place, legacy(), ANY_MANNER) == [None, None]
        assert len(place.world.opened) == 2


async def test_a_restart_replaces_those_of_all_manners() -> None:
    async with town(world=speaking(*DUAL)) as place:
        manners = (ANY_MANNER, legacy(), SESSION)
        for manner in manners:
            await place.use(manner=manner)
        await place.use(manner=MODERN)
        await place.fleet.restart(place.permit())
        for manner in (*manners, MODERN):
            lease = place.fleet.lease(place.permit(), manner)
            assert lease is not None
            assert lease.peer in place.world.opened[3:]
        await anyio.sleep(1)
        assert len(place.world.alive("a")) == 3


async def test_start_is_content_with_any_that_callers_share() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        await place.use(manner=SESSION)
        tasks.start_soon(place.use, "a", "k1", 30.0, legacy())
        await anyio.sleep(0.5)
        assert await place.fleet.start(place.permit()) is True
        assert await place.fleet.start(place.permit()) is False
        assert len(place.world.opened) == 2


async def test_a_shared_server_starts_only_after_the_last_one_of_any_manner_is_gone() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        place.world.stop_s = 5
        await place.use()
        tasks.start_soon(place.fleet.stop, place.permit())
        await checkpoint()
        assert await place.use(manner=legacy()) is None
        assert place.world.most_alive == 1


# The end of a session


async def test_a_session_s_own_stops_with_it() -> None:
    async with town([spec(idle_timeout_seconds=0)]) as place:
        await place.use(manner=SESSION)
        await place.use(manner=OTHER)
        await place.use()
        place.fleet.release(place.permit(), SESSION)
        assert place.fleet.lease(place.permit(), SESSION) is None
        await anyio.sleep(0.6)
        assert [peer.gone.is_set() for peer in place.world.opened] == [True, False, False]
        place.fleet.release(place.permit(), SESSION)
        assert place.status().connection_count == 2
        assert place.state() is RUNNING


async def test_a_session_s_own_finishes_what_is_in_flight() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        place.world.latency_s = None
        tasks.start_soon(place.use, "a", "k1", 500.0, SESSION)
        await anyio.sleep(2)
        place.fleet.release(place.permit(), SESSION)
        await anyio.sleep(100)
        peer = place.world.last
        assert not peer.over.is_set()
        peer.answer_all()
        await anyio.sleep(0.1)
        assert peer.over.is_set()


async def test_the_start_for_a_session_ends_with_it() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        errors: list[GatewayError | None] = []

        async def one() -> None:
            errors.append(await place.use(manner=SESSION))

        tasks.start_soon(one)
        await anyio.sleep(0.5)
        place.fleet.release(place.permit(), SESSION)
        await checkpoint()
        await checkpoint()
        assert "its client session is over" in str(errors[0])
        assert place.world.opening == []
        assert place.state() is STOPPED
        await anyio.sleep(10)
        assert place.world.opened == []


async def test_a_session_that_ends_as_its_start_does_starts_nothing_more() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        errors: list[GatewayError | None] = []
        permit = place.permit()

        async def one() -> None:
            errors.append(await place.use(manner=SESSION))

        async def end_it() -> None:
            # At the very moment at which it opens, before its caller has heard of that.
            while place.fleet.lease(permit, SESSION) is None:
                await checkpoint()
            place.fleet.release(permit, SESSION)

        place.world.start_s = 0.0
        tasks.start_soon(end_it)
        tasks.start_soon(one)
        await anyio.sleep(10)
        assert len(place.world.attempts) == 1
        assert place.world.last.gone.is_set()
        assert "its client session is over" in str(errors[0])


@pytest.mark.parametrize("manner", [ANY_MANNER, MODERN, legacy(), OTHER])
async def test_what_no_session_owns_is_not_released(manner: Manner) -> None:
    async with town(world=speaking(*DUAL)) as place:
        place.fleet.release(place.permit(), manner)
        for used in (ANY_MANNER, legacy(), SESSION):
            await place.use(manner=used)
        place.fleet.release(place.permit(), manner)
        await anyio.sleep(10)
        assert place.status().connection_count == 3


async def test_nobody_releases_what_is_another_s() -> None:
    async with town([APART]) as place:
        await place.use(key="k1", manner=SESSION)
        place.fleet.release(place.permit(key="k2"), SESSION)
        await anyio.sleep(10)
        assert place.fleet.lease(place.permit(key="k1"), SESSION) is not None


async def test_a_released_one_does_not_stay_when_its_server_comes_back() -> None:
    async with town([spec(idle_timeout_seconds=0)]) as place:
        permit = place.permit()
        lease = await place.fleet.ready(permit, SESSION)
        lease.began(PLATFORM)
        place.fleet.release(permit, SESSION)
        place.load(spec("b"))
        await anyio.sleep(1)
        place.load(spec(idle_timeout_seconds=0))
        lease.ended(PLATFORM, failed=False)
        await anyio.sleep(1)
        assert place.world.last.gone.is_set()


async def test_the_place_of_a_released_one_is_free_before_that_of_others() -> None:
    async with town(settings=FleetSettings(max_connections_per_server=2)) as place:
        await place.use(manner=SESSION)
        await place.use(manner=OTHER)
        await place.use(manner=SESSION)
        place.fleet.release(place.permit(), SESSION)
        assert await place.use(manner=owned("session-3")) is None
        assert [peer.gone.is_set() for peer in place.world.opened] == [True, False, False]
        assert place.world.most_alive == 2


async def test_sessions_leave_nothing_behind() -> None:
    async with town([spec(idle_timeout_seconds=0)]) as place:
        await place.use()
        keeper = place.fleet._keepers[place.permit().entry.spec.id]
        place.world.fail = UpstreamUnavailable("no")
        for number in range(200):
            await place.use(manner=owned(f"failing-{number}"))
        place.world.fail = None
        for number in range(200):
            await place.use(manner=owned(f"good-{number}"))
            place.fleet.release(place.permit(), owned(f"good-{number}"))
        await anyio.sleep(1)
        await place.use(manner=SESSION)
        assert len(keeper._seats) == 2
        assert len(keeper._serving._own) == len(keeper._serving._found) == 2


async def test_one_that_crashes_waits_for_its_session_to_ask() -> None:
    async with town() as place:
        await place.use(manner=SESSION)
        place.world.last.crash()
        await anyio.sleep(100)
        assert len(place.world.attempts) == 1
        assert place.state() is STOPPED
        assert place.status().last_error == "exit code 1"
        assert await place.use(manner=SESSION) is None
        assert len(place.world.attempts) == 2


async def test_the_backoff_of_a_session_is_its_own() -> None:
    async with town() as place:
        place.world.fail = UpstreamUnavailable("no")
        for _ in range(3):
            await place.use(manner=SESSION)
        assert len(place.world.attempts) == 2
        place.world.fail = None
        assert isinstance(await place.use(manner=SESSION), UpstreamUnavailable)
        assert await place.use(manner=OTHER) is None


async def test_a_mute_one_of_a_session_is_stopped_and_not_replaced() -> None:
    async with town([spec(idle_timeout_seconds=0)]) as place:
        await place.use(manner=SESSION)
        place.world.last.mute = True
        await anyio.sleep(200)
        assert place.world.last.gone.is_set()
        assert len(place.world.attempts) == 1
        assert await place.use(manner=SESSION) is None


async def test_a_replacement_for_a_session_that_became_the_only_one_is_not_tried_again() -> None:
    async with town() as place, anyio.create_task_group() as tasks:
        await place.use(manner=SESSION)
        place.world.fail = UpstreamUnavailable("no")

        async def restart() -> None:
            with pytest.raises(UpstreamUnavailable, match="no"):
                await place.fleet.restart(place.permit())

        tasks.start_soon(restart)
        await anyio.sleep(0.5)
        place.world.last.crash()
        await anyio.sleep(100)
        assert len(place.world.attempts) == 2
        assert place.state() is STOPPED


async def test_isolation_that_changes_takes_sessions_along() -> None:
    async with town() as place:
        await place.use(manner=SESSION)
        place.load(APART)
        assert place.fleet.lease(place.permit(), SESSION) is None
        assert await place.use(manner=SESSION) is None
        assert place.world.opened[0].gone.is_set()
        place.fleet.release(place.permit(), SESSION)
        await anyio.sleep(1)
        assert place.world.opened[1].gone.is_set()


# The other era


@pytest.mark.parametrize(
    ("eras", "manner", "spoken"),
    [
        (ONLY_LEGACY, MODERN, LATEST_LEGACY),
        (ONLY_MODERN, legacy(), LATEST_MODERN),
        (ONLY_MODERN, SESSION, LATEST_MODERN),
    ],
)
async def test_an_era_not_spoken_is_a_verdict_and_no_failure(
    eras: tuple[Era, ...], manner: Manner, spoken: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with town(world=speaking(*eras)) as place:
        errors = await together(place, manner, manner, manner)
        assert len({id(error) for error in errors}) == 3
        for error in errors:
            assert isinstance(error, EraNotSpoken)
            assert error.spoken == (spoken,)
            assert error.retry_after_s is None
        assert len(place.world.attempts) == 1
        status = place.status()
        assert (status.state, status.connection_count, status.last_error) == (STOPPED, 0, None)
        assert (status.request_count, status.error_count) == (0, 0)
        assert [one for one in caplog.records if one.levelno > logging.INFO] == []
        began_s = anyio.current_time()
        assert await place.use() is None
        assert anyio.current_time() - began_s < 1.1


async def test_a_verdict_is_believed_for_a_while_and_leaves_others_alone() -> None:
    settings = FleetSettings(max_connections_per_server=1, idle_timeout_s=0)
    async with town(settings=settings) as place:
        first = await refusal(place, MODERN)
        await place.use(manner=SESSION)
        for _ in range(5):
            assert (await refusal(place, MODERN)).spoken == first.spoken
        assert place.fleet.lease(place.permit(), SESSION) is not None
        assert len(place.world.attempts) == 2
        await anyio.sleep(60)
        await refusal(place, MODERN)
        assert len(place.world.attempts) == 3


@pytest.mark.parametrize("how", ["reload", "start", "stop", "restart", "later"])
async def test_a_verdict_ends(how: str) -> None:
    async with town() as place:
        await refusal(place, MODERN)
        place.world.speaks = ONLY_MODERN
        permit = place.permit()
        if how == "reload":
            place.load(spec(runtime=LocalProcess(command="newer")))
        elif how == "later":
            await anyio.sleep(60)
        else:
            await {
                "start": place.fleet.start,
                "stop": place.fleet.stop,
                "restart": place.fleet.restart,
            }[how](permit)
        assert await place.use(manner=MODERN) is None


async def test_a_verdict_ends_when_another_s_start_refutes_it() -> None:
    async with town(world=speaking(*ONLY_MODERN)) as place:
        await refusal(place, SESSION)
        place.world.speaks = ONLY_LEGACY
        assert await place.use() is None
        assert await place.use(manner=SESSION) is None


async def test_a_verdict_while_others_run_does_not_touch_them() -> None:
    async with town(settings=FleetSettings(max_connections_per_server=2)) as place:
        await place.use()
        lease = place.fleet.lease(place.permit())
        await refusal(place, MODERN)
        assert place.fleet.lease(place.permit()) is lease
        assert place.state() is RUNNING
        assert await place.use() is None
        assert place.status().error_count == 0


async def test_a_verdict_on_a_replacement_leaves_the_old_one() -> None:
    async with town(world=speaking(*DUAL)) as place:
        await place.use(manner=MODERN)
        place.world.speaks = ONLY_LEGACY
        with pytest.raises(EraNotSpoken):
            await place.fleet.restart(place.permit())
        assert await place.use(manner=MODERN) is None
        assert place.state() is RUNNING


async def test_a_verdict_ends_a_series_of_restarts() -> None:
    async with town(world=speaking(*DUAL)) as place:
        await place.use(manner=MODERN)
        place.world.speaks = ONLY_LEGACY
        place.world.last.crash()
        await anyio.sleep(100)
        assert len(place.world.attempts) == 2
        assert place.state() is STOPPED
        await refusal(place, MODERN)


async def test_who_waits_for_another_s_start_gets_the_verdict_on_its_own() -> None:
    async with town() as place:
        errors = await together(place, ANY_MANNER, MODERN, MODERN)
        assert errors[0] is None
        assert [type(error) for error in errors[1:]] == [EraNotSpoken, EraNotSpoken]
        assert [one.era for one in place.world.manners] == [None, Era.MODERN]


async def test_who_was_given_up_is_forgiven_when_another_manner_works() -> None:
    world = World()
    world.start_s = world.stop_s = 0.0
    world.crash_at_once = True
    async with town([spec(idle_timeout_seconds=5)], world=world) as place:
        await place.fleet.start(place.permit())
        await anyio.sleep(100)
        assert place.state() is ServerState.UNHEALTHY
        world.crash_at_once = False
        assert await place.use(manner=legacy()) is None
        await anyio.sleep(10)
        assert place.state() is STOPPED


async def test_giving_up_on_what_a_client_made_up_is_forgotten() -> None:
    world = World()
    world.start_s = world.stop_s = 0.0
    world.crash_at_once = True
    made_up = Manner(era=Era.LEGACY, capabilities=b'{"experimental":{}}')
    async with town(world=world) as place:
        await place.use(manner=made_up)
        await anyio.sleep(100)
        assert place.state() is ServerState.UNHEALTHY
        world.fail = UpstreamUnavailable("no")
        await place.use(manner=SESSION)
        assert place.state() is STOPPED


# What is known


async def test_a_line_of_the_log_tells_manners_apart_without_their_owner(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with town(world=speaking(*DUAL)) as place:
        for manner in (ANY_MANNER, legacy(), SESSION, OTHER):
            await place.use(manner=manner)
        place.world.last.crash()
        place.fleet.release(place.permit(), SESSION)
        place.world.fail = ValueError("defect")
        await place.use(manner=owned("session-3"))
    facts = [
        (one.__dict__.get("state"), one.__dict__.get("era"), "owner" in one.__dict__)
        for one in caplog.records
    ]
    assert ("starting", None, False) in facts
    for era, is_owned in (("modern", False), ("legacy", False), ("legacy", True)):
        assert ("running", era, is_owned) in facts
    owners = {one.__dict__["owner"] for one in caplog.records if "owner" in one.__dict__}
    assert len(owners) == 3
    assert not any("session-" in repr(one.__dict__) for one in caplog.records)


async def test_status_is_of_all_manners() -> None:
    async with town(world=speaking(*DUAL)) as place:
        for manner in (ANY_MANNER, legacy(), SESSION):
            await place.use(manner=manner)
        status = place.status()
        assert (status.connection_count, status.request_count, status.state) == (3, 3, RUNNING)
        assert await place.fleet.stop(place.permit()) is True
        assert all(peer.gone.is_set() for peer in place.world.opened)


async def test_room_counts_all_manners_of_a_scope() -> None:
    async with town(settings=FleetSettings(max_connections_per_server=3)) as place:
        held: list[tuple[Permit, Manner]] = []
        for manner in (OLD, legacy(), SESSION):
            (await place.fleet.ready(place.permit(), manner)).began(PLATFORM)
            held.append((place.permit(), manner))
        assert isinstance(await place.use(manner=OTHER), Busy)
        assert all(place.fleet.lease(*one) is not None for one in held)
