"""Making, changing and revoking keys, on a real store in memory."""

from __future__ import annotations

import logging
from typing import Any, Final

import anyio
import msgspec
import pytest
from msgspec.structs import replace

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.access.policy import API_KEY_ID
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.principal import PLATFORM, Permission
from open_mcp_gateway.auth.records import KeyRecord, Status
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.errors import (
    Conflict,
    Denied,
    Escalation,
    InvalidRequest,
    NotConfigured,
    NotFound,
    Outdated,
    WrongKey,
)
from open_mcp_gateway.names import KeyId
from open_mcp_gateway.operations.admins import is_admin
from open_mcp_gateway.operations.inforce import Configured
from open_mcp_gateway.operations.listing import Filters
from open_mcp_gateway.operations.requests import KeyImport, TenantCreate, TenantPatch
from open_mcp_gateway.operations.tags import tag_of
from tests.unit.operations.desk import REQUEST, ROOT, A, Desk, refused, tell

DAY_S = 86400.0

LOSSES: Final[tuple[dict[str, Any], ...]] = (
    {"disabled": True},
    {"role": "auditor"},
    {"scope": {"tools": []}},
    {"ip_allow": []},
    {"ip_allow": ["10.0.0.0/8"]},
    {"ip_allow": ["127.0.0.0/8", "::1/128"]},
    {"expires_at": "2100-01-01T00:00:00Z"},
    {"not_before": "2100-01-01T00:00:00Z"},
)
"""Changes after which a key is no administrator, or not for long."""


def test_a_made_key_opens_before_its_answer_and_shows_no_secret() -> None:
    async def story(desk: Desk) -> None:
        made = await desk.make(tenant="a", expires_in="90d", metadata={"x": "y"})
        assert made.secret is not None
        holding = desk.ring.identifier.identify(made.secret.encode(), "127.0.0.1:1")
        assert holding.principal.key_id == made.record.id
        assert made.record.expires_at == desk.clock.time_s + 90 * DAY_S
        assert made.secret not in repr(made) + repr(made.record) + made.record.hint
        found = desk.keys.verify(desk.by(), made.secret, "127.0.0.1:1")
        assert (found.code, found.record) == ("valid", made.record)

    tell(story)


def test_revoked_is_out_at_once_and_for_good() -> None:
    async def story(desk: Desk) -> None:
        made = await desk.make()
        assert made.secret is not None
        ended = await desk.revoke(made.record.id, reason="leaked")
        assert desk.keys.verify(desk.by(), made.secret, "127.0.0.1:1").code == "revoked"
        assert await desk.revoke(made.record.id) == ended
        await refused(Conflict, "revoked", desk.patch(made.record.id, disabled=False))
        assert (await desk.make()).record.name == "k"

    tell(story)


def test_a_tenant_keeps_to_itself() -> None:
    async def story(desk: Desk) -> None:
        boss = (await desk.make(name="boss", tenant="a", role="tenant-admin")).record.id
        other = (await desk.make(name="other", tenant="b")).record.id
        assert (await desk.make(boss, name="mine")).record.holder == A
        missing = await refused(NotFound, "not_found", desk.make(boss, tenant="nowhere"))
        hidden = await refused(NotFound, "not_found", desk.make(boss, tenant="b"))
        assert missing.replace("nowhere", "b") == hidden
        await refused(Escalation, "scope_escalation", desk.make(boss, tenant=None))
        for key_id in (other, API_KEY_ID, "key_nowhere"):
            await refused(NotFound, "not_found", desk.patch(key_id, boss, name="x"))
            await refused(NotFound, "not_found", desk.revoke(key_id, boss))
            with pytest.raises(NotFound):
                desk.keys.get(desk.by(boss), key_id)
        listed = desk.keys.list(desk.by(boss), Filters()).records
        assert {one.holder for one in listed} == {A}

    tell(story)


def test_a_change_cannot_give_more_than_its_maker_has() -> None:
    async def story(desk: Desk) -> None:
        boss = (
            await desk.make(name="boss", tenant="a", role="tenant-admin", scope={"servers": ["s"]})
        ).record.id
        child = (await desk.make(boss, name="c", scope={"servers": ["s"]})).record.id
        for members in (
            {"scope": None},
            {"scope": {"servers": None}},
            {"scope": {"servers": ["t"]}},
        ):
            await refused(Escalation, "scope_escalation", desk.patch(child, boss, **members))
        changed = await desk.patch(child, boss, role="viewer", scope={"tools": []})
        assert changed.scope == ScopeText(servers=("s",), tools=())

    tell(story)


def test_patch_keeps_what_is_absent_and_clears_what_is_null() -> None:
    async def story(desk: Desk) -> None:
        made = await desk.make(
            expires_in="1d", ip_allow=["10.0.0.0/8"], metadata={"a": "1", "b": "2"}
        )
        key_id = made.record.id
        changed = await desk.patch(key_id, metadata={"a": None, "c": "3"}, ip_allow=None)
        assert changed.metadata == {"b": "2", "c": "3"}
        assert changed.ip_allow is None
        assert changed.expires_at == made.record.expires_at
        changed = await desk.patch(key_id, expires_at=None, metadata=None, disabled=True)
        assert (changed.expires_at, changed.metadata) == (None, {})
        assert changed.status(desk.clock.time_s) is Status.DISABLED
        again = await desk.patch(key_id, disabled=None, not_before="2100-01-01T00:00:00Z")
        assert again.status(desk.clock.time_s) is Status.SCHEDULED
        await refused(Outdated, "outdated", desk.patch(key_id, seen=tag_of(made.record), name="x"))
        assert (await desk.patch(key_id, seen=tag_of(again), name="x")).name == "x"

    tell(story)


@pytest.mark.parametrize(
    "members",
    [
        {"tenant_id": "b"},
        {"rev": 1},
        {"name": None},
        {"role": None},
        {"role": "emperor"},
        {"limits": {"rpm": 1}},
        {"scope": {"tool": []}},
        {"scope": {"tools": ["a*b"]}},
        {"scope": {"tools": [" "]}},
        {"scope": {"tools": [""]}},
        {"scope": {"deny_tools": ["drop"]}},
        {"scope": {"deny_tools": ["prod-a.drop"]}},
        {"scope": {"deny_tools": ["prod-a/drop "]}},
        {"scope": {"deny_tools": ["prod a/drop"]}},
        {"scope": {"deny_tools": ["/drop"]}},
        {"scope": {"deny_tools": ["prod a*"]}},
        {"scope": {"resources": ["r"]}},
        {"scope": {"prompts": ["p"]}},
        {"scope": {"permissions": ["mcp:cal"]}},
        {"scope": {"servers": ["x y"]}},
        {"scope": {"servers": ["x/y"]}},
        {"scope": {"namespaces": ["Prod"]}},
        {"ip_allow": ["10.0.0.1/8"]},
        {"expires_at": "2001-01-01T00:00:00Z"},
        {"expires_at": "2100-01-01T00:00:00"},
        {"metadata": {"a": "x" * 501}},
        {"metadata": {str(n): "" for n in range(51)}},
        {"scope": {"tools": ["x"] * 1001}},
        {"scope": {"servers": ["x" * 501]}},
        {"ip_allow": ["10.0.0.0/8"] * 101},
        {"ip_allow": ["::ffff:127.0.0.0/104"]},
        {"ip_allow": ["fe80::1%eth0"]},
        {"scope": {"tools": ["s/" + "x" * 400] * 100, "prompts": ["s/" + "x" * 400] * 100}},
        {"not_before": "2100-01-01T00:00:00Z", "expires_at": "2100-01-01T00:00:00Z"},
        {"name": "a\nb"},
        {"name": " "},
        {"name": ""},
    ],
)
def test_what_a_patch_is_not(members: dict[str, Any]) -> None:
    async def story(desk: Desk) -> None:
        made = await desk.make()
        await refused(InvalidRequest, "invalid_request", desk.patch(made.record.id, **members))
        assert desk.stored[made.record.id] == made.record

    tell(story)


@pytest.mark.parametrize(
    "members",
    [
        {"expires_in": "1d", "expires_at": "2100-01-01T00:00:00Z"},
        {"expires_in": "1y"},
        {"expires_in": "999999999d"},
        {"hash": "sha256:00"},
        {"ip_allow": ["10.0.0.0/8"] * 101},
        {"scope": {"tools": ["s/" + "x" * 400] * 200}},
        {"not_before": "2100-01-01T00:00:00Z", "expires_in": "1d"},
        {"limits": {}},
        {"id": "key_x"},
    ],
)
def test_what_a_new_key_is_not(members: dict[str, Any]) -> None:
    async def story(desk: Desk) -> None:
        text = await refused(InvalidRequest, "invalid_request", desk.make(**members))
        assert "limits" not in members or "not enforced" in text
        assert not desk.stored

    tell(story)


def test_a_pattern_that_can_fit_nothing_is_named_with_its_mend() -> None:
    async def story(desk: Desk) -> None:
        doing = desk.make(scope={"tools": ["s/*"], "deny_tools": ["s/a", "drop"]})
        text = await refused(InvalidRequest, "invalid_request", doing)
        mend = "write server/name, server/beginning* or server/*"
        assert text == f"`scope.deny_tools`: 'drop' can fit nothing; {mend}"
        assert not desk.stored
        fine = {"deny_tools": ["s/a", "s/b*", "s/*", "s*", "*"], "permissions": ["mcp:*"]}
        await desk.make(scope=fine)

    tell(story)


def test_names_and_hashes_are_one_keys_only() -> None:
    async def story(desk: Desk) -> None:
        first = await desk.make(name="a", hash="sha256:" + "0a" * 32)
        assert first.secret is None
        await refused(Conflict, "name_taken", desk.make(name="a"))
        await refused(Conflict, "name_taken", desk.make(name="api_key"))
        await refused(Conflict, "hash_taken", desk.make(name="b", hash="sha256:" + "0a" * 32))
        root = digest_of(b"root").hex()
        await refused(Conflict, "hash_taken", desk.make(name="b", hash=f"sha256:{root}"))
        await desk.make(name="a", tenant="a")
        other = await desk.make(name="b")
        await refused(Conflict, "name_taken", desk.patch(other.record.id, name="a"))

    tell(story)


def test_what_the_configuration_holds_is_read_only() -> None:
    async def story(desk: Desk) -> None:
        await refused(Conflict, "read_only", desk.patch(API_KEY_ID, name="x"))
        await refused(Conflict, "read_only", desk.revoke(API_KEY_ID))
        patch = TenantPatch(disabled=True)
        doing = desk.tenants.patch(
            desk.by(permission=Permission.TENANTS_WRITE), "a", patch, request_id=REQUEST
        )
        await refused(Conflict, "read_only", doing)

    tell(story)


def test_without_a_store_keys_are_only_shown() -> None:
    async def story(desk: Desk) -> None:
        await refused(NotConfigured, "store_not_configured", desk.make())
        assert [one.id for one in desk.keys.list(desk.by(), Filters()).records] == [API_KEY_ID]

    tell(story, store=False)


def test_children_end_with_their_parent() -> None:
    async def story(desk: Desk) -> None:
        boss = (await desk.make(name="boss", tenant="a", role="tenant-admin")).record.id
        child = (await desk.make(boss, name="c", role="tenant-admin")).record.id
        grandchild = (await desk.make(child, name="g")).record.id
        await refused(Conflict, "has_children", desk.revoke(boss))
        done = await desk.keys.revoke(desk.by(), boss, request_id=REQUEST, cascade=True)
        assert set(done.children) == {child, grandchild}
        assert all(one.revoked_at is not None for one in desk.stored.values())

    tell(story)


def test_who_was_revoked_meanwhile_makes_no_key() -> None:
    async def story(desk: Desk) -> None:
        boss = (await desk.make(name="boss", tenant="a", role="tenant-admin")).record.id
        before = desk.by(boss)
        await desk.patch(boss, role="viewer")
        item = KeyImport(keys=[msgspec.Raw(b"{}")])
        with pytest.raises(Denied):
            await desk.keys.import_keys(before, item, request_id=REQUEST)
        await desk.revoke(boss)
        with pytest.raises(WrongKey):
            await desk.keys.import_keys(before, item, request_id=REQUEST)

    tell(story)


def test_an_import_has_an_outcome_for_each_item() -> None:
    async def story(desk: Desk) -> None:
        items = [
            {"name": "a", "hash": "sha256:" + "01" * 32},
            {"name": "b"},
            {"name": "a", "hash": "sha256:" + "02" * 32},
            {"nom": "c"},
        ]
        raw = [msgspec.Raw(msgspec.json.encode(one)) for one in items]
        done = await desk.keys.import_keys(desk.by(), KeyImport(keys=raw), request_id=REQUEST)
        codes = [None if one.error is None else one.error.code for one in done]
        assert codes == [None, "invalid_request", "name_taken", "invalid_request"]
        assert len(desk.stored) == 1

    tell(story)


def test_a_key_that_would_never_open_is_told_why() -> None:
    async def story(desk: Desk) -> None:
        start = "2100-01-01T00:00:00Z"
        text = await refused(
            InvalidRequest, "invalid_request", desk.make(not_before=start, expires_in="1d")
        )
        assert text == "`expires_at` must be after `not_before`"
        made = (await desk.make(not_before=start)).record
        early = desk.patch(made.id, expires_at="2099-12-31T00:00:00Z")
        assert await refused(InvalidRequest, "invalid_request", early) == text
        text = await refused(InvalidRequest, "invalid_request", desk.make(ip_allow=["fe80::%1"]))
        assert text.startswith("`ip_allow`: 'fe80::%1' is no network or address; write e.g. ")

    tell(story)


def test_a_kept_key_that_would_never_open_can_be_switched_off() -> None:
    async def story(desk: Desk) -> None:
        made = (await desk.make()).record
        never = replace(made, not_before=20.0e9, expires_at=10.0e9)
        desk.store.transact(lambda tx: tx.put_key(never))
        await desk.keys.changer.catch_up()
        assert (await desk.patch(made.id, disabled=True)).disabled_at is not None

    tell(story)


def hashed(count: int) -> KeyImport:
    """Keys ``k0``, ``k1`` and so on."""
    items = [{"name": f"k{n}", "hash": f"sha256:{n:064x}"} for n in range(count)]
    return KeyImport(keys=[msgspec.Raw(msgspec.json.encode(one)) for one in items])


def test_an_import_lets_others_in_between() -> None:
    async def story(desk: Desk) -> None:
        done = await desk.keys.import_keys(desk.by(), hashed(120), request_id=REQUEST)
        assert [one.error for one in done] == [None] * 120
        assert len(desk.stored) == 120
        # Fifty at a time.
        assert len(desk.turned) == 3

    tell(story)


class Betrayed(Desk):
    """Somewhere else the importer is revoked once its first keys are in force."""

    boss: KeyId | None = None

    def _turn(self, ring: Keyring) -> None:
        super()._turn(ring)
        boss, self.boss = self.boss, None
        if boss is not None:
            ended = replace(self.stored[boss], revoked_at=self.clock.wall())
            self.store.transact(lambda tx: tx.put_key(ended))


def test_who_is_revoked_during_an_import_makes_no_more() -> None:
    async def story(desk: Betrayed) -> None:
        boss = (await desk.make(name="boss", tenant="a", role="tenant-admin")).record.id
        keys = [*hashed(118).keys, msgspec.Raw(b"{}")]
        by, desk.boss = desk.by(boss), boss
        done = await desk.keys.import_keys(by, KeyImport(keys=keys), request_id=REQUEST)
        codes = [None if one.error is None else type(one.error) for one in done]
        assert codes == [None] * 50 + [WrongKey] * 68 + [InvalidRequest]
        assert len(desk.stored) == 51

    anyio.run(story, Betrayed(ROOT))


def test_the_last_administrator_stays() -> None:
    async def story(desk: Desk) -> None:
        first = (await desk.make(name="first", role="admin")).record.id
        second = (await desk.make(name="second", role="admin")).record.id
        await desk.patch(second, by=first, disabled=True)
        # From here on as if the configuration had no administrator.
        ring = desk.ring
        desk.ring = type(ring)(ring.tenants.values(), desk.stored.values(), desk.clock.wall)
        for members in LOSSES:
            await refused(Conflict, "last_admin", desk.patch(first, first, **members))
        await refused(Conflict, "last_admin", desk.revoke(first, first, cascade=True))
        await desk.patch(second, first, disabled=False)
        await desk.revoke(first, second)
        await refused(Conflict, "last_admin", desk.revoke(second, second))

    tell(story)


def test_an_administrator_without_a_secret_of_its_own_is_none() -> None:
    """A configured key with the same secret is the one that opens, here to a tenant alone."""

    async def story(desk: Desk) -> None:
        first = (await desk.make(name="first", role="admin")).record
        second = (await desk.make(name="second", role="admin")).record
        tenants = tuple(desk.ring.tenants.values())
        same = KeyRecord(
            id=KeyId("config:a:k"), holder=A, name="k", role="caller", digests=first.digests
        )
        files = Configured(tenants=tenants, keys=(same,))
        desk.in_force.adopt(files, desk.in_force.reconfigured(files))
        await refused(Conflict, "last_admin", desk.revoke(second.id, second.id))
        await refused(Conflict, "last_admin", desk.patch(second.id, second.id, disabled=True))
        await desk.patch(first.id, second.id, name="f")
        await desk.revoke(first.id, second.id)

    tell(story)


def test_the_networks_of_the_last_administrator_only_grow() -> None:
    async def story(desk: Desk) -> None:
        made = await desk.make(name="first", role="admin", ip_allow=["10.0.0.0/8", "fd00::/8"])
        first = made.record.id
        ring = desk.ring
        desk.ring = type(ring)(ring.tenants.values(), desk.stored.values(), desk.clock.wall)
        less = desk.patch(first, first, ip_allow=["10.0.0.0/8"])
        await refused(Conflict, "last_admin", less)
        await desk.patch(first, first, ip_allow=["fd00::/8", "10.0.0.0/8"], name="f")
        second = (await desk.make(first, name="second", role="admin", ip_allow=["fd00::/8"])).record
        # The second was made with the first, so that it could be used from nowhere any more.
        less = desk.patch(first, first, ip_allow=["10.1.0.0/16"])
        await refused(Conflict, "last_admin", less)
        await desk.patch(first, first, disabled=True)
        assert is_admin(desk.stored[second.id], desk.clock.wall())

    tell(story)


def test_a_repeated_request_makes_one_key() -> None:
    async def story(desk: Desk) -> None:
        made = await desk.make(idempotency_key="once")
        again = await desk.make(idempotency_key="once")
        assert (again.record, again.secret, again.replayed) == (made.record, None, True)
        other = desk.make(idempotency_key="once", name="other")
        await refused(Conflict, "idempotency_mismatch", other)
        desk.clock.time_s += DAY_S
        await refused(Conflict, "name_taken", desk.make(idempotency_key="once"))

    tell(story)


def test_a_hundred_at_once_make_one_key() -> None:
    async def story(desk: Desk) -> None:
        secrets: list[str | None] = []

        async def make() -> None:
            secrets.append((await desk.make(idempotency_key="once")).secret)

        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(make)
        assert len(desk.stored) == 1
        assert len([one for one in secrets if one is not None]) == 1

    tell(story)


def test_no_change_is_lost_among_a_hundred() -> None:
    async def story(desk: Desk) -> None:
        key_id = (await desk.make()).record.id
        outcomes: list[str] = []

        async def change(number: int) -> None:
            try:
                if number == 50:
                    await desk.revoke(key_id)
                else:
                    await desk.patch(key_id, metadata={f"m{number // 2}": str(number)})
                outcomes.append("done")
            except Conflict as error:
                outcomes.append(error.code)

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(change, number)
        record = desk.stored[key_id]
        assert record.revoked_at is not None
        assert set(outcomes) <= {"done", "revoked"}
        assert record.rev == desk.store.read().rev == outcomes.count("done") + 1
        assert desk.turned == sorted(desk.turned)
        assert desk.ring.keys[key_id] == record

    tell(story)


def test_one_of_a_hundred_with_the_same_revision_wins() -> None:
    async def story(desk: Desk) -> None:
        made = (await desk.make()).record
        outcomes: list[bool] = []

        async def change(number: int) -> None:
            try:
                await desk.patch(made.id, seen=tag_of(made), name=f"n{number}")
                outcomes.append(True)
            except Outdated:
                outcomes.append(False)

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(change, number)
        assert sorted(outcomes) == [False] * 99 + [True]

    tell(story)


def test_tenants_come_and_go_and_never_come_back() -> None:
    async def story(desk: Desk) -> None:
        by = desk.by(permission=Permission.TENANTS_WRITE)
        request = TenantCreate(id="t", namespaces=("one",))
        await desk.tenants.create(by, request, request_id=REQUEST)
        key_id = (await desk.make(tenant="t")).record.id
        doing = desk.tenants.delete(by, "t", request_id=REQUEST)
        await refused(Conflict, "has_keys", doing)
        await desk.revoke(key_id)
        await desk.tenants.delete(by, "t", request_id=REQUEST)
        assert [one.id for one in desk.tenants.list(by)] == ["a", "b"]
        await refused(NotFound, "not_found", desk.make(tenant="t"))
        doing = desk.tenants.create(by, request, request_id=REQUEST)
        await refused(Conflict, "id_taken", doing)

    tell(story)


def test_a_tenant_is_given_no_namespace_beyond_its_giver() -> None:
    async def story(desk: Desk) -> None:
        narrow = await desk.make(name="n", role="admin", scope={"namespaces": ["one"]})
        by = desk.by(narrow.record.id, Permission.TENANTS_WRITE)
        request = TenantCreate(id="t", namespaces=("one", "two"))
        doing = desk.tenants.create(by, request, request_id=REQUEST)
        await refused(Escalation, "scope_escalation", doing)

    tell(story)


def test_pages_follow_each_other() -> None:
    async def story(desk: Desk) -> None:
        for number in range(5):
            desk.clock.time_s += 1
            await desk.make(name=f"n{number}")
        seen: list[KeyRecord] = []
        cursor = None
        while True:
            page = desk.keys.list(desk.by(), Filters(), limit=2, cursor=cursor)
            seen += page.records
            cursor = page.next_cursor
            if cursor is None:
                break
            with pytest.raises(InvalidRequest) as raised:
                desk.keys.list(desk.by(), Filters(role="caller"), limit=2, cursor=cursor)
            assert raised.value.code == "bad_cursor"
        assert [one.name for one in seen] == ["n4", "n3", "n2", "n1", "n0", "api_key"]
        for bad in ("x", "", "W10", "é"):
            with pytest.raises(InvalidRequest):
                desk.keys.list(desk.by(), Filters(), cursor=bad)

    tell(story)


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (Filters(tenant="a"), {"boss"}),
        (Filters(tenant="b"), set()),
        (Filters(tenant=""), {"plain", "api_key"}),
        (Filters(namespace="one"), {"boss", "plain", "api_key"}),
        (Filters(namespace="two"), {"plain", "api_key"}),
        (Filters(role="admin"), {"api_key"}),
        (Filters(status="scheduled"), {"plain"}),
        (Filters(name="boss"), {"boss"}),
        (Filters(created_by="config:api_key"), {"boss", "plain"}),
        (Filters(source="config"), {"api_key"}),
        (Filters(expiring_within="7d"), {"boss"}),
        (Filters(expiring_within="1h"), set()),
        (Filters(unused_for="30d"), set()),
    ],
)
def test_filters(filters: Filters, names: set[str]) -> None:
    async def story(desk: Desk) -> None:
        await desk.make(name="boss", tenant="a", role="tenant-admin", expires_in="2d")
        await desk.make(name="plain", not_before="2100-01-01T00:00:00Z")
        found = desk.keys.list(desk.by(), filters).records
        assert {one.name for one in found} == names

    tell(story)


def test_unused_are_keys_whose_use_is_kept() -> None:
    async def story(desk: Desk) -> None:
        await desk.make(name="old")
        desk.clock.time_s += 31 * DAY_S
        await desk.make(name="new")
        found = desk.keys.list(desk.by(), Filters(unused_for="30d")).records
        assert [one.name for one in found] == ["old"]

    tell(story)


def test_no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    secrets: list[str] = []

    async def story(desk: Desk) -> None:
        made = await desk.make(name="k")
        assert made.secret is not None
        secrets.extend([made.secret, digest_of(made.secret.encode()).hex()])
        await desk.patch(made.record.id, name="l")
        await desk.revoke(made.record.id)
        await desk.revoke(made.record.id)  # which changes nothing, and so is not said

    with caplog.at_level(logging.DEBUG):
        tell(story)
    said = [one for one in caplog.records if one.name == "open_mcp_gateway.operations.keys"]
    assert [one.getMessage() for one in said] == ["key created", "key changed", "key revoked"]
    assert {one.__dict__["actor"] for one in said} == {API_KEY_ID}
    assert {one.__dict__["request_id"] for one in said} == {REQUEST}
    text = repr([one.__dict__ for one in caplog.records])
    assert not any(secret in text for secret in secrets)


def test_what_can_be_no_tenant_is_none() -> None:
    async def story(desk: Desk) -> None:
        by = desk.by(permission=Permission.TENANTS_WRITE)
        await refused(NotFound, "not_found", desk.make(tenant="a\x00"))
        request = TenantCreate(id="t\n", namespaces=())
        doing = desk.tenants.create(by, request, request_id=REQUEST)
        await refused(InvalidRequest, "invalid_request", doing)

    tell(story)


def test_a_narrowed_administrator_does_not_change_a_wider_tenant() -> None:
    async def story(desk: Desk) -> None:
        by = desk.by(permission=Permission.TENANTS_WRITE)
        request = TenantCreate(id="t", namespaces=("one", "two"))
        made = await desk.tenants.create(by, request, request_id=REQUEST)
        off = TenantPatch(disabled=True, name=None)
        await desk.tenants.patch(by, "t", off, request_id=REQUEST, rev=tag_of(made))
        narrow = await desk.make(name="n", role="admin", scope={"namespaces": ["one"]})
        theirs = desk.by(narrow.record.id, Permission.TENANTS_WRITE)
        name = TenantPatch(name="T")
        for patch in (TenantPatch(disabled=False), TenantPatch(namespaces=("two",)), name):
            doing = desk.tenants.patch(theirs, "t", patch, request_id=REQUEST)
            await refused(Denied, "permission_denied", doing)
        own = TenantCreate(id="own", namespaces=("one",))
        await desk.tenants.create(theirs, own, request_id=REQUEST)
        more = TenantPatch(namespaces=("one", "two"))
        doing = desk.tenants.patch(theirs, "own", more, request_id=REQUEST)
        await refused(Escalation, "scope_escalation", doing)
        named = await desk.tenants.patch(by, "t", name, request_id=REQUEST)
        assert (named.name, desk.tenants.get(by, "t")) == ("T", named)
        doing = desk.tenants.patch(by, "t", off, request_id=REQUEST, rev=tag_of(made))
        await refused(Outdated, "outdated", doing)
        bad = TenantPatch(namespaces=("NO",))
        doing = desk.tenants.patch(by, "t", bad, request_id=REQUEST)
        await refused(InvalidRequest, "invalid_request", doing)

    tell(story)


def test_the_platform_is_no_tenant() -> None:
    async def story(desk: Desk) -> None:
        assert (await desk.make()).record.holder is PLATFORM
        assert (await desk.make(name="n", tenant=None)).record.holder is PLATFORM

    tell(story)
