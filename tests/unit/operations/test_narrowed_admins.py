"""Who is narrowed neither opens anything for others nor shuts out who has more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import pytest

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.access.permit import Clearance
from open_mcp_gateway.auth.principal import PLATFORM, Holder, Permission
from open_mcp_gateway.auth.records import KeyRecord, Status
from open_mcp_gateway.errors import Denied, Escalation, InvalidRequest, WrongKey
from open_mcp_gateway.keystore.store import KeyStore, StoreChanges, Transaction
from open_mcp_gateway.names import KeyId, TenantId
from open_mcp_gateway.operations.changes import Changer
from open_mcp_gateway.operations.minting import effective
from open_mcp_gateway.operations.requests import TenantCreate, TenantPatch
from tests.unit.operations.desk import REQUEST, Desk, refused, tell

Result = TypeVar("Result")

NARROWINGS: Final[tuple[tuple[dict[str, Any], tuple[str, ...]], ...]] = (
    ({"servers": ["s"]}, ("servers: *",)),
    ({"tools": ["s/*"]}, ("tools: *", "resources: *", "prompts: *")),
    ({"deny_tools": ["s/drop*"]}, ("deny_tools: s/drop* is not denied",)),
    ({"resources": []}, ("resources: *",)),
    ({"prompts": ["s/p"]}, ("prompts: *",)),
)
"""Scopes, and what keys of a tenant may beyond each."""


class Watched:
    """A store that tells which keys were read within its transactions."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self.read_whole: list[Holder] = []
        """Of whom all were."""

        self.read: list[KeyId] = []
        """Each by itself."""

    def transact(
        self, work: Callable[[Transaction], Result], known_rev: int, known_tag: str
    ) -> tuple[Result, StoreChanges]:
        return self._store.transact(
            lambda tx: work(cast(Transaction, _Watching(tx, self))), known_rev, known_tag
        )


class _Watching:
    def __init__(self, tx: Transaction, told: Watched) -> None:
        self._tx = tx
        self._told = told

    def __getattr__(self, name: str) -> object:
        return getattr(self._tx, name)

    def keys_of(self, holder: Holder) -> list[KeyRecord]:
        self._told.read_whole.append(holder)
        return self._tx.keys_of(holder)

    def key(self, key_id: KeyId) -> KeyRecord | None:
        self._told.read.append(key_id)
        return self._tx.key(key_id)


async def narrowed(desk: Desk, scope: dict[str, Any]) -> Clearance:
    made = await desk.make(name="narrow", role="admin", scope=scope)
    return desk.by(made.record.id, Permission.TENANTS_WRITE)


@pytest.mark.parametrize(("scope", "excess"), NARROWINGS)
def test_who_may_not_call_everything_opens_no_tenant(
    scope: dict[str, Any], excess: tuple[str, ...]
) -> None:
    async def story(desk: Desk) -> None:
        root = desk.by(permission=Permission.TENANTS_WRITE)
        for name, namespaces in (("t", ("one", "two")), ("off", ("one",))):
            request = TenantCreate(id=name, namespaces=namespaces)
            await desk.tenants.create(root, request, request_id=REQUEST)
        off = TenantPatch(disabled=True)
        await desk.tenants.patch(root, "off", off, request_id=REQUEST)
        by = await narrowed(desk, scope)
        request = TenantCreate(id="u", namespaces=("one",))
        with pytest.raises(Escalation) as raised:
            await desk.tenants.create(by, request, request_id=REQUEST)
        assert raised.value.excess == excess
        for name, patch in (
            ("t", TenantPatch(namespaces=("one", "two", "three"))),
            ("t", TenantPatch(namespaces=("three",))),
            ("off", TenantPatch(disabled=False)),
            ("off", TenantPatch(disabled=None)),
        ):
            doing = desk.tenants.patch(by, name, patch, request_id=REQUEST)
            await refused(Denied, "permission_denied", doing)

    tell(story)


@pytest.mark.parametrize("scope", [scope for scope, _ in NARROWINGS])
def test_who_may_not_call_everything_closes_no_tenant(scope: dict[str, Any]) -> None:
    async def story(desk: Desk) -> None:
        root = desk.by(permission=Permission.TENANTS_WRITE)
        request = TenantCreate(id="t", namespaces=("one", "two"))
        await desk.tenants.create(root, request, request_id=REQUEST)
        by = await narrowed(desk, scope)
        for patch in (
            TenantPatch(disabled=False, name="as it was"),
            TenantPatch(namespaces=("two",)),
            TenantPatch(disabled=True),
        ):
            doing = desk.tenants.patch(by, "t", patch, request_id=REQUEST)
            await refused(Denied, "permission_denied", doing)
        doing = desk.tenants.delete(by, "t", request_id=REQUEST)
        await refused(Denied, "permission_denied", doing)
        assert desk.ring.tenants[TenantId("t")].rev == 1


@pytest.mark.parametrize("namespaces", [["one"], ["o*"], ["two"], []])
def test_a_tenant_that_reaches_beyond_a_key_is_not_changed_by_it(namespaces: list[str]) -> None:
    async def story(desk: Desk) -> None:
        root = desk.by(permission=Permission.TENANTS_WRITE)
        for name, reaches in (("in", ("one",)), ("both", ("one", "two")), ("out", ("three",))):
            request = TenantCreate(id=name, namespaces=reaches)
            await desk.tenants.create(root, request, request_id=REQUEST)
        by = await narrowed(desk, {"namespaces": namespaces})
        for name in ("in", "both", "out"):
            disable = desk.tenants.patch(by, name, TenantPatch(disabled=True), request_id=REQUEST)
            delete = desk.tenants.delete(by, name, request_id=REQUEST)
            if name == "in" and namespaces in (["one"], ["o*"]):
                await disable
                await delete
                continue
            for doing in (disable, delete):
                await refused(Denied, "permission_denied", doing)

    tell(story)

    tell(story)


def test_who_is_narrowed_ends_and_changes_nobody_who_has_more() -> None:
    async def story(desk: Desk) -> None:
        scope = {"servers": ["s"]}
        narrow = (await desk.make(name="narrow", role="admin", scope=scope)).record.id
        wide = (await desk.make(name="wide", role="admin")).record.id
        equal = (await desk.make(name="equal", role="admin", scope=scope)).record.id
        for doing in (
            desk.revoke(wide, narrow),
            desk.patch(wide, narrow, scope=scope),
            desk.patch(wide, narrow, name="x"),
        ):
            await refused(Escalation, "scope_escalation", doing)
        await desk.patch(equal, narrow, disabled=True)
        await desk.revoke(equal, narrow)
        await desk.revoke(narrow, narrow)
        assert desk.stored[wide].revoked_at is None

    tell(story)


def test_a_role_that_was_widened_hinders_nobody_from_switching_itself_off() -> None:
    """What is written of the key is more than it has, for its maker has less."""

    async def story(desk: Desk) -> None:
        maker = (await desk.make(name="maker", role="tenant-admin", tenant="a")).record.id
        child = (await desk.make(maker, name="child", role="auditor")).record.id
        ring = desk.ring
        roles = dict(ring.roles) | {"auditor": frozenset(Permission)}
        desk.ring = Keyring(ring.tenants.values(), ring.keys.values(), desk.clock.wall, roles=roles)
        tenant_admin = desk.ring.principal(desk.stored[maker]).permissions
        assert desk.ring.principal(desk.stored[child]).permissions == tenant_admin
        await desk.patch(child, child, metadata={"n": "1"})
        await desk.patch(child, maker, disabled=True)
        await desk.revoke(child, maker)

    tell(story)


def test_nobody_is_given_more_than_the_key_it_was_made_with() -> None:
    """It would be written, and have no effect."""

    async def story(desk: Desk) -> None:
        scope = {"servers": ["s"]}
        narrow = (await desk.make(name="narrow", role="admin", scope=scope)).record.id
        parent = (await desk.make(narrow, name="parent", role="admin", scope=scope)).record.id
        child = (await desk.make(parent, name="child", scope=scope)).record.id
        for more in ({"scope": None}, {"scope": {"servers": ["s", "t"]}}):
            text = await refused(Escalation, "scope_escalation", desk.patch(child, **more))
            assert text == "A key cannot have more than the one that it was made with"
        await desk.patch(child, name="other", role="viewer")
        await desk.revoke(narrow, narrow, cascade=True)
        assert all(one.revoked_at is not None for one in desk.stored.values())

    tell(story)


def test_a_tenant_has_no_admin() -> None:
    async def story(desk: Desk) -> None:
        doing = desk.make(tenant="a", role="admin")
        text = await refused(InvalidRequest, "invalid_request", doing)
        assert "tenant-admin" in text
        made = (await desk.make(tenant="a")).record.id
        await refused(InvalidRequest, "invalid_request", desk.patch(made, role="admin"))

    tell(story)


def test_a_key_whose_role_is_gone_can_still_be_switched_off() -> None:
    async def story(desk: Desk) -> None:
        made = (await desk.make()).record.id
        ring = desk.ring
        roles = {name: granted for name, granted in ring.roles.items() if name != "caller"}
        desk.ring = Keyring(ring.tenants.values(), ring.keys.values(), desk.clock.wall, roles=roles)
        changed = await desk.patch(made, disabled=True)
        assert changed.status(desk.clock.time_s) is Status.DISABLED
        await refused(InvalidRequest, "invalid_request", desk.patch(made, role="caller"))

    tell(story)


def test_a_role_of_more_permissions_widens_no_child_past_its_maker() -> None:
    async def story(desk: Desk) -> None:
        scope = {"permissions": ["keys:*", "servers:list", "servers:read", "stats:read"]}
        boss = await desk.make(name="boss", tenant="a", role="tenant-admin", scope=scope)
        with pytest.raises(Escalation) as raised:
            await desk.make(boss.record.id, name="c", role="viewer")
        assert raised.value.excess == ("permissions: *",)
        child = await desk.make(boss.record.id, name="c", role="viewer", scope=scope)
        roles = dict(desk.ring.roles) | {"viewer": desk.ring.roles["operator"]}
        records = (boss.record, child.record)
        ring = Keyring(desk.ring.tenants.values(), records, desk.clock.wall, roles=roles)
        mine, theirs = (set(effective(ring.principal(one))) for one in records)
        assert theirs <= mine

    tell(story)


def test_who_was_shut_out_with_its_tenant_meanwhile_changes_nothing() -> None:
    async def story(desk: Desk) -> None:
        root = desk.by(permission=Permission.TENANTS_WRITE)
        request = TenantCreate(id="t", namespaces=("one",))
        await desk.tenants.create(root, request, request_id=REQUEST)
        boss = (await desk.make(name="boss", tenant="t", role="tenant-admin")).record.id
        other = (await desk.make(name="other", tenant="t")).record.id
        before = desk.ring
        off = TenantPatch(disabled=True)
        await desk.tenants.patch(root, "t", off, request_id=REQUEST)
        desk.ring = before  # as in a process that has not heard of it yet
        for doing in (desk.make(boss, name="x"), desk.patch(other, boss, name="y")):
            with pytest.raises(WrongKey) as raised:
                await doing
            assert raised.value.reason == "tenant_disabled"
        assert {one.name for one in desk.stored.values()} == {"boss", "other"}

    tell(story)


def test_keys_of_the_platform_are_read_only_when_an_administrator_may_be_lost() -> None:
    async def story(desk: Desk) -> None:
        made = [
            await desk.make(name=f"k{n}", tenant=holder) for n, holder in enumerate(["a", None])
        ]
        admin = await desk.make(name="admin", role="admin")
        watched = Watched(desk.store)
        desk.keys.changer = Changer(cast(KeyStore, watched), desk.in_force, desk._turn)
        for one in made:
            await desk.patch(one.record.id, name=one.record.name + "x")
            await desk.revoke(one.record.id)
        await desk.make(name="more", role="admin")
        assert watched.read_whole == []
        await desk.patch(admin.record.id, name="x")
        assert watched.read_whole == [PLATFORM]

    tell(story)


def test_what_many_keys_have_from_one_is_worked_out_once() -> None:
    """Each may have a hundred networks, and everybody else who changes a key waits."""

    async def story(desk: Desk) -> None:
        line = [(await desk.make(name="head", role="tenant-admin", tenant="a")).record.id]
        for n in range(1, 6):
            made = await desk.make(line[-1], name=f"k{n}", role="tenant-admin")
            line.append(made.record.id)
        for n in range(20):
            await desk.make(line[-1], name=f"leaf{n}")
        watched = Watched(desk.store)
        desk.keys.changer = Changer(cast(KeyStore, watched), desk.in_force, desk._turn)
        await desk.revoke(line[0], cascade=True)
        assert sorted(watched.read) == sorted([line[0], *line]), "the head, to begin with"
        assert all(one.revoked_at is not None for one in desk.stored.values())

    tell(story)
