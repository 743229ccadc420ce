"""A keyring that was changed is the one that would have been made of the new records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.access.policy import platform_admin
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.identify import Reason
from open_mcp_gateway.auth.principal import PLATFORM, Holder
from open_mcp_gateway.auth.records import KeyRecord, Source, TenantRecord
from open_mcp_gateway.errors import RightsChanged, WrongKey
from open_mcp_gateway.names import KeyId, Namespace, TenantId

ALPHA, BETA = TenantId("alpha"), TenantId("beta")
CLIENT = "127.0.0.1:1"
SECRETS = [b"test-key-%d" % number for number in range(6)]
HOLDERS: st.SearchStrategy[Holder] = st.sampled_from([ALPHA, BETA, PLATFORM])

tenants = st.builds(
    TenantRecord,
    id=st.sampled_from([ALPHA, BETA]),
    namespaces=st.sampled_from([(), (Namespace("prod"),), (Namespace("prod"), Namespace("dev"))]),
    disabled_at=st.sampled_from([None, 1.0]),
    deleted_at=st.sampled_from([None, None, 1.0]),
)


@st.composite
def keys(draw: st.DrawFn) -> KeyRecord:
    """Each key has two secrets of its own."""
    number = draw(st.sampled_from([0, 1, 2]))
    pair = (digest_of(SECRETS[2 * number]), digest_of(SECRETS[2 * number + 1]))
    return KeyRecord(
        id=KeyId(f"key_{number}"),
        holder=draw(HOLDERS),
        name="",
        role=draw(st.sampled_from(["viewer", "admin", "none"])),
        digests=draw(st.sampled_from([pair, pair[:1], pair[1:], ()])),
        parent=draw(st.sampled_from([None, None, *(KeyId(f"key_{n}") for n in range(3))])),
        revoked_at=draw(st.sampled_from([None, None, 1.0])),
        expires_at=draw(st.sampled_from([None, 9.0, 11.0])),
    )


def outcomes(ring: Keyring) -> list[object]:
    found: list[object] = []
    for one in SECRETS:
        try:
            found.append(ring.identifier.identify(one, CLIENT))
        except WrongKey as error:
            found.append(error.reason)
    return found


def now() -> float:
    return 10.0


@given(
    st.lists(keys()), st.lists(tenants), st.lists(st.tuples(st.lists(keys()), st.lists(tenants)))
)
def test_changes_come_to_the_same(
    first_keys: list[KeyRecord],
    first_tenants: list[TenantRecord],
    changes: list[tuple[list[KeyRecord], list[TenantRecord]]],
) -> None:
    ring = Keyring(first_tenants, first_keys, now)
    for new_keys, new_tenants in changes:
        before = outcomes(ring)
        after = ring.changed(new_keys, new_tenants)
        assert outcomes(ring) == before
        ring = after
    fresh = Keyring(ring.tenants.values(), ring.keys.values(), now)
    assert outcomes(ring) == outcomes(fresh)
    assert len(ring.identifier) == len(fresh.identifier)
    assert ring.identifier.next_end_s() == fresh.identifier.next_end_s()


def key(name: str, holder: Holder = ALPHA, **more: object) -> KeyRecord:
    made = {"id": KeyId(name), "holder": holder, "name": name, "role": "caller"}
    return KeyRecord(**(made | {"digests": (digest_of(name.encode()),)} | more))  # type: ignore[arg-type]


TENANT = TenantRecord(id=ALPHA, namespaces=(Namespace("prod"),))


def test_a_tenant_takes_its_keys_along() -> None:
    ring = Keyring([TENANT], [key("a"), key("p", PLATFORM)], now)
    held = ring.identifier.identify(b"a", CLIENT).principal
    wider = ring.changed(tenants=[replace(TENANT, namespaces=(Namespace("prod"), Namespace("x")))])
    assert wider.identifier.identify(b"a", CLIENT).principal.namespaces == frozenset(
        {Namespace("prod"), Namespace("x")}
    )
    assert wider.identifier.loss(held) is None
    narrower = ring.changed(tenants=[replace(TENANT, namespaces=())])
    assert isinstance(narrower.identifier.loss(held), RightsChanged)
    off = ring.changed(tenants=[replace(TENANT, disabled_at=1.0)])
    with pytest.raises(WrongKey) as caught:
        off.identifier.identify(b"a", CLIENT)
    assert caught.value.reason == "tenant_disabled"
    assert off.identifier.identify(b"p", CLIENT).principal.key_id == "p"


def test_a_key_keeps_its_old_secret_only_while_it_is_listed() -> None:
    both = key("a", digests=(digest_of(b"old"), digest_of(b"new")))
    ring = Keyring([TENANT], [key("a", digests=(digest_of(b"old"),))], now).changed([both])
    assert ring.identifier.identify(b"old", CLIENT) == ring.identifier.identify(b"new", CLIENT)
    later = ring.changed([key("a", digests=(digest_of(b"new"),))])
    assert later.identifier.identify(b"new", CLIENT).principal.key_id == "a"
    with pytest.raises(WrongKey):
        later.identifier.identify(b"old", CLIENT)


def test_two_keys_never_share_a_secret() -> None:
    with pytest.raises(ValueError, match="the same key"):
        Keyring([TENANT], [key("a"), key("b", digests=(digest_of(b"a"),))], now)
    ring = Keyring([TENANT], [key("a")], now)
    with pytest.raises(ValueError, match="the same key"):
        ring.changed([key("b", digests=(digest_of(b"a"),))])


def test_a_revoked_key_frees_no_secret_and_opens_nothing() -> None:
    ring = Keyring([TENANT], [key("a", revoked_at=1.0)], now)
    with pytest.raises(WrongKey) as caught:
        ring.identifier.identify(b"a", CLIENT)
    assert caught.value.reason == "revoked"
    assert ring.not_live(ring.keys[KeyId("a")], now()) is Reason.REVOKED
    assert ring.not_live(key("z"), now()) is None


def test_the_principal_of_a_record() -> None:
    root = platform_admin(digest_of(b"root"))
    assert Keyring([TENANT], [root, key("a")], now).principal(root).key_id == root.id


def test_keys_of_the_configuration_are_known_through_changes() -> None:
    root, stored = platform_admin(digest_of(b"root")), key("a", source=Source.STORE)
    ring = Keyring([TENANT], [root, stored, key("b")], now)
    assert {one.id for one in ring.configured} == {root.id, "b"}
    later = ring.changed([key("c", source=Source.STORE)], gone=[KeyId("a")])
    assert later.configured is ring.configured
    later = later.changed([replace(root, role="viewer")], gone=[KeyId("b")])
    assert later.configured == (replace(root, role="viewer"),)


def test_keys_that_are_gone_open_nothing() -> None:
    ring = Keyring([TENANT], [key("a"), key("b")], now)
    later = ring.changed(gone=[KeyId("a"), KeyId("never-there")])
    with pytest.raises(WrongKey):
        later.identifier.identify(b"a", CLIENT)
    assert (list(later.keys), [one.id for one in later.configured]) == (["b"], ["b"])
    assert later.identifier.identify(b"b", CLIENT).principal.key_id == "b"
    assert list(ring.keys) == ["a", "b"]


def test_keys_of_a_tenant_that_is_gone_open_nothing() -> None:
    ring = Keyring([TENANT], [key("a"), key("p", PLATFORM)], now)
    later = ring.changed(gone_tenants=[ALPHA])
    assert later.tenants == {}
    assert later.not_live(key("a"), now()) is Reason.TENANT_DISABLED
    with pytest.raises(WrongKey) as caught:
        later.identifier.identify(b"a", CLIENT)
    assert caught.value.reason == "tenant_disabled"
    assert ring.tenants == {ALPHA: TENANT}


def test_what_did_not_change_is_not_worked_out_again() -> None:
    """It would be, of a hundred thousand keys, at every change of one."""
    ring = Keyring([TENANT], [key("a"), key("p", PLATFORM)], now)
    later = ring.changed(tenants=[replace(TENANT, namespaces=())])
    assert later.keys is ring.keys
    before, after = (one.identifier.holding(KeyId("p")) for one in (ring, later))
    assert after is before is not None
    assert ring.changed([key("b")]).tenants is ring.tenants


def test_keys_that_others_were_made_with_are_known_through_changes() -> None:
    ring = Keyring([TENANT], [key("a"), key("b", parent=KeyId("a"))], now)
    assert ring.parents == {"a"}
    assert ring.changed([key("c", parent=KeyId("b"))]).parents == {"a", "b"}
