"""Connections without supervision: opened when wanted, shared, and tried again after a failure."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
import pytest

from open_mcp_gateway.access.authorize import authorize
from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.errors import EraNotSpoken, GatewayError, NotFound, UpstreamUnavailable
from open_mcp_gateway.outbound.peer import Question
from open_mcp_gateway.protocol.jsonrpc import Incoming
from open_mcp_gateway.supervisor.direct import LAST_PAUSE_S, OPEN_S, Direct
from open_mcp_gateway.supervisor.lease import Lease
from tests.unit.supervisor.memory import MODERN, World, entry_of, owned, principal, spec

pytestmark = pytest.mark.anyio

PERMIT: Permit = authorize(principal(), Permission.MCP_CALL, entry_of(spec()))


@asynccontextmanager
async def direct(world: World) -> AsyncIterator[Direct]:
    async with anyio.create_task_group() as tasks:
        servers = Direct(world, tasks)
        yield servers
        tasks.cancel_scope.cancel()
        await servers.aclose()
    assert not world.alive("a")


async def together(servers: Direct, count: int) -> tuple[list[Lease], list[GatewayError]]:
    """What so many get who ask at the same time."""
    leases: list[Lease] = []
    errors: list[GatewayError] = []

    async def ask() -> None:
        try:
            leases.append(await servers.ready(PERMIT))
        except GatewayError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(ask)
    return leases, errors


async def test_all_who_ask_share_one_connection() -> None:
    world = World()
    async with direct(world) as servers:
        assert servers.lease(PERMIT) is None
        leases, _ = await together(servers, 5)
        assert {lease.peer for lease in leases} == {world.last}
        assert servers.lease(PERMIT) is leases[0]
        assert len(world.attempts) == 1
        await servers.ready(PERMIT, owned("s"))
        assert len(world.opened) == 2


@pytest.mark.parametrize(
    "failure", [UpstreamUnavailable("down", retry_after_s=3), NotFound("no such server")]
)
async def test_a_failure_is_told_to_each_and_forgotten(failure: GatewayError) -> None:
    world = World()
    world.fail = failure
    async with direct(world) as servers:
        _, errors = await together(servers, 3)
        assert [type(error) for error in errors] == [type(failure)] * 3
        assert {error.public for error in errors} == {failure.public}
        assert len(set(map(id, errors))) == 3  # each carries the id of its own request
        assert len(world.attempts) == 1
        world.fail = None
        assert (await servers.ready(PERMIT)).peer is world.last


async def test_an_era_that_is_not_spoken() -> None:
    world = World()
    async with direct(world) as servers:
        with pytest.raises(EraNotSpoken) as raised:
            await servers.ready(PERMIT, MODERN)
        assert raised.value.spoken == ("2025-11-25",)


async def test_a_lost_connection_is_opened_anew() -> None:
    world = World()
    async with direct(world) as servers:
        await servers.ready(PERMIT)
        lost = world.last
        lost.crash()
        assert servers.lease(PERMIT) is None
        assert (await servers.ready(PERMIT)).peer is not lost
        await lost.gone.wait()


async def test_what_is_released_is_closed() -> None:
    world = World()
    async with direct(world) as servers:
        await servers.ready(PERMIT, owned("s"))
        servers.release(PERMIT, owned("s"))
        servers.release(PERMIT, owned("another"))
        assert servers.lease(PERMIT, owned("s")) is None
        await world.last.gone.wait()


async def test_who_leaves_does_not_end_the_attempt() -> None:
    world = World()
    async with direct(world) as servers:
        with anyio.move_on_after(world.start_s / 2):
            await servers.ready(PERMIT)
        assert (await servers.ready(PERMIT)).peer is world.last
        assert len(world.attempts) == 1


async def test_an_attempt_is_bounded() -> None:
    world = World()
    world.start_s = OPEN_S + 1
    async with direct(world) as servers:
        began_s = anyio.current_time()
        with pytest.raises(UpstreamUnavailable, match="within 120 s"):
            await servers.ready(PERMIT)
        assert anyio.current_time() - began_s == pytest.approx(OPEN_S)


class Audience:
    """Somebody who listens."""

    def notified(self, message: bytes, incoming: Incoming) -> None: ...
    def asked(self, question: Question) -> None: ...


async def test_where_somebody_listens_a_lost_connection_comes_back_by_itself() -> None:
    world = World()
    async with direct(world) as servers:
        opened: list[str] = []
        servers.on_opened = opened.append
        await servers.ready(PERMIT, owned("s"))
        world.last.attend(Audience())
        world.fail = UpstreamUnavailable("down")
        began_s = anyio.current_time()
        world.last.crash()
        await anyio.sleep(200)
        at_s = [began_s, *world.attempts[1:]]
        pauses = [later - sooner - world.start_s for sooner, later in pairwise(at_s)]
        pauses[0] += world.start_s
        assert pauses == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30, 30, 30][: len(pauses)])
        assert len(pauses) > 7
        assert opened == ["a"]
        world.fail = None
        await anyio.sleep(LAST_PAUSE_S + world.start_s)
        assert opened == ["a", "a"]
        lease = servers.lease(PERMIT, owned("s"))
        assert lease is not None
        assert lease.peer is world.last
        attempts = len(world.attempts)
        await anyio.sleep(200)
        assert len(world.attempts) == attempts


async def test_a_call_may_be_first_to_open_it_again() -> None:
    world = World()
    async with direct(world) as servers:
        await servers.ready(PERMIT)
        world.last.attend(Audience())
        world.last.crash()
        lease = await servers.ready(PERMIT)
        await anyio.sleep(200)
        assert servers.lease(PERMIT) is lease
        assert len(world.attempts) == 2


async def test_what_is_released_or_unheard_does_not_come_back() -> None:
    world = World()
    async with direct(world) as servers:
        await servers.ready(PERMIT, owned("s"))
        world.last.attend(Audience())
        world.last.crash()
        servers.release(PERMIT, owned("s"))
        await servers.ready(PERMIT)
        world.last.crash()
        await anyio.sleep(200)
        assert len(world.attempts) == 2
        assert servers.lease(PERMIT, owned("s")) is None
