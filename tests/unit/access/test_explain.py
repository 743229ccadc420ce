"""Every fix that is told works when it is made, and no part of it works alone."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from open_mcp_gateway.access.authorize import Item, Kind, decide
from open_mcp_gateway.access.explain import (
    HIDDEN,
    Change,
    Explanation,
    Question,
    Step,
    Subject,
    explain,
)
from open_mcp_gateway.access.policy import OF_PLATFORM, ROLES, platform_admin, principal_of
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.identify import Reason
from open_mcp_gateway.auth.principal import PLATFORM, Permission, Platform, Principal
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.names import Namespace, ServerId
from tests.unit.access.worlds import ALPHA, TENANT, Case, cases, entry, naive, record

ROOT: Principal = principal_of(platform_admin(digest_of(b"test-key-root")), {}, ROLES)


def subject_of(case: Case) -> Subject:
    who = principal_of(case.record, {case.tenant.id: case.tenant}, ROLES)
    return Subject(who, case.record.scope)


def told(case: Case, asker: Principal = ROOT) -> Explanation:
    server = case.entry.spec.id
    question = Question(permission=case.permission, server=server, item=case.item)
    return explain(asker, subject_of(case), question, Snapshot({server: case.entry}), roles=ROLES)


def patched(case: Case, changes: list[Change]) -> Case:
    """The case after the changes, made the way RFC 6902 says, on plain documents."""
    key = {
        "role": case.record.role,
        "scope": msgspec.json.decode(msgspec.json.encode(case.record.scope)),
    }
    tenants = {case.tenant.id: {"namespaces": list(case.tenant.namespaces)}}
    document: dict[str, Any] = {**key, "tenants": tenants}
    for change in changes:
        *way, last = change.path.removeprefix("/").split("/")
        place: Any = document
        for step in way:
            place = place[step]
        if isinstance(place, list):
            if change.op == "add" and last == "-":
                place.append(change.value)
            else:
                assert change.op == "remove"
                del place[int(last)]
        else:
            assert change.op == ("replace" if last in place else "add")
            place[last] = change.value
    scope = msgspec.convert(document["scope"], ScopeText)
    namespaces = tuple(Namespace(one) for one in tenants[case.tenant.id]["namespaces"])
    return replace(
        case,
        record=replace(case.record, role=document["role"], scope=scope),
        tenant=replace(case.tenant, namespaces=namespaces),
    )


@given(cases())
@settings(max_examples=800)
def test_a_fix_works_and_no_part_of_it_does(case: Case) -> None:
    answer = told(case)
    assert answer.code == naive(case)
    assert answer.allowed is (answer.code == "allowed")
    fix = answer.smallest_fix
    assert isinstance(fix, list)
    if answer.allowed:
        assert fix == []
        return
    if not fix:
        of_tenant = not isinstance(case.record.holder, Platform)
        assert of_tenant
        assert case.permission in OF_PLATFORM
        return
    assert naive(patched(case, fix)) == "allowed"
    for size in range(len(fix)):
        for part in itertools.combinations(fix, size):
            assert naive(patched(case, list(part))) != "allowed"


@given(cases())
@settings(max_examples=200)
def test_a_role_is_the_smallest_that_takes_nothing_away(case: Case) -> None:
    fix = told(case).smallest_fix
    assert isinstance(fix, list)
    for change in fix:
        if change.path == "/role":
            before = principal_of(case.record, {ALPHA: case.tenant}, ROLES).permissions
            wanted = before | {case.permission}
            chosen = ROLES[str(change.value)]
            assert wanted <= chosen
            assert not any(wanted <= other < chosen for other in ROLES.values())


@given(cases(), cases())
@settings(max_examples=300)
def test_nothing_is_told_of_what_the_asker_may_not_read(case: Case, other: Case) -> None:
    asker = subject_of(replace(other, tenant=case.tenant)).principal
    answer = told(case, asker)
    if not decide(asker, Permission.SERVERS_READ, case.entry).allowed:
        own_and_allowed = asker == subject_of(case).principal and naive(case) == "allowed"
        assert own_and_allowed or answer == HIDDEN
    else:
        assert answer != HIDDEN


def test_hidden_says_nothing() -> None:
    assert msgspec.json.encode(HIDDEN) == b'{"allowed":false,"code":"not_found"}'


PG = entry("pg", "prod")
WORLD = Snapshot({PG.spec.id: PG})
CALL = Question(permission=Permission.MCP_CALL, server=PG.spec.id)


def about(scope: ScopeText, question: Question = CALL, role: str = "caller") -> Explanation:
    who = principal_of(record(ALPHA, role, scope), {ALPHA: TENANT}, ROLES)
    return explain(ROOT, Subject(who, scope), question, WORLD, roles=ROLES)


def tool(name: str, kind: Kind = Kind.TOOL) -> Question:
    return replace(CALL, item=Item(kind, name))


@pytest.mark.parametrize("kind", Kind)
def test_a_name_that_would_be_a_pattern_is_not_proposed(kind: Kind) -> None:
    answer = about(ScopeText(tools=()), tool("que*", kind))
    assert (answer.allowed, answer.smallest_fix) == (False, [])


def test_every_pattern_that_denies_has_to_go() -> None:
    scope = ScopeText(deny_tools=("pg/d*", "git/*", "pg/drop", "*"))
    assert about(scope, tool("drop")).smallest_fix == [
        Change("remove", "/scope/deny_tools/3"),
        Change("remove", "/scope/deny_tools/2"),
        Change("remove", "/scope/deny_tools/0"),
    ]


def test_causes_behind_causes_are_found() -> None:
    scope = ScopeText(servers=(), permissions=("servers:read",), tools=("git/*",))
    answer = about(scope, tool("query"), role="viewer")
    assert answer.smallest_fix == [
        Change("add", "/scope/servers/-", "pg"),
        Change("replace", "/role", "caller"),
        Change("add", "/scope/permissions/-", "mcp:call"),
        Change("add", "/scope/tools/-", "pg/query"),
    ]


def test_a_list_that_is_not_there_is_added_as_a_whole() -> None:
    """Whoever names tools means no resources, without a list of them to add to."""
    answer = about(ScopeText(tools=("pg/query",)), tool("a", Kind.RESOURCE))
    assert answer.smallest_fix == [Change("add", "/scope/resources", ["pg/a"])]


def test_no_role_grants_it() -> None:
    who = replace(ROOT, role="custom", permissions=frozenset({Permission.SERVERS_READ}))
    question = Question(permission=Permission.MCP_CALL)
    answer = explain(
        who, Subject(who, ScopeText()), question, WORLD, roles={"viewer": ROLES["viewer"]}
    )
    assert (answer.code, answer.smallest_fix) == ("permission_denied", [])


def test_a_key_of_the_platform_is_in_every_namespace_already() -> None:
    who = replace(ROOT, namespaces=frozenset())
    answer = explain(ROOT, Subject(who, ScopeText()), CALL, WORLD, roles=ROLES)
    assert who.holder is PLATFORM
    assert (answer.allowed, answer.smallest_fix) == (False, [])


def test_a_dead_key_is_not_mended_by_rights() -> None:
    who = Subject(ROOT, ScopeText(), Reason.REVOKED)
    answer = explain(ROOT, who, CALL, WORLD, roles=ROLES, shows_life=True)
    assert (answer.allowed, answer.code, answer.smallest_fix) == (False, "key_not_live", [])


@given(st.sampled_from(Permission), st.sampled_from(sorted(ROLES)))
def test_the_gateway_itself(permission: Permission, role: str) -> None:
    answer = about(ScopeText(), Question(permission=permission), role)
    assert answer.allowed is (permission in ROLES[role] - OF_PLATFORM)
    assert (answer.smallest_fix == []) is (answer.allowed or permission in OF_PLATFORM)


def test_a_missing_server() -> None:
    question = replace(CALL, server=ServerId("none"))
    assert about(ScopeText(), question) == HIDDEN


def test_nothing_names_a_template_that_reaches_further() -> None:
    asked = tool("file:///{x}", Kind.TEMPLATE)
    answer = about(ScopeText(resources=("pg/file:///a/*",)), asked)
    assert (answer.allowed, answer.smallest_fix) == (False, [])


@pytest.mark.parametrize(
    ("scope", "question", "rule", "subject", "have"),
    [
        (
            ScopeText(namespaces=("dev", "s*")),
            CALL,
            *("the server's namespace is one of the key's", "prod", ["dev", "s*"]),
        ),
        (ScopeText(servers=("git",)), CALL, "the server is one of the key's", "pg", ["git"]),
        (
            ScopeText(permissions=("servers:*",)),
            CALL,
            *("the key keeps the permission", "mcp:call", ["servers:*"]),
        ),
        (
            ScopeText(tools=("pg/x",)),
            tool("drop"),
            *("the tool is one of the key's", "pg/drop", ["pg/x"]),
        ),
        (
            ScopeText(deny_tools=("pg/d*", "git/*")),
            tool("drop"),
            *("the tool is not one that the key denies", "pg/drop", ["git/*", "pg/d*"]),
        ),
        (
            ScopeText(resources=("pg/x",)),
            tool("a", Kind.RESOURCE),
            *("the resource is one of the key's", "pg/a", ["pg/x"]),
        ),
        (
            ScopeText(resources=("pg/*",)),
            tool("../a", Kind.RESOURCE),
            "the resource is named in full, or cannot step back out of what is named",
            *("pg/../a", ["pg/*"]),
        ),
        (
            ScopeText(prompts=()),
            tool("a", Kind.PROMPT),
            *("the prompt is one of the key's", "pg/a", []),
        ),
    ],
)
def test_the_trail_says_what_the_key_has(
    scope: ScopeText, question: Question, rule: str, subject: str, have: list[str]
) -> None:
    trail = about(scope, question).trail
    assert isinstance(trail, list)
    assert [one for one in trail if not one.ok] == [Step(rule, subject, False, have)]
    assert all(one.have is msgspec.UNSET for one in trail if one.ok)
    assert trail[0] == Step("the server is in the catalog", "pg", True)


def test_the_trail_says_what_role_and_tenant_have() -> None:
    who = principal_of(record(ALPHA, "viewer", ScopeText()), {ALPHA: TENANT}, ROLES)
    world = Snapshot({PG.spec.id: PG, ServerId("web"): entry("web", "stage")})
    failed = []
    for question in (CALL, replace(CALL, server=ServerId("web"))):
        trail = explain(ROOT, Subject(who, ScopeText()), question, world, roles=ROLES).trail
        assert isinstance(trail, list)
        failed.append([one for one in trail if not one.ok])
    has = ["servers:list", "servers:read", "stats:read"]
    assert failed == [
        [Step("the role grants the permission", "mcp:call", False, has)],
        [Step("the server's namespace is one of the tenant's", "stage", False, ["dev", "prod"])],
    ]


def test_who_may_not_read_the_server_has_nothing_to_show_for_it() -> None:
    trail = about(ScopeText(permissions=("servers:list",))).trail
    assert isinstance(trail, list)
    assert trail[-1] == Step("the caller may read the server", "servers:read", False)


def test_the_trail_begins_with_the_life_of_the_key_where_that_is_asked() -> None:
    for reason, have in ((None, msgspec.UNSET), (Reason.EXPIRED, ["expired"])):
        who = Subject(ROOT, ScopeText(), reason)
        without = explain(ROOT, who, CALL, WORLD, roles=ROLES).trail
        trail = explain(ROOT, who, CALL, WORLD, roles=ROLES, shows_life=True).trail
        assert isinstance(without, list)
        assert trail == [Step("key_live", ROOT.key_id, reason is None, have), *without]
        assert without[0].check == "the server is in the catalog"


@pytest.mark.parametrize("kept", [("mcp:call",), ("servers:list",)])
def test_a_key_that_reads_no_servers_hears_only_of_what_it_may_do(kept: tuple[str, ...]) -> None:
    """That it may call is no news to it; why it may not would tell that the server is there."""
    scope = ScopeText(permissions=kept)
    own = principal_of(record(ALPHA, "caller", scope), {ALPHA: TENANT}, ROLES)
    other = replace(own, scope=ScopeText(permissions=("mcp:*",)).compiled())
    answer = explain(own, Subject(own, scope), CALL, WORLD, roles=ROLES)
    assert answer.allowed is (kept == ("mcp:call",))
    assert answer.allowed or answer == HIDDEN
    assert explain(own, Subject(other, scope), CALL, WORLD, roles=ROLES) == HIDDEN


def test_the_least_role_is_the_first_by_name_of_the_smallest() -> None:
    both = {Permission.MCP_CALL, *ROLES["viewer"]}
    roles = {
        "c": frozenset({*both, Permission.SERVERS_START}),
        "b": frozenset(both),
        "a": frozenset(both),
    }
    who = principal_of(record(ALPHA, "viewer", ScopeText()), {ALPHA: TENANT}, ROLES)
    answer = explain(ROOT, Subject(who, ScopeText()), CALL, WORLD, roles=roles)
    assert answer.smallest_fix == [Change("replace", "/role", "a")]
