"""Decisions about a server, from values alone."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_mcp_gateway.auth.principal import PLATFORM
from open_mcp_gateway.catalog.model import Isolation
from open_mcp_gateway.names import TenantId
from open_mcp_gateway.outbound.peer import ANY_MANNER, Handshake, Manner
from open_mcp_gateway.protocol.eras import LATEST_LEGACY, LATEST_MODERN, Era
from open_mcp_gateway.supervisor.policy import (
    NEVER,
    RECHECK_S,
    SHARED_KEY,
    Act,
    InstanceKey,
    Step,
    Timing,
    Verdict,
    Vitals,
    after_failure,
    backoff_s,
    fits,
    is_common,
    is_known,
    isolation_of,
    key_of,
    may_suit,
    next_step,
    retry_after_s,
    scope_of,
    suits,
    timing_of,
)
from open_mcp_gateway.supervisor.settings import FleetSettings
from tests.unit.supervisor.memory import MODERN, entry_of, legacy, owned, principal, spec

SETTINGS = FleetSettings()
ONE, OTHER = TenantId("k1"), TenantId("platform")
EVERYBODY = tuple(
    principal(key, holder) for holder in (PLATFORM, ONE, OTHER) for key in ("k1", "k2", "shared")
)
NARROW = (Isolation.TENANT, Isolation.KEY, Isolation.SESSION)
TIMING = Timing(idle_timeout_s=300, check_interval_s=30, check_timeout_s=10, start_timeout_s=60)


def vitals(*, busy: bool = False, leave_by_s: float | None = None, **moments: float) -> Vitals:
    at_s = {"last_activity_s": 0.0, "last_check_s": 0.0, "last_reply_s": 0.0, **moments}
    return Vitals(busy=busy, leave_by_s=leave_by_s, **at_s)


def test_shared_is_one_scope_for_all() -> None:
    entry = entry_of(spec(isolation=Isolation.SHARED))
    assert scope_of(entry, principal("k1")) == scope_of(entry, principal("k2"))
    assert key_of(entry, principal("k1"), Isolation.KEY) is SHARED_KEY


@pytest.mark.parametrize("isolation", [Isolation.KEY, Isolation.SESSION])
def test_key_and_session_keep_keys_apart(isolation: Isolation) -> None:
    entry = entry_of(spec(isolation=isolation))
    scopes = {scope_of(entry, one) for one in EVERYBODY}
    assert len(scopes) == len(EVERYBODY)
    assert SHARED_KEY.scope not in scopes


def test_tenant_is_one_scope_for_all_keys_of_a_holder() -> None:
    entry = entry_of(spec(isolation=Isolation.TENANT))
    scopes = {scope_of(entry, one): one.holder for one in EVERYBODY}
    assert len(scopes) == len({one.holder for one in EVERYBODY}) == len(set(scopes.values()))
    assert SHARED_KEY.scope not in scopes


@pytest.mark.parametrize("isolation", NARROW)
def test_an_instance_that_is_not_shared_is_its_holders(isolation: Isolation) -> None:
    entry = entry_of(spec(isolation=isolation))
    for one in EVERYBODY:
        expected = InstanceKey(scope_of(entry, one), one.holder)
        assert key_of(entry, one, Isolation.SHARED) == expected


@pytest.mark.parametrize("isolation", Isolation)
def test_an_instance_of_a_client_session_is_its_holders(isolation: Isolation) -> None:
    key = key_of(entry_of(spec(isolation=isolation)), principal("k", ONE), isolation, owned("s"))
    assert is_known(key, ONE, isolation)
    assert is_known(key, PLATFORM, isolation)
    assert not is_known(key, OTHER, isolation)


@pytest.mark.parametrize("isolation", Isolation)
def test_what_was_shared_is_known_only_while_it_is_declared(isolation: Isolation) -> None:
    assert is_known(SHARED_KEY, ONE, isolation) is (isolation is Isolation.SHARED)
    assert is_known(SHARED_KEY, PLATFORM, isolation)


def test_scopes_of_different_isolations_never_meet() -> None:
    scopes = {scope_of(entry_of(spec(isolation=one)), principal("k1")) for one in Isolation}
    assert len(scopes) == len(Isolation)


@pytest.mark.parametrize("default", Isolation)
def test_an_entry_that_does_not_say_takes_the_default(default: Isolation) -> None:
    silent, explicit = entry_of(spec()), entry_of(spec(isolation=default))
    assert isolation_of(silent, default) is default
    assert key_of(silent, principal(), default) == key_of(explicit, principal(), Isolation.SHARED)


@pytest.mark.parametrize("old", Isolation)
@pytest.mark.parametrize("new", Isolation)
def test_an_instance_fits_only_the_rule_it_was_started_under(
    old: Isolation, new: Isolation
) -> None:
    key = key_of(entry_of(spec(isolation=old)), principal(), Isolation.SHARED)
    assert fits(key, entry_of(spec(isolation=new)), Isolation.SHARED) is (old is new)


def test_own_times_win_and_zero_is_never() -> None:
    assert timing_of(spec(), SETTINGS) == TIMING
    own = spec(idle_timeout_seconds=0, health_check_interval_seconds=4, start_timeout_seconds=7)
    assert timing_of(own, SETTINGS) == Timing(
        idle_timeout_s=NEVER, check_interval_s=4, check_timeout_s=4, start_timeout_s=7
    )
    none = FleetSettings(idle_timeout_s=0, health_check_interval_s=0)
    assert timing_of(spec(), none) == Timing(
        idle_timeout_s=NEVER, check_interval_s=NEVER, check_timeout_s=10, start_timeout_s=60
    )
    assert timing_of(spec(idle_timeout_seconds=9), none).idle_timeout_s == 9


@pytest.mark.parametrize(
    ("state", "now_s", "expected"),
    [
        (vitals(), 1, Step(Act.WAIT, 30)),
        (vitals(), 30, Step(Act.CHECK)),
        (vitals(last_check_s=290), 299, Step(Act.WAIT, 300)),
        (vitals(last_check_s=290), 300, Step(Act.STOP)),
        (vitals(last_check_s=290, last_activity_s=10), 300, Step(Act.WAIT, 310)),
        (vitals(last_reply_s=29), 30, Step(Act.WAIT, 59)),
        (vitals(busy=True, last_check_s=5000), 5000, Step(Act.WAIT, 5030)),
        (vitals(busy=True), 5000, Step(Act.CHECK)),
        (vitals(leave_by_s=600), 1, Step(Act.STOP)),
        (vitals(busy=True, leave_by_s=600), 1, Step(Act.WAIT, 1 + RECHECK_S)),
        (vitals(busy=True, leave_by_s=600), 600, Step(Act.STOP)),
        (vitals(busy=True, leave_by_s=600, last_check_s=599.9), 599.9, Step(Act.WAIT, 600)),
    ],
)
def test_next_step(state: Vitals, now_s: float, expected: Step) -> None:
    assert next_step(state, TIMING, now_s) == expected


def test_without_idle_stop_and_checks_there_is_nothing_to_wait_for() -> None:
    never = Timing(
        idle_timeout_s=NEVER, check_interval_s=NEVER, check_timeout_s=10, start_timeout_s=60
    )
    assert next_step(vitals(), never, 1e9) == Step(Act.WAIT, NEVER)
    assert next_step(vitals(busy=True), never, 1e9) == Step(Act.WAIT, NEVER)


moments = st.floats(min_value=0, max_value=1e6)


@given(
    busy=st.booleans(),
    leave_by_s=st.none() | moments,
    activity_s=moments,
    check_s=moments,
    reply_s=moments,
    idle_s=st.floats(min_value=0.1, max_value=1e4) | st.just(NEVER),
    now_s=moments,
)
def test_never_idles_out_when_busy_and_never_waits_for_the_past(
    busy: bool,
    leave_by_s: float | None,
    activity_s: float,
    check_s: float,
    reply_s: float,
    idle_s: float,
    now_s: float,
) -> None:
    state = Vitals(
        busy=busy,
        last_activity_s=activity_s,
        last_check_s=check_s,
        last_reply_s=reply_s,
        leave_by_s=leave_by_s,
    )
    timing = Timing(
        idle_timeout_s=idle_s, check_interval_s=30, check_timeout_s=10, start_timeout_s=60
    )
    step = next_step(state, timing, now_s)
    if step.act is Act.STOP and busy:
        assert leave_by_s is not None
        assert leave_by_s <= now_s
    if step.act is Act.WAIT:
        assert step.until_s > now_s


def test_backoff_starts_at_nothing_and_doubles_to_its_bound() -> None:
    waits = [backoff_s(failures, 0.0, SETTINGS) for failures in range(10)]
    assert waits == [0, 0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff_s(10**9, 0.0, SETTINGS) == 30


@given(failures=st.integers(0, 10**6), jitter=st.floats(0, 1))
def test_jitter_takes_off_at_most_half(failures: int, jitter: float) -> None:
    whole_s = backoff_s(failures, 0.0, SETTINGS)
    assert whole_s / 2 <= backoff_s(failures, jitter, SETTINGS) <= whole_s


def fail(failures: int, *, ran_s: float = 0.0, wanted: bool = True) -> Verdict:
    return after_failure(
        failures, ran_s=ran_s, wanted=wanted, now_s=100.0, jitter=0.0, settings=SETTINGS
    )


def test_five_restarts_in_a_row_and_no_more() -> None:
    assert [fail(before).restart for before in range(7)] == [True] * 5 + [False] * 2
    assert fail(3) == Verdict(4, 102.0, True)


def test_a_stable_run_starts_the_count_afresh() -> None:
    assert fail(5, ran_s=9.9) == Verdict(6, 108.0, False)
    assert fail(5, ran_s=10) == Verdict(1, 100.0, True)


def test_what_nobody_needs_is_not_restarted() -> None:
    assert fail(0, wanted=False) == Verdict(1, 100.0, False)
    assert fail(1, wanted=False) == Verdict(2, 100.5, False)


@pytest.mark.parametrize(
    ("due_s", "expected"), [(0, None), (100, None), (100.01, 1), (101.0, 1), (101.5, 2)]
)
def test_retry_after_is_whole_seconds_from_now(due_s: float, expected: int | None) -> None:
    assert retry_after_s(due_s, 100.0) == expected
    assert retry_after_s(-math.inf, 100.0) is None


# Manners

OLD = "2024-11-05"
STATELESS = Handshake(era=Era.MODERN, version=LATEST_MODERN, result=b"{}")
EXPERIMENTAL = Manner(era=Era.LEGACY, capabilities=b'{"experimental":{}}')


def session(version: str = LATEST_LEGACY) -> Handshake:
    return Handshake(era=Era.LEGACY, version=version, result=b"{}")


def test_a_key_is_a_scope_and_a_manner() -> None:
    entry = entry_of(spec(isolation=Isolation.SHARED))
    keys = {
        key_of(entry, principal(key), Isolation.SHARED, manner)
        for key in ("k1", "k2")
        for manner in (ANY_MANNER, Manner(), MODERN, legacy(), owned("s1"), owned("s2"))
    }
    assert len(keys) == 5
    assert {key.scope for key in keys} == {SHARED_KEY.scope}
    apart = entry_of(spec(isolation=Isolation.KEY))
    one = key_of(apart, principal("k1"), Isolation.SHARED, MODERN)
    assert one.manner == MODERN
    assert one != key_of(apart, principal("k2"), Isolation.SHARED, MODERN)


@pytest.mark.parametrize("manner", [owned("s1"), Manner(owner="s1"), EXPERIMENTAL])
def test_what_has_an_owner_or_capabilities_suits_nobody_else(manner: Manner) -> None:
    assert not is_common(manner)
    for other in (ANY_MANNER, legacy(), manner):
        assert not suits(manner, other, session())
        assert not suits(other, manner, session())
        assert not may_suit(manner, other)
        assert not may_suit(other, manner)


@pytest.mark.parametrize(
    ("wanted", "opened", "handshake", "expected"),
    [
        (ANY_MANNER, MODERN, STATELESS, True),
        (ANY_MANNER, legacy(OLD), session(OLD), True),
        (MODERN, ANY_MANNER, STATELESS, True),
        (MODERN, ANY_MANNER, session(), False),
        (legacy(), ANY_MANNER, STATELESS, False),
        (legacy(), ANY_MANNER, session(), True),
        (legacy(OLD), ANY_MANNER, session(), False),
        (legacy(OLD), ANY_MANNER, session(OLD), True),
        # Offered the newest, the server chose the old one: so it would again.
        (legacy(), ANY_MANNER, session(OLD), True),
        (legacy("2025-06-18"), ANY_MANNER, session(OLD), False),
        (legacy("2025-06-18"), legacy("2025-06-18"), session(OLD), True),
        (legacy(), legacy(OLD), session(OLD), False),
        (Manner(era=Era.LEGACY), legacy(OLD), session(OLD), True),
    ],
)
def test_suits(wanted: Manner, opened: Manner, handshake: Handshake, expected: bool) -> None:
    assert suits(wanted, opened, handshake) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (ANY_MANNER, MODERN, True),
        (ANY_MANNER, legacy(OLD), True),
        (MODERN, legacy(), False),
        (legacy(), legacy(OLD), False),
        (legacy(), Manner(era=Era.LEGACY), True),
    ],
)
def test_may_suit(one: Manner, other: Manner, expected: bool) -> None:
    assert may_suit(one, other) is expected
    assert may_suit(other, one) is expected


@given(
    wanted=st.sampled_from([ANY_MANNER, MODERN, legacy(), legacy(OLD)]),
    opening=st.sampled_from([ANY_MANNER, MODERN, legacy(), legacy(OLD)]),
    handshake=st.sampled_from([STATELESS, session(), session(OLD)]),
)
def test_what_is_of_the_wanted_era_suits_only_if_it_may(
    wanted: Manner, opening: Manner, handshake: Handshake
) -> None:
    is_its_outcome = opening.era in {None, handshake.era}
    settled = opening.version in {None, handshake.version}
    if is_its_outcome and settled and suits(wanted, opening, handshake):
        assert may_suit(wanted, opening)
