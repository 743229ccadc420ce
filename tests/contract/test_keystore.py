"""What every key store does, on SQLite and on PostgreSQL."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import msgspec
import pytest

from open_mcp_gateway.access.policy import ROLES, holding_of
from open_mcp_gateway.auth.identify import Reason
from open_mcp_gateway.auth.principal import PLATFORM, Permission
from open_mcp_gateway.auth.records import KeyRecord, Source, TenantRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.errors import Conflict, InvalidConfig, StoreUnavailable
from open_mcp_gateway.keystore import history
from open_mcp_gateway.keystore.store import KeyStore, Remembered, Transaction
from open_mcp_gateway.names import KeyId, Namespace, TenantId
from tests.contract.places import NOW_S, Place, a_key, a_tenant, digest_of, put
from tests.databases import PASSWORD
from tests.environments import ROOT

FULL_KEY = KeyRecord(
    id=KeyId("key_4fTz9QpLm2Xa"),
    holder=TenantId("tenant-a"),
    name="ci ✓ 'quoted' ?%s",
    role="caller",
    scope=ScopeText(namespaces=("production",), tools=(), deny_tools=("github/*",)),
    digests=(digest_of("two"), digest_of("one")),
    hint="mgk_4fTz9QpLm2Xa_...9aQ1",
    ip_allow=(),
    metadata={"repo": "acme/ci", "": "ü"},
    not_before=1.001,
    expires_at=NOW_S + 0.001,
    disabled_at=NOW_S + 0.002,
    revoked_at=NOW_S + 0.003,
    revoke_reason="leaked",
    created_at=NOW_S,
    created_by="config:admin",
    parent=KeyId("config:tenant-a:parent"),
    last_used_at=NOW_S + 0.004,
    source=Source.STORE,
)
FULL_TENANT = TenantRecord(
    id=TenantId("tenant-a"),
    namespaces=(Namespace("production"), Namespace("a")),
    name="Tenant A",
    disabled_at=NOW_S + 1,
    deleted_at=NOW_S + 2,
    created_at=NOW_S,
    source=Source.STORE,
)


@pytest.fixture
def store(place: Place) -> Iterator[KeyStore]:
    opened = place.create()
    yield opened
    opened.close()


def test_a_new_store_is_empty(store: KeyStore) -> None:
    assert store.read() == msgspec.structs.replace(store.read(), rev=0, tenants=(), keys=())
    assert store.warnings == ()


def test_nobody_who_reads_waits_for_a_change(store: KeyStore) -> None:
    store.transact(put(a_key("before")))
    begun, go_on = threading.Event(), threading.Event()

    def slow(change: Transaction) -> None:
        change.put_key(a_key("later"))
        begun.set()
        assert go_on.wait(60)

    with ThreadPoolExecutor(2) as threads:
        changing = threads.submit(store.transact, slow)
        try:
            assert begun.wait(60)
            found = threads.submit(store.read).result(20)
            assert threads.submit(store.used_since, 0.0).result(20) == {}
        finally:
            go_on.set()
        changing.result(60)
    assert [one.name for one in found.keys] == ["before"]
    assert store.read().rev == 2


def test_every_field_comes_back(store: KeyStore, place: Place) -> None:
    _, changes = store.transact(put(FULL_TENANT, FULL_KEY))
    other = place.open()
    kept = other.read()
    other.close()
    assert kept == msgspec.structs.replace(changes, whole=True)
    assert kept.keys == (msgspec.structs.replace(FULL_KEY, rev=1),)
    assert kept.tenants == (msgspec.structs.replace(FULL_TENANT, rev=1),)
    for field in KeyRecord.__struct_fields__:
        assert getattr(FULL_KEY, field) != getattr(a_key("x"), field) or field in {
            *("created_at", "source", "rev", "role", "unusable"),
        }, "the full key leaves no field at what it is by default"


def test_what_is_absent_comes_back_absent(store: KeyStore) -> None:
    store.transact(put(a_key("bare"), a_tenant("bare", namespaces=())))
    kept = store.read()
    assert kept.keys == (a_key("bare", rev=1),)
    assert kept.tenants == (a_tenant("bare", namespaces=(), rev=1),)
    assert kept.keys[0].scope.tools is None
    assert kept.keys[0].holder is PLATFORM


def test_moments_are_given_back_as_they_are_kept(store: KeyStore) -> None:
    given = a_key("k", expires_at=NOW_S + 0.00049)
    written, _ = store.transact(lambda change: change.put_key(given))
    assert written.expires_at == NOW_S
    assert store.read().keys == (written,)


def test_each_change_raises_the_revision_by_one(store: KeyStore) -> None:
    for expected in range(1, 6):
        _, changes = store.transact(put(a_key(f"k{expected}")))
        assert changes.rev == store.read().rev == expected
        assert [one.rev for one in changes.keys] == [expected]


def test_what_writes_nothing_raises_no_revision(store: KeyStore) -> None:
    store.transact(put(a_key("k")))
    result, changes = store.transact(lambda change: change.key(KeyId("key_k")))
    assert result == a_key("k", rev=1)
    assert (changes.rev, changes.keys, changes.tenants) == (1, (), ())


def test_changes_after_a_revision(store: KeyStore) -> None:
    store.transact(put(a_key("old"), a_tenant("old")))
    store.transact(put(a_key("new")))
    store.transact(put(a_tenant("new")))
    since = store.read(1)
    assert since.rev == 3
    assert [one.name for one in since.keys] == ["new"]
    assert [one.id for one in since.tenants] == ["new"]
    assert store.read(3).keys == ()


def test_another_history_is_read_from_its_beginning(store: KeyStore, place: Place) -> None:
    for number in range(3):
        store.transact(put(a_key(f"k{number}")))
    known = store.read()
    assert known.whole
    nothing = store.read(known.rev, known.tag)
    assert (nothing.keys, nothing.whole, nothing.rewritten) == ((), False, False)
    _, own = store.transact(put(a_key("k3")))
    assert own.tag not in {"", known.tag}
    news = store.read(known.rev, known.tag)
    assert ([one.name for one in news.keys], news.whole, news.tag) == (["k3"], False, own.tag)
    store.wait_for_change(1)
    # What a restored backup looks like that has come as far by other changes.
    place.alter("DELETE FROM key_secrets WHERE key_id = 'key_k2'")
    place.alter("DELETE FROM api_keys WHERE id = 'key_k2'")
    place.alter("UPDATE auth_changes SET tag = 'another' || rev WHERE rev > 2")
    assert store.wait_for_change(5)
    for rev, tag in ((3, known.tag), (4, own.tag), (9, own.tag)):
        found = store.read(rev, tag)
        assert found.whole
        assert found.rewritten
        assert [one.name for one in found.keys] == ["k0", "k1", "k3"]
    assert store.read(4).keys == ()


def test_tags_of_old_changes_go(
    store: KeyStore, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "KEPT", 3)
    for number in range(6):
        store.transact(put(a_key(f"k{number}")))
    assert place.ask("SELECT rev FROM auth_changes ORDER BY rev") == [(4,), (5,), (6,)]


def test_who_is_too_far_behind_reads_all_and_is_told_of_no_other_history(
    store: KeyStore, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "KEPT", 3)
    _, known = store.transact(put(a_key("k1")))
    for number in range(2, 4):
        store.transact(put(a_key(f"k{number}")))
    near = store.read(known.rev, known.tag)
    assert ([one.name for one in near.keys], near.whole) == (["k2", "k3"], False)
    _, written = store.transact(put(a_key("k4")), known.rev, known.tag)
    assert not written.rewritten
    far = store.read(known.rev, known.tag)
    assert (len(far.keys), far.whole, far.rewritten) == (4, True, False)
    _, written = store.transact(put(a_key("k5")), known.rev, known.tag)
    assert written.rewritten, "it may be, and must not be passed over"
    place.alter("DELETE FROM auth_changes WHERE rev = 3")
    assert store.read(3, near.tag).rewritten, "it is not too old to be there"


def test_a_store_of_the_first_schema_goes_on(place: Place) -> None:
    store = place.create()
    store.transact(put(a_key("k")))
    store.close()
    place.alter("DROP INDEX api_keys_live_alike")
    place.alter("ALTER TABLE api_keys DROP COLUMN alike")
    place.alter("DROP TABLE auth_changes")
    place.alter("UPDATE auth_meta SET schema = 1")
    again = place.open()
    kept = again.read()
    assert (kept.rev, [one.name for one in kept.keys]) == (1, ["k"])
    assert kept.tag
    again.transact(put(a_key("l")))
    assert [one.name for one in again.read(1, kept.tag).keys] == ["l"]
    again.close()


def test_names_that_are_alike_are_one(store: KeyStore) -> None:
    store.transact(put(a_key("a", name="Größe ci")))
    for name in ("GRÖSSE CI", "gro\u0308ße ci", "\uff27röße ci", "größe \uff43i"):
        taken = a_key("b", name=name)
        assert code_of(lambda: store.transact(put(taken))) == "name_taken"  # noqa: B023
    store.transact(put(a_key("b", name="gross"), a_key("a", name="GRÖSSE CI")))
    assert store.transact(lambda tx: tx.live_key_named(PLATFORM, "größe ci"))[0] is not None


def test_a_store_that_has_names_alike_goes_on(place: Place) -> None:
    """Both keys open, can be changed and revoked; only no third one is made like them."""
    store = place.create()
    store.transact(put(a_key("a", name="ci"), a_key("b", name="other")))
    store.close()
    place.alter("UPDATE api_keys SET name = 'CI' WHERE name = 'other'")
    place.alter("DROP INDEX api_keys_live_alike")
    place.alter("ALTER TABLE api_keys DROP COLUMN alike")
    place.alter("UPDATE auth_meta SET schema = 2")
    again = place.open()
    assert {one.name for one in again.read().keys} == {"ci", "CI"}
    again.transact(put(a_key("b", name="CI", metadata={"still": "changed"})))
    assert code_of(lambda: again.transact(put(a_key("c", name="Ci")))) == "name_taken"
    assert code_of(lambda: again.transact(put(a_key("b", name="Ci")))) == "name_taken"
    again.transact(put(a_key("a", name="ci", revoked_at=NOW_S)))
    again.transact(put(a_key("b", name="Ci")))
    again.transact(put(a_key("b", name="mended"), a_key("c", name="CI")))
    again.close()


def test_what_is_gone_stays_as_such(store: KeyStore) -> None:
    store.transact(put(a_key("k"), a_tenant("t")))
    store.transact(put(a_key("k", revoked_at=NOW_S), a_tenant("t", deleted_at=NOW_S)))
    since = store.read(1)
    assert [one.revoked_at for one in since.keys] == [NOW_S]
    assert [one.deleted_at for one in since.tenants] == [NOW_S]


def code_of(refused: Callable[[], object]) -> str:
    with pytest.raises(Conflict) as caught:
        refused()
    return caught.value.code


def test_live_names_are_unique_for_each_holder(store: KeyStore) -> None:
    tenant = TenantId("t")
    store.transact(put(a_key("a", name="n"), a_key("b", name="n", holder=tenant)))
    assert code_of(lambda: store.transact(put(a_key("c", name="n")))) == "name_taken"
    taken = a_key("c", name="n", holder=tenant)
    assert code_of(lambda: store.transact(put(taken))) == "name_taken"
    store.transact(put(a_key("a", name="n", revoked_at=NOW_S)))
    store.transact(put(a_key("c", name="n")))
    assert code_of(lambda: store.transact(put(a_key("a", name="n")))) == "name_taken"


def test_digests_are_unique_for_ever(store: KeyStore) -> None:
    store.transact(put(a_key("a", revoked_at=NOW_S)))
    other = a_key("b", digests=(digest_of("b"), digest_of("a")))
    assert code_of(lambda: store.transact(put(other))) == "key_taken"
    twice = a_key("b", digests=(digest_of("b"), digest_of("b")))
    assert code_of(lambda: store.transact(put(twice))) == "key_taken"
    assert [one.name for one in store.read().keys] == ["a"]


def test_a_key_can_change_its_digests(store: KeyStore) -> None:
    store.transact(put(a_key("a")))
    store.transact(put(a_key("a", digests=(digest_of("x"), digest_of("a")))))
    assert store.read().keys[0].digests == (digest_of("x"), digest_of("a"))
    found, _ = store.transact(lambda change: change.key_with_digest(digest_of("x")))
    assert found is not None
    assert found.name == "a"


def test_lookups(store: KeyStore) -> None:
    tenant = TenantId("t")
    gone = a_key("gone", name="n", holder=tenant, revoked_at=NOW_S)
    child = a_key("child", holder=tenant, parent=KeyId("key_a"))
    store.transact(put(a_key("a", name="n", holder=tenant), gone, child, a_key("p", name="n")))

    def look(change: Transaction) -> None:
        named = change.live_key_named(tenant, "n")
        assert named is not None
        assert named.id == "key_a"
        assert {one.id for one in change.keys_of(tenant)} == {"key_a", "key_gone", "key_child"}
        assert [one.id for one in change.keys_of(PLATFORM)] == ["key_p"]
        assert change.keys_of(TenantId("")) == []
        assert [one.id for one in change.children_of(KeyId("key_a"))] == ["key_child"]
        assert change.key(KeyId("nobody")) is None
        assert change.key_with_digest(b"") is None
        assert change.live_key_named(PLATFORM, "child") is None
        assert change.tenant(tenant) is None

    store.transact(look)


def test_what_is_raised_undoes_everything(store: KeyStore) -> None:
    def fail(change: Transaction) -> None:
        change.put_key(a_key("k"))
        change.put_tenant(a_tenant("t"))
        raise KeyError("our own")

    with pytest.raises(KeyError, match="our own"):
        store.transact(fail)
    assert store.read().rev == 0
    assert store.read().keys == ()
    assert store.read().tenants == ()
    store.transact(put(a_key("k")))
    assert store.read().rev == 1


@pytest.mark.parametrize(
    "record",
    [
        a_key("k", source=Source.CONFIG),
        a_key("k", created_at=None),
        a_key("k", expires_at=float("inf")),
        a_tenant("t", source=Source.CONFIG),
    ],
)
def test_only_records_of_the_store_are_kept(
    store: KeyStore, record: KeyRecord | TenantRecord
) -> None:
    with pytest.raises(ValueError, match=r"store|finite"):
        store.transact(put(record))
    assert store.read().rev == 0


def test_outcomes_are_remembered_for_a_while(store: KeyStore) -> None:
    first = Remembered(request_sha256=digest_of("r"), key_id=KeyId("key_k"))
    second = msgspec.structs.replace(first, key_id=KeyId("key_l"))
    store.transact(lambda change: change.remember("actor", "i", first, NOW_S))
    store.transact(lambda change: change.remember("other", "i", second, NOW_S))

    def ask(actor: str, after_s: float) -> Remembered | None:
        return store.transact(lambda change: change.remembered(actor, "i", after_s))[0]

    assert ask("actor", NOW_S - 1) == first
    assert ask("other", NOW_S - 1) == second
    assert ask("nobody", NOW_S - 1) is None
    assert ask("actor", NOW_S) is None
    assert ask("actor", 0) is None, "what is too old is forgotten"
    assert store.read().rev == 0


def test_uses_are_noted(store: KeyStore) -> None:
    store.transact(put(a_key("a"), a_key("b")))
    store.note_use({KeyId("key_a"): NOW_S, KeyId("nobody"): NOW_S})
    store.note_use({KeyId("key_a"): NOW_S - 1})
    store.note_use({})
    kept = {one.name: one.last_used_at for one in store.read().keys}
    assert kept == {"a": NOW_S, "b": None}
    assert store.read().rev == 1
    written, _ = store.transact(lambda change: change.put_key(a_key("a", role="viewer")))
    assert written.last_used_at == NOW_S, "a writer that has not seen the use keeps it"


def test_uses_are_found_by_when_they_were(place: Place) -> None:
    one = place.create()
    one.transact(put(a_key("a"), a_key("b"), a_key("never")))
    other = place.open()
    assert other.used_since(0) == {}
    one.note_use({KeyId("key_a"): NOW_S, KeyId("key_b"): NOW_S + 5, KeyId("nobody"): NOW_S})
    assert other.used_since(0) == {"key_a": NOW_S, "key_b": NOW_S + 5}
    assert other.used_since(NOW_S) == {"key_b": NOW_S + 5}
    assert other.used_since(NOW_S + 5) == {}
    one.note_use({KeyId("key_a"): NOW_S + 9, KeyId("key_b"): NOW_S})
    assert other.used_since(NOW_S) == {"key_a": NOW_S + 9, "key_b": NOW_S + 5}
    for store in (one, other):
        store.close()


def test_threads_lose_no_update(store: KeyStore) -> None:
    store.transact(put(a_key("k", metadata={"n": "0"})))

    def one_more(_: int) -> None:
        def work(change: Transaction) -> None:
            record = change.key(KeyId("key_k"))
            assert record is not None
            count = str(int(record.metadata["n"]) + 1)
            change.put_key(msgspec.structs.replace(record, metadata={"n": count}))

        store.transact(work)
        store.note_use({KeyId("key_k"): NOW_S})
        store.read()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(one_more, range(120)))
    assert store.read().keys[0].metadata == {"n": "120"}
    assert store.read().rev == 121


def test_many_make_the_same_store_at_once(place: Place) -> None:
    with ThreadPoolExecutor(6) as threads:
        stores = list(threads.map(lambda _: place.create(), range(6)))
    for number, store in enumerate(stores):
        store.transact(put(a_key(f"k{number}")))
    assert [store.read().rev for store in stores] == [6] * 6
    for store in stores:
        store.close()


def test_other_processes_see_a_change_soon(store: KeyStore, place: Place) -> None:
    command = [sys.executable, "-m", "tests.contract.other_process", place.kind, place.where]
    with subprocess.Popen(
        [*command, "serve"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        delays_s = []
        for number in range(1, 21):
            seen: list[float] = []

            def watch(rev: int = number, seen: list[float] = seen) -> None:
                while store.read(rev - 1).rev < rev:
                    store.wait_for_change(5)
                seen.append(time.monotonic())

            watcher = threading.Thread(target=watch)
            watcher.start()
            print(f"k{number}", file=other.stdin, flush=True)
            committed = float(other.stdout.readline())
            watcher.join()
            delays_s.append(seen[0] - committed)
        other.stdin.close()
    bound_s = 0.3 if place.kind == "sqlite" else 0.5
    # The worst of them say more about the machine that runs the tests.
    assert statistics.median(delays_s) < bound_s


def test_waiting_ends_without_a_change(store: KeyStore, place: Place) -> None:
    assert not store.wait_for_change(0.1)
    other = place.open()
    other.transact(put(a_key("k")))
    other.close()
    assert store.wait_for_change(5)
    assert not store.wait_for_change(0.1)


def test_closing_ends_a_wait(place: Place) -> None:
    store = place.create()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(lambda: store.wait_for_change(60))
        store.close()
        # It either had begun, or found the store closed.
        with suppress(StoreUnavailable):
            assert waiting.result(30) is False
    with pytest.raises(StoreUnavailable):
        store.read()


def test_what_is_not_there_is_not_made(place: Place) -> None:
    with pytest.raises(InvalidConfig, match="open-mcp-gateway keys init") as caught:
        place.open()
    assert PASSWORD not in str(caught.value)
    place.create().close()
    place.create().close()
    place.open().close()


def test_a_later_schema_is_refused(place: Place) -> None:
    store = place.create()
    place.alter("UPDATE auth_meta SET schema = 99")
    with pytest.raises(StoreUnavailable, match="schema 99 now and this process knows 3"):
        store.read()
    with pytest.raises(StoreUnavailable, match="schema 99"):
        store.transact(put(a_key("k")))
    store.close()
    for again in (place.open, place.create):
        with pytest.raises(InvalidConfig, match=r"has schema 99, .* knows schemas up to 3"):
            again()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("scope", """'{"unheard_of": []}'"""),
        ("scope", """'{"tools": ["a*b"]}'"""),
        ("scope", """'{"servers": [""]}'"""),
        ("scope", "''"),
        ("ip_allow", "'null'"),
        ("ip_allow", """'["10.0.0.1/8"]'"""),
        ("ip_allow", """'["everywhere"]'"""),
        ("metadata", "'[]'"),
        ("expires_at", "9223372036854775807"),
    ],
)
def test_a_key_that_says_nothing_clear_grants_nothing_and_can_be_revoked(
    store: KeyStore, place: Place, column: str, value: str
) -> None:
    bad = KeyId("key_bad")
    store.transact(put(a_key("good"), a_key("bad")))
    place.alter(f"UPDATE api_keys SET {column} = {value}, rev = 2 WHERE id = 'key_bad'")
    place.alter("UPDATE auth_meta SET rev = 2")
    found = {one.id: one for one in store.read().keys}
    assert found[a_key("good").id] == a_key("good", rev=1)
    record = found[bad]
    assert record.unusable == column
    assert record.status(NOW_S) == "disabled"
    assert record.ip_allow == ()
    holding = holding_of(record, {}, ROLES)
    assert holding.refusal(NOW_S, "10.0.0.1:1") is Reason.DISABLED
    assert "lab" not in holding.principal.scope.servers
    assert Permission.KEYS_READ not in holding.principal.scope.permissions

    def revoke(change: Transaction) -> None:
        known = change.key(bad)
        assert known is not None
        change.put_key(msgspec.structs.replace(known, revoked_at=NOW_S))

    store.transact(revoke)
    kept = {one.id: one for one in store.read().keys}[bad]
    assert kept.revoked_at == NOW_S
    assert kept.scope.servers == ()


def test_a_tenant_that_says_nothing_clear_reaches_nothing(store: KeyStore, place: Place) -> None:
    store.transact(put(a_tenant("good"), a_tenant("bad")))
    place.alter("UPDATE tenants SET namespaces = '\"production\"' WHERE id = 'bad'")
    bad, good = store.read().tenants
    assert good == a_tenant("good", rev=1)
    assert (bad.unusable, bad.namespaces) == ("namespaces", ())
    assert bad.disabled_at is not None


def test_a_store_that_lost_its_revision_is_none(store: KeyStore, place: Place) -> None:
    place.alter("DELETE FROM auth_meta")
    with pytest.raises(StoreUnavailable):
        store.read()
    with pytest.raises(StoreUnavailable):
        store.transact(lambda change: change.keys_of(PLATFORM) and change.put_key(a_key("l")))


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE api_keys SET tenant_id = NULL",
        "UPDATE api_keys SET tenant_id = ''",
        "UPDATE api_keys SET holder = 'platform'",
    ],
)
def test_a_key_of_a_tenant_does_not_become_one_of_the_platform(
    store: KeyStore, place: Place, damage: str
) -> None:
    store.transact(put(a_key("k", holder=TenantId("t"))))
    with pytest.raises(Exception, match=r"(?i)check constraint"):
        place.alter(damage)
    assert store.read().keys[0].holder == "t"
