"""A key never has more than the one it was made with, whatever changes around them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from open_mcp_gateway.access.authorize import Item, Kind, decide
from open_mcp_gateway.access.explain import Change, Question, Subject, explain
from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.access.policy import ROLES
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.identify import Reason
from open_mcp_gateway.auth.principal import PLATFORM, Permission
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.auth.scope import Patterns, Scope, ScopeText, common, selection, surplus
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.errors import WrongKey
from open_mcp_gateway.names import KeyId, Namespace, ServerId, TenantId
from tests.unit.access.worlds import entry

ALPHA = TenantId("alpha")
TENANT = TenantRecord(id=ALPHA, namespaces=(Namespace("prod"),))
CLIENT = "10.1.0.1:1"
READER = {**ROLES, "reader": ROLES["viewer"], "minter": ROLES["tenant-admin"]}
PROD = entry("pg", "prod")
WORLD = Snapshot({ServerId("pg"): PROD})


def key(name: str, parent: str | None = None, **more: object) -> KeyRecord:
    given = {"holder": ALPHA, "role": "tenant-admin", **more}
    return KeyRecord(
        id=KeyId(name),
        name=name,
        digests=(digest_of(name.encode()),),
        parent=None if parent is None else KeyId(parent),
        **given,  # type: ignore[arg-type]
    )


def ring_of(*keys: KeyRecord, roles: dict[str, frozenset[Permission]] = READER) -> Keyring:
    return Keyring([TENANT], keys, lambda: 1.0, roles=roles)


def may(ring: Keyring, name: str, permission: Permission) -> bool:
    holding = ring.identifier.holding(KeyId(name))
    return holding is not None and holding.principal.may(permission)


def test_a_role_that_is_widened_widens_no_key_beyond_its_maker() -> None:
    keys = [
        key("maker", role="minter"),
        key("child", "maker", role="reader"),
        key("grandchild", "child", role="reader"),
    ]
    before = ring_of(*keys)
    assert not may(before, "child", Permission.CATALOG_RELOAD)
    wide = {**READER, "reader": READER["tenant-admin"], "minter": READER["viewer"]}
    after = ring_of(*keys, roles=wide)
    for name in ("child", "grandchild"):
        assert not may(after, name, Permission.KEYS_WRITE)
        assert may(after, name, Permission.SERVERS_LIST)
        assert after.principal(after.keys[KeyId(name)]).permissions == ROLES["viewer"]


def test_a_parent_that_is_narrowed_narrows_all_below_it() -> None:
    keys = [key("a"), key("b", "a"), key("c", "b"), key("d", role="caller")]
    ring = ring_of(*keys)
    narrowed = replace(keys[0], scope=ScopeText(tools=("pg/read*",)), ip_allow=("10.0.0.0/8",))
    changed = ring.changed([narrowed])
    for name in "abc":
        holding = changed.identifier.identify(name.encode(), CLIENT)
        assert holding.principal.scope.tools == selection(["pg/read*"])
        with pytest.raises(WrongKey) as raised:
            changed.identifier.identify(name.encode(), "11.0.0.1:1")
        assert raised.value.reason == Reason.IP_NOT_ALLOWED
    assert changed.identifier.identify(b"d", "11.0.0.1:1").principal.scope.tools == selection(["*"])
    back = changed.changed([keys[0]])
    for name in "abcd":
        assert back.identifier.identify(name.encode(), CLIENT) == ring.identifier.identify(
            name.encode(), CLIENT
        )


def test_who_was_made_with_nobody_known_or_with_itself_has_nothing() -> None:
    keys = [key("a", "gone"), key("b", "c"), key("c", "b"), key("d", "d"), key("e", "a")]
    ring = ring_of(*keys)
    for name in "abcde":
        principal = ring.principal(ring.keys[KeyId(name)])
        assert not any(principal.may(one) for one in Permission)
    # The maker comes to be known after the key, as when its row could not be read before.
    found = ring.changed([key("gone")])
    assert may(found, "a", Permission.KEYS_WRITE)
    assert may(found, "e", Permission.KEYS_WRITE)
    lost = found.changed(gone=[KeyId("gone")])
    assert not may(lost, "a", Permission.SERVERS_LIST)


def test_what_is_asked_about_a_key_is_answered_along_the_line() -> None:
    """No change of the key itself would do, so none is named."""
    keys = [key("maker", role="viewer"), key("child", "maker", role="tenant-admin")]
    ring = ring_of(*keys)
    child = ring.keys[KeyId("child")]
    subject = Subject(ring.written(child), child.scope, bound=ring.bound(child))
    assert subject.principal == ring.principal(child)
    question = Question(permission=Permission.MCP_CALL, server=ServerId("pg"))
    told = explain(subject.principal, subject, question, WORLD, roles=READER)
    assert (told.allowed, told.code, told.smallest_fix) == (False, "permission_denied", [])


def test_a_namespace_that_its_tenant_lacks_is_given_to_the_whole_line() -> None:
    """Not beyond the tenant, and not by a tenant to a key above it that has another holder."""
    world = Snapshot({ServerId("web"): entry("web", "stage")})
    question = Question(permission=Permission.MCP_CALL, server=ServerId("web"))
    asker = ring_of(key("root", holder=PLATFORM, role="admin"))
    root = asker.principal(asker.keys[KeyId("root")])
    add = Change("add", "/tenants/alpha/namespaces/-", "stage")
    for maker, fix in (
        (key("maker"), [add]),
        (key("maker", role="viewer"), []),
        (key("maker", holder=PLATFORM), [add]),
        (key("maker", holder=PLATFORM, scope=ScopeText(namespaces=("prod",))), []),
    ):
        ring = ring_of(maker, key("child", "maker"))
        child = ring.keys[KeyId("child")]
        subject = Subject(ring.written(child), child.scope, bound=ring.bound(child))
        assert explain(root, subject, question, world, roles=READER).smallest_fix == fix


def test_what_a_key_was_made_with() -> None:
    ring = ring_of(key("a"), key("b", "a", role="viewer"), key("c", "b"), key("d", "gone"))
    bounds = {name: ring.bound(ring.keys[KeyId(name)]) for name in "abcd"}
    assert bounds["a"] is None
    assert bounds["b"] == ring.principal(ring.keys[KeyId("a")])
    assert bounds["c"] == ring.principal(ring.keys[KeyId("b")])
    nobody = bounds["d"]
    assert nobody is not None
    assert (nobody.permissions, nobody.namespaces) == (frozenset(), frozenset())
    assert (nobody.key_id, nobody.role) == ("nobody", "")


TEXTS = ("a", "ab", "abc", "b", "file:///a/x", "file:///a/../x", "file:///a/b")
PATTERNS = st.lists(
    st.sampled_from([*TEXTS, "a*", "ab*", "b*", "file:///a/*", "file:///a/../*", "*"]), max_size=4
)


@given(PATTERNS, PATTERNS)
def test_what_two_selections_have_in_common(one: list[str], other: list[str]) -> None:
    found = common("tools", selection(one), selection(other))
    for text in TEXTS:
        assert (text in found) == (text in selection(one) and text in selection(other))
    for both in (selection(one), selection(other)):
        assert surplus("tools", found, both) == []


@given(PATTERNS, PATTERNS)
def test_no_resource_is_allowed_that_one_of_two_keys_may_not_read(
    one: list[str], other: list[str]
) -> None:
    scopes = [ScopeText(resources=tuple(f"pg/{text}" for text in texts)) for texts in (one, other)]
    keys = [key("a", scope=scopes[0]), key("b", "a", scope=scopes[1])]
    ring = ring_of(*keys)
    alone = [ring.written(record) for record in keys]
    bounded = ring.principal(keys[1])
    for text, kind in itertools.product(TEXTS, (Kind.RESOURCE, Kind.TEMPLATE)):
        item = Item(kind, text)
        expected = all(decide(who, Permission.MCP_CALL, PROD, item).allowed for who in alone)
        assert decide(bounded, Permission.MCP_CALL, PROD, item).allowed == expected
    assert alone[0].scope.includes(bounded.scope)


def test_a_resource_that_steps_back_is_more_than_what_it_begins_with() -> None:
    wide = selection(["fs/file:///a/*"])
    odd = selection(["fs/file:///a/../etc/passwd"])
    assert surplus("resources", odd, wide) == ["fs/file:///a/../etc/passwd"]
    assert surplus("resources", odd, odd) == surplus("resources", odd, selection(["*"])) == []
    assert common("resources", odd, wide) == Patterns()
    scope = ScopeText(resources=("fs/file:///a/*",)).compiled()
    other: Scope = ScopeText(resources=("fs/file:///a/../etc/passwd",)).compiled()
    assert not scope.includes(other)


def test_a_key_of_the_platform_with_a_tenant_below_it() -> None:
    """The tenant of the key itself counts, and what the scope above it leaves of that."""
    head = key("head", holder=PLATFORM, role="admin", scope=ScopeText(namespaces=("dev",)))
    ring = ring_of(head, key("child", "head"))
    child = ring.principal(ring.keys[KeyId("child")])
    assert child.namespaces == frozenset({Namespace("prod")})
    assert not decide(child, Permission.SERVERS_READ, PROD).allowed
