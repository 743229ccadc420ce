"""The policy against an evaluator that shares nothing with it, and the laws both must keep."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from open_mcp_gateway.access.authorize import Decision, decide
from open_mcp_gateway.access.policy import ROLES, principal_of
from open_mcp_gateway.auth.principal import Principal
from open_mcp_gateway.auth.records import KeyRecord
from tests.unit.access.worlds import (
    HOLDERS,
    SCOPES,
    TENANT,
    Case,
    cases,
    naive,
    random_cases,
    small_world,
)


def decision_on(case: Case) -> Decision:
    who = principal_of(case.record, {case.tenant.id: case.tenant}, ROLES)
    return decide(who, case.permission, case.entry, case.item)


def test_the_whole_small_world() -> None:
    differences, count, allowed = [], 0, 0
    known: dict[int, tuple[KeyRecord, Principal]] = {}
    for case in small_world():
        count += 1
        key = case.record
        if id(key) not in known:
            known[id(key)] = key, principal_of(key, {TENANT.id: TENANT}, ROLES)
        decision = decide(known[id(key)][1], case.permission, case.entry, case.item)
        allowed += decision.allowed
        if decision.code != naive(case):
            differences.append(case)
    assert differences == []
    assert count == 6 * len(SCOPES) * len(HOLDERS) * 3 * 4 * 3 * 13
    assert len(SCOPES) == 27
    assert 0 < allowed < count / 2


@given(cases())
@settings(max_examples=500)
def test_any_case(case: Case) -> None:
    decision = decision_on(case)
    assert decision.code == naive(case)
    assert decision.allowed is all(check.ok for check in decision.trail)


@pytest.mark.long("100,000 decisions")
def test_very_many_cases() -> None:
    allowed = 0
    for case in random_cases(100_000):
        decision = decision_on(case)
        allowed += decision.allowed
        assert decision.code == naive(case), case
    assert allowed > 5_000


_MEMBERS = ("permissions", "namespaces", "servers", "tools", "resources", "prompts")


def assert_never_more(lesser: Case, greater: Case) -> None:
    assert not decision_on(lesser).allowed or decision_on(greater).allowed


def narrowed(case: Case, member: str, keeps: int) -> Case:
    """The case with one more restriction: a list where there was none, or a shorter one."""
    written = getattr(case.record.scope, member)
    if (
        written is None
        and member in {"resources", "prompts"}
        and case.record.scope.tools is not None
    ):
        # Named tools have closed it already: naming some is no restriction here, but the way back.
        keeps = 0
    less = ("pg/query", "prod", "pg", "mcp:call")[:keeps] if written is None else written[:keeps]
    scope = replace(case.record.scope, **{member: less})
    return replace(case, record=replace(case.record, scope=scope))


@given(cases(), st.sampled_from(_MEMBERS), st.integers(0, 4))
@settings(max_examples=400)
def test_a_restriction_never_gives(case: Case, member: str, keeps: int) -> None:
    assert_never_more(narrowed(case, member, keeps), case)


@given(cases(), st.sampled_from(["pg/query", "pg/*", "*", "git/d*"]))
@settings(max_examples=150)
def test_denying_more_never_gives(case: Case, pattern: str) -> None:
    scope = case.record.scope
    more = replace(scope, deny_tools=(*(scope.deny_tools or ()), pattern))
    assert_never_more(replace(case, record=replace(case.record, scope=more)), case)


@given(cases(), st.integers(0, 1))
@settings(max_examples=150)
def test_a_smaller_tenant_never_gives(case: Case, keeps: int) -> None:
    tenant = replace(case.tenant, namespaces=case.tenant.namespaces[:keeps])
    assert_never_more(replace(case, tenant=tenant), case)


@given(cases())
@settings(max_examples=300)
def test_a_greater_role_never_takes(case: Case) -> None:
    chain = ("none", "viewer", "caller", "operator", "tenant-admin", "admin")
    as_roles = [replace(case, record=replace(case.record, role=role)) for role in chain]
    for lesser, greater in itertools.pairwise(as_roles):
        assert_never_more(lesser, greater)


@pytest.mark.long("100,000 decisions")
def test_no_restriction_ever_gives() -> None:
    for number, case in enumerate(random_cases(100_000)):
        member, keeps = _MEMBERS[number % len(_MEMBERS)], number % 5
        assert_never_more(narrowed(case, member, keeps), case)
