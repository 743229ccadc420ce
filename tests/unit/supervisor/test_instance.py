"""The lease that a request holds."""

from __future__ import annotations

import pytest

from open_mcp_gateway.auth.principal import PLATFORM
from open_mcp_gateway.errors import UpstreamBroken
from open_mcp_gateway.supervisor.instance import Instance
from open_mcp_gateway.supervisor.tally import Tally
from tests.unit.supervisor.memory import town
from tests.unit.supervisor.virtual_time import EPOCH

pytestmark = pytest.mark.anyio


async def test_requests_and_errors_are_counted_over_all_instances() -> None:
    async with town() as place:
        for _ in range(3):
            await place.use()
        place.world.last.crash()
        await place.use()
        place.world.last.latency_s = None
        error = await place.use(deadline_s=1)
        assert error is not None
        status = place.status()
        assert (status.request_count, status.error_count) == (5, 1)


async def test_a_request_that_finds_no_instance_counts_as_an_error() -> None:
    async with town() as place:
        place.world.fail = UpstreamBroken("no")
        await place.use()
        status = place.status()
        assert (status.request_count, status.error_count) == (1, 1)


async def test_moments_are_wall_clock_and_uptime_is_whole_seconds() -> None:
    async with town() as place:
        began = place.fleet.status(place.permit().entry.spec.id, PLATFORM)
        assert (began.started_at, began.last_activity, began.uptime_seconds) == (None, None, None)
        await place.use()
        started = place.status().started_at
        assert started is not None
        assert (started - EPOCH).total_seconds() == pytest.approx(1001)
        last = place.status().last_activity
        assert last is not None
        assert (last - started).total_seconds() == pytest.approx(0.01)
        assert place.status().uptime_seconds == 0


async def test_a_lease_is_the_instance_and_nothing_is_made_for_a_call() -> None:
    async with town() as place:
        lease = await place.fleet.ready(place.permit())
        assert isinstance(lease, Instance)
        assert not hasattr(lease, "__dict__")
        assert not hasattr(Tally(), "__dict__")
        assert all(place.fleet.lease(place.permit()) is lease for _ in range(3))
