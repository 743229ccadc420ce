"""The keys of files and of the store in one keyring, however the two change."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from msgspec.structs import replace

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.access.policy import ROLES, platform_admin
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.principal import PLATFORM, Holder, Permission
from open_mcp_gateway.auth.records import KeyRecord, Source, TenantRecord
from open_mcp_gateway.errors import WrongKey
from open_mcp_gateway.keystore.store import StoreChanges
from open_mcp_gateway.names import KeyId, Namespace, TenantId
from open_mcp_gateway.operations.inforce import Configured, KeysInForce

ACME, OTHER = TenantId("acme"), TenantId("other")
ROOT = platform_admin(digest_of(b"root"))
NOW_S = 10.0


def now() -> float:
    return NOW_S


def key(name: str, rev: int = 1, holder: Holder = PLATFORM, **more: object) -> KeyRecord:
    """A stored key whose secret is its name."""
    made: dict[str, Any] = {
        "id": KeyId(f"key_{name}"),
        "holder": holder,
        "name": name,
        "role": "caller",
    }
    made |= {"digests": (digest_of(name.encode()),), "source": Source.STORE, "rev": rev}
    return KeyRecord(**(made | more))


def tenant(name: TenantId, *namespaces: str, rev: int = 0, **more: object) -> TenantRecord:
    """A tenant of the store if it has a revision, of a file otherwise."""
    made: dict[str, Any] = {
        "id": name,
        "namespaces": tuple(Namespace(one) for one in namespaces),
        "rev": rev,
    }
    made["source"] = Source.STORE if rev else Source.CONFIG
    return TenantRecord(**(made | more))


def written(rev: int, *records: KeyRecord | TenantRecord) -> StoreChanges:
    keys = tuple(one for one in records if isinstance(one, KeyRecord))
    tenants = tuple(one for one in records if isinstance(one, TenantRecord))
    return StoreChanges(rev=rev, keys=keys, tenants=tenants)


def who(ring: Keyring, secret: str) -> str:
    """The id of the key with that secret, or why it does not open."""
    try:
        return ring.identifier.identify(secret.encode(), "127.0.0.1:1").principal.key_id
    except WrongKey as error:
        return error.reason or "unknown"


def reload(keys: KeysInForce, configured: Configured) -> Keyring:
    ring = keys.reconfigured(configured)
    keys.adopt(configured, ring)
    return ring


def test_both_sources_open_from_the_start() -> None:
    configured = Configured(keys=(ROOT,), tenants=(tenant(ACME, "prod"),))
    keys = KeysInForce(configured, now, written(7, key("s", holder=ACME)))
    assert (who(keys.keyring, "root"), who(keys.keyring, "s")) == (ROOT.id, "key_s")
    assert keys.rev == 7
    assert keys.stores(KeyId("key_s"))
    assert not keys.stores(ROOT.id)


def test_without_a_store_there_are_those_of_the_files() -> None:
    keys = KeysInForce(Configured(keys=(ROOT,)), now)
    assert list(keys.keyring.keys) == [ROOT.id]
    assert keys.rev == -1


def test_a_reload_drops_no_stored_key() -> None:
    stored = (key("s"), key("t", holder=OTHER), tenant(OTHER, "prod", rev=1))
    keys = KeysInForce(Configured(keys=(ROOT,)), now, written(1, *stored))
    second = replace(ROOT, id=KeyId("config:second"), digests=(digest_of(b"second"),))
    for roles in (ROLES, {**ROLES, "extra": frozenset({Permission.STATS_READ})}):
        ring = reload(keys, Configured(keys=(second,), roles=roles))
        assert [who(ring, one) for one in ("root", "second", "s", "t")] == [
            "unknown",
            second.id,
            "key_s",
            "key_t",
        ]
        assert ring.tenants.keys() == {OTHER}
        assert ring.roles == roles


def test_roles_of_a_reload_hold_for_stored_keys() -> None:
    keys = KeysInForce(Configured(), now, written(1, key("s", role="reader")))
    assert not keys.keyring.principal(key("s", role="reader")).permissions
    ring = reload(keys, Configured(roles={"reader": frozenset({Permission.STATS_READ})}))
    found = ring.identifier.find(b"s")
    assert found is not None
    assert found.principal.permissions == {Permission.STATS_READ}


@pytest.mark.parametrize("ended", [{}, {"revoked_at": 5.0}])
def test_a_configured_key_takes_its_secret_from_a_stored_one(
    ended: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """At the start: who can import a hash must not be able to keep a gateway from starting."""
    same = replace(ROOT, digests=(digest_of(b"s"),))
    keys = KeysInForce(Configured(keys=(same,)), now, written(1, key("s", **ended)))
    assert who(keys.keyring, "s") == ROOT.id
    shown = keys.keyring.keys[KeyId("key_s")]
    assert shown.status(NOW_S) == ("revoked" if ended else "disabled")
    assert "is left out" in caplog.text


@pytest.mark.parametrize("roles", [ROLES, {}])
def test_and_by_a_reload_and_gives_it_back(roles: dict[str, frozenset[Permission]]) -> None:
    keys = KeysInForce(Configured(keys=(ROOT,)), now, written(1, key("s")))
    same = replace(ROOT, id=KeyId("config:same"), digests=(digest_of(b"s"),))
    ring = reload(keys, Configured(keys=(ROOT, same), roles=roles))
    assert (who(ring, "root"), who(ring, "s")) == (ROOT.id, same.id)
    assert who(reload(keys, Configured(keys=(ROOT,), roles=roles)), "s") == "key_s"


def test_one_that_another_process_wrote_is_left_out_while_the_configured_one_is_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = KeysInForce(Configured(keys=(ROOT,)), now)
    thief = key("s", digests=(digest_of(b"root"),))
    with caplog.at_level(logging.ERROR):
        ring = keys.take(written(1, thief, key("t")))
    assert (who(ring, "root"), who(ring, "t")) == (ROOT.id, "key_t")
    assert ring.keys[thief.id].digests == ()
    assert "is left out" in caplog.text
    assert who(keys.replace(written(2, thief)), "root") == ROOT.id
    ring = reload(keys, Configured(keys=(ROOT,), tenants=(tenant(ACME),)))
    assert who(ring, "root") == ROOT.id
    assert who(reload(keys, Configured()), "root") == thief.id


def test_one_whose_secret_becomes_that_of_a_configured_key_goes() -> None:
    keys = KeysInForce(Configured(keys=(ROOT,)), now, written(1, key("s")))
    both = key("s", 2, digests=(digest_of(b"s"), digest_of(b"root")))
    ring = keys.take(written(2, both))
    assert (who(ring, "root"), who(ring, "s")) == (ROOT.id, "unknown")


def test_one_that_was_left_out_comes_back_with_other_roles_too() -> None:
    keys = KeysInForce(Configured(keys=(ROOT,)), now)
    keys.take(written(1, key("s", digests=(digest_of(b"root"),))))
    ring = reload(keys, Configured(roles={}))
    assert who(ring, "root") == "key_s"


def test_other_roles_do_not_bring_back_one_that_is_left_out() -> None:
    """The configured key is there still, so the reload has nothing to refuse."""
    keys = KeysInForce(Configured(keys=(ROOT,)), now)
    keys.take(written(1, key("s", digests=(digest_of(b"root"),))))
    ring = reload(keys, Configured(keys=(ROOT,), roles={"admin": ROLES["admin"]}))
    assert who(ring, "root") == ROOT.id


def test_a_configured_tenant_hides_a_stored_one_and_gives_it_back() -> None:
    stored = tenant(ACME, "stage", rev=1)
    keys = KeysInForce(Configured(), now, written(1, stored, key("s", holder=ACME)))
    assert keys.keyring.tenants[ACME] == stored
    ring = reload(keys, Configured(tenants=(tenant(ACME, "prod"),)))
    found = ring.identifier.find(b"s")
    assert found is not None
    assert found.principal.namespaces == frozenset({Namespace("prod")})
    ring = keys.take(written(2, tenant(ACME, "stage", rev=2, disabled_at=1.0)))
    assert who(ring, "s") == "key_s"
    ring = reload(keys, Configured())
    assert ring.tenants[ACME].rev == 2
    assert who(ring, "s") == "tenant_disabled"


def test_a_configured_tenant_that_goes_takes_what_its_keys_may() -> None:
    keys = KeysInForce(
        Configured(tenants=(tenant(ACME, "prod"),)), now, written(1, key("s", holder=ACME))
    )
    ring = reload(keys, Configured())
    assert who(ring, "s") == "tenant_disabled"
    assert ring.tenants == {}


def test_news_and_own_changes_may_overtake_each_other() -> None:
    keys = KeysInForce(Configured(), now)
    made, revoked = key("s", 1), key("s", 2, revoked_at=5.0)
    opened, closed = tenant(ACME, "prod", rev=1), tenant(ACME, "prod", rev=2, disabled_at=1.0)
    keys.take(written(2, revoked, closed))
    ring = keys.take(written(1, made, opened))
    assert who(ring, "s") == "revoked"
    assert ring.tenants[ACME].disabled_at == 1.0
    assert keys.rev == -1  # whoever read everything up to a revision says so, not who wrote one


def test_a_store_that_went_back_in_time_is_what_holds() -> None:
    keys = KeysInForce(Configured(keys=(ROOT,)), now, written(9, key("s", 9, revoked_at=5.0)))
    ring = keys.replace(written(4, key("s", 4), tenant(ACME, "prod", rev=3)))
    assert (who(ring, "s"), who(ring, "root")) == ("key_s", ROOT.id)
    assert keys.rev == 4
    assert who(keys.take(written(5, key("s", 5, disabled_at=1.0))), "s") == "disabled"


def test_the_latest_use_that_anybody_noted_is_what_is_shown() -> None:
    stored = key("s", last_used_at=5.0)
    keys = KeysInForce(Configured(keys=(ROOT,)), now, written(1, stored, key("t")))
    assert (keys.last_used_s(stored), keys.last_used_s(key("t"))) == (5.0, None)
    keys.note_uses({stored.id: 4.0, key("t").id: 6.0})
    assert (keys.last_used_s(stored), keys.last_used_s(key("t"))) == (5.0, 6.0)
    assert keys.last_used_s(ROOT) is None


def test_a_record_that_cannot_be_read_is_said_with_its_mend(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = key("bad", unusable="scope", disabled_at=0.0)
    gone = key("gone", unusable="scope", revoked_at=0.0)
    with caplog.at_level(logging.ERROR):
        KeysInForce(Configured(), now, written(1, bad, gone))
        keys = KeysInForce(Configured(), now)
        keys.take(written(1, bad, gone))
        keys.replace(written(1, bad))
    assert {one.message for one in caplog.records} == {
        "a key of the store cannot be read and opens nothing"
    }
    assert [one.__dict__["key_id"] for one in caplog.records] == [bad.id] * 3
    assert caplog.records[0].__dict__["mend"] == f"open-mcp-gateway keys revoke {bad.id}"
