"""Lists, figures and details hold exactly the servers that the one decision allows."""

from __future__ import annotations

import random

import msgspec
import pytest

from open_mcp_gateway.access.authorize import authorize_by_id, decide, require
from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.access.policy import ROLES
from open_mcp_gateway.auth.principal import PLATFORM, Holder, Permission, Principal
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.errors import Denied, NotFound
from open_mcp_gateway.inbound.management import Management, ReloadReport
from open_mcp_gateway.names import KeyId, Namespace, TenantId
from open_mcp_gateway.supervisor.fleet import Fleet
from open_mcp_gateway.supervisor.settings import FleetSettings
from tests.unit.supervisor.memory import World, snapshot_of, spec
from tests.unit.supervisor.virtual_time import LoopClock

pytestmark = pytest.mark.anyio

NAMESPACES = tuple(map(Namespace, ("one", "two", "three")))
TENANTS = tuple(map(TenantId, ("a", "b")))
NAMES = tuple(f"s{number}" for number in range(8))
SHORT, LONG = 200, 1000


def some(rng: random.Random, choices: tuple[str, ...]) -> tuple[str, ...] | None:
    """A scope's member: not mentioned, everything, or a few of them, which may be none."""
    few = tuple(rng.sample(choices, rng.randint(0, len(choices))))
    return rng.choice([None, ("*",), few, few])


def catalog(rng: random.Random) -> Snapshot:
    chosen = rng.sample(NAMES, rng.randint(0, len(NAMES)))
    return snapshot_of(*(spec(name, namespace=rng.choice(NAMESPACES)) for name in chosen))


def principals(rng: random.Random) -> list[Principal]:
    tenants = [
        TenantRecord(id=one, namespaces=tuple(rng.sample(NAMESPACES, rng.randint(0, 3))))
        for one in TENANTS
    ]
    holders: tuple[Holder, ...] = (PLATFORM, *TENANTS, TenantId("gone"))
    keys = [
        KeyRecord(
            id=KeyId(f"k{number}"),
            holder=rng.choice(holders),
            name=f"k{number}",
            role=rng.choice([*ROLES, "none"]),
            scope=ScopeText(
                servers=some(rng, (*NAMES, "s*")),
                namespaces=some(rng, NAMESPACES),
                permissions=some(rng, tuple(Permission)),
            ),
            digests=(bytes([number]) * 32,),
        )
        for number in range(4)
    ]
    ring = Keyring(tenants, keys, lambda: 0.0)
    return [ring.principal(one) for one in keys]


async def check_world(seed: int) -> None:
    rng = random.Random(seed)
    before, snapshot = catalog(rng), catalog(rng)

    async def reload() -> ReloadReport:
        return ReloadReport(before=before, after=snapshot)

    fleet = Fleet(FleetSettings(), World(), LoopClock())
    management = Management(fleet, LoopClock(), catalog=lambda: snapshot, reload=reload)
    for one in principals(rng):

        def allowed(
            permission: Permission, among: Snapshot = snapshot, one: Principal = one
        ) -> list[str]:
            entries = among.entries.values()
            return [x.spec.id for x in entries if decide(one, permission, x).allowed]

        listed = allowed(Permission.SERVERS_LIST)
        if one.may(Permission.SERVERS_LIST):
            reply = await management.list(require(one, Permission.SERVERS_LIST), b"")
            assert [server["id"] for server in msgspec.json.decode(reply.body)] == listed
        else:
            assert listed == []
        if one.may(Permission.STATS_READ):
            reply = await management.stats(require(one, Permission.STATS_READ), b"")
            figures = msgspec.json.decode(reply.body)
            assert list(figures["servers"]) == allowed(Permission.STATS_READ)
            assert figures["total_servers"] == len(figures["servers"])
        if one.may(Permission.CATALOG_RELOAD):
            reply = await management.reload(require(one, Permission.CATALOG_RELOAD), b"")
            counts = msgspec.json.decode(reply.body)
            earlier = set(allowed(Permission.SERVERS_LIST, before))
            assert counts["servers_loaded"] == len(listed)
            assert counts["servers_added"] == len(set(listed) - earlier)
            assert counts["servers_removed"] == len(earlier - set(listed))
        shown = []
        for name in NAMES:
            try:
                permit = authorize_by_id(one, Permission.SERVERS_READ, snapshot, name)
            except (NotFound, Denied):
                continue
            shown.append(msgspec.json.decode((await management.show(permit)).body)["id"])
        assert sorted(shown) == sorted(allowed(Permission.SERVERS_READ))


async def test_lists_figures_and_details_are_what_is_decided() -> None:
    for seed in range(SHORT):
        await check_world(seed)


@pytest.mark.long("1,000 worlds")
async def test_lists_figures_and_details_are_what_is_decided_in_many_worlds() -> None:
    for seed in range(SHORT, SHORT + LONG):
        await check_world(seed)
