"""The fleet over real processes: started, lost, stopped, and never left behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import PLATFORM
from open_mcp_gateway.catalog.diff import diff
from open_mcp_gateway.catalog.model import CatalogEntry, EraChoice, LocalProcess, Snapshot
from open_mcp_gateway.clock import SystemClock
from open_mcp_gateway.errors import Busy, EraNotSpoken, UpstreamBroken, UpstreamUnavailable
from open_mcp_gateway.names import ServerId
from open_mcp_gateway.outbound.open import opener_for
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner
from open_mcp_gateway.protocol.eras import LATEST_LEGACY, LATEST_MODERN, Era
from open_mcp_gateway.protocol.jsonrpc import Call
from open_mcp_gateway.supervisor.fleet import Fleet
from open_mcp_gateway.supervisor.lease import Lease
from open_mcp_gateway.supervisor.settings import FleetSettings
from open_mcp_gateway.supervisor.states import ServerState
from tests.process.stdio_peers import (
    QUICK,
    SECRET,
    Outcome,
    entry_of,
    is_running,
    permit_of,
    pids_in,
    tool_params,
)

pytestmark = pytest.mark.anyio

SETTINGS = FleetSettings(health_check_interval_s=0, stop_timeout_s=5)
MODERN = Manner(era=Era.MODERN)
LEGACY = Manner(era=Era.LEGACY, version=LATEST_LEGACY)


def server(mode: str, pids: Path, **changes: object) -> CatalogEntry:
    entry = entry_of(mode, pids, era=EraChoice.LEGACY)
    return replace(entry, spec=replace(entry.spec, **changes))


def owned(session: str) -> Manner:
    """As a client session opens it that can be asked something."""
    capabilities = b'{"elicitation":{}}'
    return Manner(era=Era.LEGACY, version=LATEST_LEGACY, capabilities=capabilities, owner=session)


class Running:
    """One server in a running fleet."""

    def __init__(self, fleet: Fleet, entry: CatalogEntry) -> None:
        self.fleet = fleet
        self.server_id = entry.spec.id
        self.permit: Permit = permit_of(entry)

    @property
    def state(self) -> ServerState:
        return self.fleet.status(self.server_id, PLATFORM).state

    async def lease(self, manner: Manner = ANY_MANNER) -> Lease:
        lease = self.fleet.lease(self.permit, manner)
        return lease or await self.fleet.ready(self.permit, manner)

    async def begin(
        self, tool: str, manner: Manner = ANY_MANNER, **arguments: object
    ) -> tuple[Lease, Outcome]:
        """Send a call; the caller ends the lease."""
        lease, outcome = await self.lease(manner), Outcome()
        lease.began(PLATFORM)
        call = Call("tools/call", b"1", tool_params(tool, **arguments))
        lease.peer.call(self.permit, call, outcome, deadline_s=SystemClock().monotonic() + 20)
        return lease, outcome

    async def echo(self, text: str, manner: Manner = ANY_MANNER) -> str:
        lease, outcome = await self.begin("echo", manner, text=text)
        await outcome.wait()
        lease.ended(PLATFORM, failed=outcome.error is not None)
        return outcome.text

    async def becomes(self, state: ServerState) -> None:
        await until(lambda: self.state is state)


async def until(condition: Callable[[], bool]) -> None:
    """Processes and the kernel announce nothing that could be awaited here."""
    with anyio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - see above
            await anyio.sleep(0.01)


@asynccontextmanager
async def fleet_of(
    entry: CatalogEntry, settings: FleetSettings = SETTINGS
) -> AsyncIterator[Running]:
    fleet = Fleet(settings, opener_for(QUICK, os.environ), SystemClock())
    snapshot = Snapshot({entry.spec.id: entry})
    fleet.apply(snapshot, diff(Snapshot(), snapshot))
    async with anyio.create_task_group() as tasks:
        await tasks.start(fleet.run)
        with anyio.fail_after(60):
            yield Running(fleet, entry)
        with anyio.fail_after(60):
            await fleet.aclose()


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    return tmp_path / "pids"


async def test_starts_on_the_first_request_and_is_gone_after_stop(pids: Path) -> None:
    async with fleet_of(server("echo", pids)) as running:
        assert pids_in(pids) == []
        assert await running.echo("hello") == "hello"
        (pid,) = pids_in(pids)
        assert (await running.lease()).peer.pid == pid
        assert is_running(pid)
        assert await running.fleet.stop(running.permit) is True
        assert not is_running(pid)
        assert running.state is ServerState.STOPPED


async def test_many_first_requests_are_one_process(pids: Path) -> None:
    async with fleet_of(server("slow_start", pids)) as running:
        answers: list[str] = []

        async def one(text: str) -> None:
            answers.append(await running.echo(text))

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(one, str(number))
        assert sorted(answers, key=int) == [str(number) for number in range(50)]
        assert len(pids_in(pids)) == 1


async def test_a_killed_server_fails_its_calls_and_comes_back_by_itself(pids: Path) -> None:
    async with fleet_of(server("echo", pids)) as running:
        lease, outcome = await running.begin("sleep", seconds=30)
        (pid,) = pids_in(pids)
        os.kill(pid, signal.SIGKILL)
        assert isinstance((await outcome.wait()).error, UpstreamBroken)
        lease.ended(PLATFORM, failed=True)
        await until(lambda: len(pids_in(pids)) == 2)
        await running.becomes(ServerState.RUNNING)
        assert await running.echo("again") == "again"
        assert len(pids_in(pids)) == 2
        assert "SIGKILL" in str(running.fleet.status(running.server_id, PLATFORM).last_error)


async def test_a_start_that_fails_says_why_without_the_secret(pids: Path) -> None:
    async with fleet_of(server("crash_at_start", pids)) as running:
        with pytest.raises(UpstreamUnavailable, match="cannot open database") as caught:
            await running.lease()
        assert SECRET not in caught.value.public
        assert running.state is ServerState.STOPPED
        assert SECRET not in str(running.fleet.status(running.server_id, PLATFORM).last_error)
        assert not any(is_running(pid) for pid in pids_in(pids))


async def test_a_start_that_takes_too_long_leaves_no_process(pids: Path) -> None:
    entry = server("slow_start", pids, start_timeout_seconds=1, env={"TEST_SLOW_START_S": "60"})
    async with fleet_of(entry) as running:
        while not pids_in(pids):  # as long as it did not even come to say that it runs
            with pytest.raises(UpstreamUnavailable, match="handshake within 1 s"):
                await running.lease()
        await until(lambda: not any(map(is_running, pids_in(pids))))


async def test_a_stop_during_a_start_leaves_no_process(pids: Path) -> None:
    entry = server("slow_start", pids, env={"TEST_SLOW_START_S": "60"})
    async with fleet_of(entry) as running, anyio.create_task_group() as tasks:

        async def wait_for_it() -> None:
            with pytest.raises(UpstreamUnavailable, match="stopped on request"):
                await running.lease()

        tasks.start_soon(wait_for_it)
        await until(lambda: len(pids_in(pids)) == 1)
        assert await running.fleet.stop(running.permit) is True
        assert not is_running(pids_in(pids)[0])


async def test_idle_means_gone_but_never_under_a_call(pids: Path) -> None:
    settings = replace(SETTINGS, idle_timeout_s=0.3)
    async with fleet_of(server("echo", pids), settings) as running:
        lease, outcome = await running.begin("sleep", seconds=1)
        assert (await outcome.wait()).error is None
        lease.ended(PLATFORM, failed=False)
        (pid,) = pids_in(pids)
        await until(lambda: not is_running(pid))
        assert await running.echo("fresh") == "fresh"
        assert len(pids_in(pids)) == 2


async def test_a_restart_lets_the_old_process_finish(pids: Path) -> None:
    async with fleet_of(server("echo", pids)) as running:
        lease, outcome = await running.begin("sleep", seconds=1)
        await running.fleet.restart(running.permit)
        old, new = pids_in(pids)
        assert (await running.lease()).peer.pid == new
        assert is_running(old)
        assert (await outcome.wait()).error is None
        lease.ended(PLATFORM, failed=False)
        await until(lambda: not is_running(old))
        assert is_running(new)


async def test_a_frozen_server_is_replaced(pids: Path) -> None:
    settings = replace(SETTINGS, health_check_interval_s=0.5)
    async with fleet_of(server("echo", pids), settings) as running:
        await running.echo("fine")
        (pid,) = pids_in(pids)
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: len(pids_in(pids)) == 2)
        await running.becomes(ServerState.RUNNING)
        assert not is_running(pid)
        assert await running.echo("fine") == "fine"


@pytest.mark.parametrize("mode", ["echo", "ignores_sigterm", "leaves_grandchild"])
async def test_closing_leaves_nothing(mode: str, pids: Path) -> None:
    async with fleet_of(server(mode, pids)) as running:
        await running.lease()
        await running.fleet.aclose()
        assert pids_in(pids)
        assert not any(is_running(pid) for pid in pids_in(pids))


@pytest.mark.parametrize("mode", ["echo", "ignores_sigterm", "leaves_grandchild"])
async def test_cancelling_leaves_nothing(mode: str, pids: Path) -> None:
    entry = server(mode, pids)
    fleet = Fleet(SETTINGS, opener_for(QUICK, os.environ), SystemClock())
    snapshot = Snapshot({ServerId("x"): entry})
    fleet.apply(snapshot, diff(Snapshot(), snapshot))
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            await tasks.start(fleet.run)
            await fleet.ready(permit_of(entry))
            tasks.cancel_scope.cancel()
    assert pids_in(pids)
    assert not any(is_running(pid) for pid in pids_in(pids))


# Manners


@pytest.mark.parametrize(
    ("mode", "manner", "version"),
    [("echo", LEGACY, LATEST_LEGACY), ("echo_modern", MODERN, LATEST_MODERN)],
)
async def test_envelope_and_endpoint_share_one_process(
    mode: str, manner: Manner, version: str, pids: Path
) -> None:
    async with fleet_of(entry_of(mode, pids)) as running:
        answers: list[str] = []

        async def one(text: str, manner: Manner) -> None:
            answers.append(await running.echo(text, manner))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one, "envelope", ANY_MANNER)
            tasks.start_soon(one, "endpoint", manner)
        assert sorted(answers) == ["endpoint", "envelope"]
        assert len(pids_in(pids)) == 1
        assert await running.lease() is await running.lease(manner)
        assert (await running.lease()).peer.handshake.version == version


async def test_a_server_of_both_eras_has_one_process_for_each() -> None:
    module = "open_mcp_gateway.examples.demo_server"
    runtime = LocalProcess(command=sys.executable, args=("-m", module))
    async with fleet_of(entry_of("", runtime=runtime)) as running:
        eras = {MODERN: Era.MODERN, LEGACY: Era.LEGACY, owned("s1"): Era.LEGACY}
        for manner, era in eras.items():
            assert await running.echo("hello", manner) == "hello"
            assert (await running.lease(manner)).peer.handshake.era is era
        found = {(await running.lease(manner)).peer.pid for manner in eras}
        assert len(found) == 3
        assert (await running.lease()).peer.pid in found
        assert running.fleet.status(running.server_id, PLATFORM).connection_count == 3
        await running.fleet.stop(running.permit)
        assert not any(is_running(pid) for pid in found if pid is not None)


async def test_sessions_have_a_process_each_which_ends_with_them(pids: Path) -> None:
    async with fleet_of(server("echo", pids, idle_timeout_seconds=0)) as running:
        first, second = owned("s1"), owned("s2")
        for manner in (first, second, LEGACY, first):
            await running.echo("hello", manner)
        one, two, common = pids_in(pids)
        assert (await running.lease(first)).peer.pid == one
        assert (await running.lease(second)).peer.pid == two
        assert (await running.lease()).peer.pid == common
        lease, outcome = await running.begin("sleep", first, seconds=0.5)
        for manner in (first, LEGACY, ANY_MANNER, owned("unknown")):
            running.fleet.release(running.permit, manner)
        assert is_running(one)
        assert (await outcome.wait()).error is None
        lease.ended(PLATFORM, failed=False)
        await until(lambda: not is_running(one))
        assert is_running(two)
        assert is_running(common)


async def test_a_session_s_crashed_process_is_not_started_again_unasked(pids: Path) -> None:
    async with fleet_of(server("echo", pids)) as running:
        await running.echo("hello", owned("s1"))
        await running.echo("hello")
        for pid in pids_in(pids):
            os.kill(pid, signal.SIGKILL)
        await until(lambda: len(pids_in(pids)) == 3)
        await running.becomes(ServerState.RUNNING)
        assert running.fleet.lease(running.permit) is not None
        assert running.fleet.lease(running.permit, owned("s1")) is None
        assert await running.echo("again", owned("s1")) == "again"


@pytest.mark.parametrize(
    ("mode", "era", "manner", "spoken"),
    [
        ("echo", EraChoice.AUTO, MODERN, LATEST_LEGACY),
        ("echo_modern", EraChoice.AUTO, LEGACY, LATEST_MODERN),
        ("echo_modern", EraChoice.AUTO, owned("s1"), LATEST_MODERN),
        ("echo", EraChoice.LEGACY, MODERN, LATEST_LEGACY),
    ],
)
async def test_an_era_not_spoken_is_said_and_leaves_nothing(
    mode: str, era: EraChoice, manner: Manner, spoken: str, pids: Path
) -> None:
    async with fleet_of(entry_of(mode, pids, era=era)) as running:
        for _ in range(3):
            with pytest.raises(EraNotSpoken) as caught:
                await running.lease(manner)
            assert spoken in caught.value.spoken
        asked = pids_in(pids)
        assert len(asked) <= 2
        assert not any(is_running(pid) for pid in asked)
        status = running.fleet.status(running.server_id, PLATFORM)
        assert (status.state, status.last_error) == (ServerState.STOPPED, None)
        assert status.error_count == 0
        assert await running.echo("hello") == "hello"


async def test_sessions_share_the_room_of_their_scope(pids: Path) -> None:
    settings = replace(SETTINGS, max_connections_per_server=2)
    async with fleet_of(server("echo", pids), settings) as running:
        await running.echo("hello", owned("s1"))
        lease, outcome = await running.begin("sleep", owned("s2"), seconds=1)
        await running.echo("hello", owned("s3"))
        first, second, third = pids_in(pids)
        assert not is_running(first)
        assert is_running(second)
        (await running.lease(owned("s3"))).began(PLATFORM)
        with pytest.raises(Busy):
            await running.lease(owned("s4"))
        assert is_running(third)
        await outcome.wait()
        lease.ended(PLATFORM, failed=False)
