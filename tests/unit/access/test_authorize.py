"""The decision, against an independent evaluator over a small world, and the proofs it gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_mcp_gateway.access.authorize import (
    Code,
    Decision,
    Item,
    Kind,
    Permits,
    Rule,
    authorize,
    authorize_by_id,
    decide,
    decide_gateway,
    may_use,
    require,
    visible,
)
from open_mcp_gateway.access.policy import ROLES
from open_mcp_gateway.auth.identify import anonymous
from open_mcp_gateway.auth.principal import PLATFORM, Permission, Principal
from open_mcp_gateway.auth.scope import EVERYTHING, UNNARROWED, Everything, Scope, ScopeText
from open_mcp_gateway.catalog.model import CatalogEntry, LocalProcess, ServerSpec, Snapshot
from open_mcp_gateway.errors import Conflict, Denied, GatewayError, NotFound
from open_mcp_gateway.names import KeyId, Namespace, ServerId

SCOPES: list[frozenset[Namespace] | Everything] = [
    frozenset(),
    frozenset({Namespace("production")}),
    frozenset({Namespace("staging"), Namespace("default")}),
    EVERYTHING,
]


def entry(server_id: str, namespace: str = "default") -> CatalogEntry:
    spec = ServerSpec(
        id=ServerId(server_id), namespace=Namespace(namespace), runtime=LocalProcess(command="true")
    )
    return CatalogEntry(spec=spec, shown=spec, runtime_type="local-process")


def principal(
    permissions: frozenset[Permission],
    namespaces: frozenset[Namespace] | Everything = EVERYTHING,
    scope: Scope = UNNARROWED,
) -> Principal:
    return Principal(
        key_id=KeyId("k"),
        holder=PLATFORM,
        role="test",
        permissions=permissions,
        namespaces=namespaces,
        scope=scope,
    )


WORLD = Snapshot(
    {
        item.spec.id: item
        for item in (entry("pg", "production"), entry("time"), entry("git", "staging"))
    }
)
POWERS = [*ROLES.values(), frozenset[Permission](), frozenset({Permission.MCP_CALL})]


def oracle(who: Principal, permission: Permission, item: CatalogEntry | None) -> str:
    """The rules again, as plainly as they can be put."""
    if item is None:
        return "not_found"
    if not isinstance(who.namespaces, Everything) and item.spec.namespace not in who.namespaces:
        return "not_found"
    if permission in who.permissions:
        return "allowed"
    return "permission_denied" if Permission.SERVERS_READ in who.permissions else "not_found"


def _named(scope: object) -> str:
    """The same in every process: the order of a set is not."""
    return ",".join(sorted(scope)) if isinstance(scope, frozenset) else repr(scope)


@pytest.mark.parametrize("scope", SCOPES, ids=_named)
@pytest.mark.parametrize("powers", POWERS, ids=sorted)
def test_every_small_case(
    powers: frozenset[Permission], scope: frozenset[Namespace] | Everything
) -> None:
    who = principal(powers, scope)
    for permission, item in itertools.product(Permission, [*WORLD.entries.values(), None]):
        decision = decide(who, permission, item)
        assert decision.code == oracle(who, permission, item)
        assert decision.allowed is (decision.code is Code.ALLOWED)
        assert_trail_explains(decision)


def assert_trail_explains(decision: Decision) -> None:
    assert decision.trail
    assert decision.allowed is all(check.ok for check in decision.trail)
    rules = [check.rule for check in decision.trail]
    assert rules == [rule for rule in Rule if rule in rules]


@given(
    st.frozensets(st.sampled_from(Permission)),
    st.frozensets(st.sampled_from(Permission)),
    st.sampled_from(SCOPES),
    st.sampled_from(Permission),
    st.sampled_from(list(WORLD.entries.values())),
)
def test_taking_away_never_gives(
    powers: frozenset[Permission],
    taken: frozenset[Permission],
    scope: frozenset[Namespace] | Everything,
    permission: Permission,
    item: CatalogEntry,
) -> None:
    lesser = decide(principal(powers - taken, scope), permission, item)
    assert not lesser.allowed or decide(principal(powers, scope), permission, item).allowed
    assert not lesser.allowed or decide(principal(powers), permission, item).allowed
    assert not decide(principal(powers, frozenset()), permission, item).allowed


def test_the_trail_names_what_was_looked_at() -> None:
    who = principal(ROLES["viewer"], frozenset({Namespace("default")}))
    denied = decide(who, Permission.SERVERS_START, WORLD.entries[ServerId("time")])
    assert [(check.rule, check.subject, check.ok) for check in denied.trail] == [
        (Rule.EXISTS, "time", True),
        (Rule.NAMESPACE, "default", True),
        (Rule.OWN_NAMESPACE, "default", True),
        (Rule.SERVER, "time", True),
        (Rule.PERMISSION, "servers:start", False),
        (Rule.OWN_PERMISSION, "servers:start", True),
        (Rule.READABLE, "servers:read", True),
    ]
    hidden = decide(who, Permission.SERVERS_READ, WORLD.entries[ServerId("pg")])
    assert [(check.rule, check.subject) for check in hidden.trail if not check.ok] == [
        (Rule.NAMESPACE, "production"),
    ]


def test_a_missing_server_is_looked_for_like_any_other() -> None:
    """By names that nothing can have; what is allowed everything passes all but the first rule."""
    missing = decide(principal(ROLES["admin"]), Permission.SERVERS_READ, None)
    assert [(check.rule, check.subject, check.ok) for check in missing.trail] == [
        (Rule.EXISTS, "?", False),
        (Rule.NAMESPACE, "?", True),
        (Rule.OWN_NAMESPACE, "?", True),
        (Rule.SERVER, "?", True),
    ]


def test_the_words_of_a_decision() -> None:
    """They are part of answers."""
    assert list(Code) == ["allowed", "not_found", "permission_denied", "not_in_scope"]
    assert list(Kind) == ["tool", "resource", "template", "prompt"]
    assert list(Rule) == [
        "the server is in the catalog",
        "the server's namespace is one of the tenant's",
        "the server's namespace is one of the key's",
        "the server is one of the key's",
        "the role grants the permission",
        "the key keeps the permission",
        "the caller may read the server",
        "the tool is one of the key's",
        "the tool is not one that the key denies",
        "the resource is one of the key's",
        "the resource is named in full, or cannot step back out of what is named",
        "the prompt is one of the key's",
        "each namespace of the tenant is one of the key's",
        "the key may call everything in a namespace",
    ]


def test_a_permit_says_what_was_decided() -> None:
    who = principal(ROLES["caller"])
    item = WORLD.entries[ServerId("pg")]
    for permit in (
        authorize(who, Permission.MCP_CALL, item),
        authorize_by_id(who, Permission.MCP_CALL, WORLD, "pg"),
    ):
        assert permit.principal is who
        assert permit.permission is Permission.MCP_CALL
        assert permit.entry is item


def test_denied_names_permission_and_resource() -> None:
    who = principal(ROLES["viewer"])
    attempts: list[Callable[[], object]] = [
        lambda: authorize(who, Permission.SERVERS_STOP, WORLD.entries[ServerId("pg")]),
        lambda: authorize_by_id(who, Permission.SERVERS_STOP, WORLD, "pg"),
    ]
    for attempt in attempts:
        with pytest.raises(Denied) as caught:
            attempt()
        assert caught.value.permission == "servers:stop"
        assert caught.value.resource == "server/pg"
        assert "servers:stop" in caught.value.public


def seen(attempt: Callable[[], object]) -> tuple[object, ...]:
    """All that the outside can learn from a refusal."""
    with pytest.raises(GatewayError) as caught:
        attempt()
    error = caught.value
    return type(error), error.args, error.public, error.code, error.retry_after_s, vars(error)


@pytest.mark.parametrize("permission", Permission)
@pytest.mark.parametrize(
    "who",
    [
        principal(ROLES["admin"], frozenset({Namespace("default")})),
        principal(ROLES["viewer"], frozenset()),
        principal(frozenset()),
    ],
    ids=["other namespace", "no namespace", "no rights"],
)
def test_hidden_is_as_missing(who: Principal, permission: Permission) -> None:
    without = Snapshot({name: item for name, item in WORLD.entries.items() if name != "pg"})
    hidden = seen(lambda: authorize_by_id(who, permission, WORLD, "pg"))
    missing = seen(lambda: authorize_by_id(who, permission, without, "pg"))
    assert hidden == missing
    assert hidden == seen(lambda: authorize(who, permission, WORLD.entries[ServerId("pg")]))
    assert hidden[0] is NotFound
    assert hidden[2] == "Server 'pg' not found"


@pytest.mark.parametrize("name", ["", "PG", "pg ", "pg\x00", "../pg", "none", "\ud800"])
def test_a_server_has_one_name(name: str) -> None:
    with pytest.raises(NotFound) as caught:
        authorize_by_id(principal(ROLES["admin"]), Permission.MCP_CALL, WORLD, name)
    assert caught.value.public == f"Server '{name}' not found"


def test_an_endless_name_is_not_repeated() -> None:
    with pytest.raises(NotFound) as caught:
        authorize_by_id(principal(ROLES["admin"]), Permission.MCP_CALL, WORLD, "x" * 100_000)
    assert caught.value.public == f"Server '{'x' * 64}' not found"


@pytest.mark.parametrize("permission", Permission)
def test_rights_on_the_gateway_itself(permission: Permission) -> None:
    holder = principal(frozenset({permission}), frozenset())
    clearance = require(holder, permission)
    assert clearance.principal is holder
    assert clearance.permission is permission
    assert_trail_explains_gateway(decide_gateway(holder, permission))
    with pytest.raises(Denied) as caught:
        require(principal(frozenset(Permission) - {permission}), permission)
    assert caught.value.permission == permission
    assert caught.value.resource == "gateway"
    assert_trail_explains_gateway(decide_gateway(principal(frozenset()), permission))


def assert_trail_explains_gateway(decision: Decision) -> None:
    assert decision.code == ("allowed" if decision.allowed else "permission_denied")
    assert decision.allowed is all(check.ok for check in decision.trail)
    assert [check.rule for check in decision.trail] == [Rule.PERMISSION, Rule.OWN_PERMISSION]


@pytest.mark.parametrize("scope", SCOPES, ids=_named)
@pytest.mark.parametrize("powers", POWERS, ids=sorted)
def test_a_list_is_what_checks_allow(
    powers: frozenset[Permission], scope: frozenset[Namespace] | Everything
) -> None:
    who = principal(powers, scope)
    for permission in Permission:
        listed = visible(who, WORLD, permission)
        assert listed == [
            item for item in WORLD.entries.values() if oracle(who, permission, item) == "allowed"
        ]
    assert visible(who, WORLD) == visible(who, WORLD, Permission.SERVERS_LIST)


@pytest.mark.parametrize(
    ("scope", "tools", "resources", "prompts"),
    [
        (ScopeText(), {"query", "drop"}, {"query", "drop"}, {"query", "drop"}),
        (ScopeText(tools=("pg/query",)), {"query"}, set(), set()),
        (ScopeText(tools=("pg/q*",), prompts=("*",)), {"query"}, set(), {"query", "drop"}),
        (ScopeText(tools=("git/*",)), set(), set(), set()),
        (ScopeText(tools=()), set(), set(), set()),
        (ScopeText(deny_tools=("pg/d*",)), {"query"}, {"query", "drop"}, {"query", "drop"}),
        (ScopeText(deny_tools=("*",)), set(), {"query", "drop"}, {"query", "drop"}),
        (ScopeText(resources=("pg/drop",)), {"query", "drop"}, {"drop"}, {"query", "drop"}),
    ],
)
def test_parts_of_a_server(
    scope: ScopeText, tools: set[str], resources: set[str], prompts: set[str]
) -> None:
    who = principal(ROLES["caller"], scope=scope.compiled())
    permit = authorize(who, Permission.MCP_CALL, WORLD.entries[ServerId("pg")])
    expected = {Kind.TOOL: tools, Kind.RESOURCE: resources, Kind.PROMPT: prompts}
    expected[Kind.TEMPLATE] = resources  # one in which there is nothing to fill in
    for kind, name in itertools.product(Kind, ("query", "drop")):
        item = Item(kind, name)
        decision = decide(who, Permission.MCP_CALL, permit.entry, item)
        assert may_use(permit, item) is decision.allowed is (name in expected[kind])
        assert decision.code in {Code.ALLOWED, Code.NOT_IN_SCOPE}
        assert_trail_explains(decision)


@pytest.mark.parametrize(
    ("kind", "name", "among", "straight"),
    [
        (Kind.RESOURCE, "file:///a/b", True, True),
        (Kind.RESOURCE, "file:///a/../b", True, False),
        (Kind.RESOURCE, "file:///b", False, None),
        (Kind.RESOURCE, "../b", False, None),
        (Kind.RESOURCE, "x/../y", True, None),
        (Kind.RESOURCE, "{x}", True, None),
        (Kind.RESOURCE, "file:///a/{x}", True, True),
        (Kind.TEMPLATE, "file:///a/{x}", True, True),
        (Kind.TEMPLATE, "file:///a/../{x}", True, False),
        (Kind.TEMPLATE, "file:///{x}", False, None),
        (Kind.TEMPLATE, "{x}", False, None),
        (Kind.TEMPLATE, "mem:{x}/y", False, None),
        (Kind.TEMPLATE, "x/../y", True, None),
        (Kind.TEMPLATE, "file:///a/b", True, True),
    ],
)
def test_resources(kind: Kind, name: str, among: bool, straight: bool | None) -> None:
    """A beginning must not be stepped out of, and takes a template only with all it expands to;
    what is named in full needs no second look (None)."""
    named = ScopeText(resources=("pg/file:///a/*", "pg/mem:{x}*", "pg/x/../y", "pg/{x}"))
    who = principal(ROLES["caller"], scope=named.compiled())
    pg = WORLD.entries[ServerId("pg")]
    decision = decide(who, Permission.MCP_CALL, pg, Item(kind, name))
    looked_at = [(Rule.RESOURCE, among), (Rule.STRAIGHT, straight)]
    assert [(check.rule, check.subject, check.ok) for check in decision.trail[6:]] == [
        (rule, f"pg/{name}", ok) for rule, ok in looked_at if ok is not None
    ]
    assert decision.allowed is (among and straight is not False)


def test_a_key_keeps_less_than_its_role() -> None:
    kept = ScopeText(permissions=("servers:read",), servers=("pg", "t*"), namespaces=("default",))
    who = principal(ROLES["admin"], scope=kept.compiled())
    assert visible(who, WORLD, Permission.SERVERS_READ) == [WORLD.entries[ServerId("time")]]
    assert visible(who, WORLD) == []
    with pytest.raises(Denied):
        authorize_by_id(who, Permission.SERVERS_START, WORLD, "time")
    for hidden in ("pg", "git"):
        with pytest.raises(NotFound):
            authorize_by_id(who, Permission.SERVERS_READ, WORLD, hidden)
    with pytest.raises(Denied):
        require(who, Permission.KEYS_READ)


def test_permits_are_kept_for_who_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    permits = Permits(WORLD, Permission.MCP_CALL)
    who, other = principal(ROLES["caller"]), principal(ROLES["operator"])
    first = permits.get(who, "pg")
    assert permits.get(principal(ROLES["caller"]), "pg") is first
    assert permits.get(other, "pg").principal == other
    assert permits.get(who, "time").entry.spec.id == "time"
    with pytest.raises(Denied):
        permits.get(principal(ROLES["viewer"]), "pg")
    with pytest.raises(NotFound):
        permits.get(who, "none")
    monkeypatch.setattr("open_mcp_gateway.access.authorize._MAX_KEPT", 1)
    assert permits.get(who, "git").entry.spec.id == "git"
    assert permits.get(who, "pg") == first


def test_permits_are_kept_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("open_mcp_gateway.access.authorize._MAX_KEPT", 2)
    permits, who = Permits(WORLD, Permission.MCP_CALL), principal(ROLES["caller"])
    first, second = permits.get(who, "pg"), permits.get(who, "time")
    assert permits.get(who, "pg") is first
    assert permits.get(who, "time") is second
    third = permits.get(who, "git")
    assert permits.get(who, "git") is third
    assert permits.get(who, "pg") is not first


def test_without_authentication_there_are_no_keys_to_manage() -> None:
    nobody = anonymous()
    for permission in set(Permission) - nobody.permissions:
        about_keys = permission != Permission.EXPLAIN_ANY
        with pytest.raises(Conflict if about_keys else Denied) as caught:
            require(nobody, permission)
        assert caught.value.code == ("auth_disabled" if about_keys else "permission_denied")
    with pytest.raises(Denied):
        require(principal(ROLES["viewer"]), Permission.KEYS_READ)
