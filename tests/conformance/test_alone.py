"""The fixture servers by themselves: what a gateway in front of them can be measured by."""

import pytest

from tests.conformance.client_legs import CLIENT_LEGS, ClientLeg
from tests.conformance.conftest import Runs
from tests.conformance.legs import ALONE, Leg

pytestmark = [pytest.mark.timeout(300), pytest.mark.peers]

TASKS_CHECKS = 44


@pytest.mark.parametrize("leg", ALONE, ids=str)
def test_fixture_passes_all_that_counts(leg: Leg, runs: Runs) -> None:
    outcome = runs.outcome(leg)
    required = [outcome[name] for name in sorted(leg.required(outcome))]
    assert [complaint for one in required for complaint in one.complaints()] == []
    assert len(required) == leg.passing


@pytest.mark.parametrize("leg", [leg for leg in ALONE if leg.select == "tasks"], ids=str)
def test_tasks_fixture_passes_every_check(leg: Leg, runs: Runs) -> None:
    outcome = runs.outcome(leg)
    assert sum(scenario.successes for scenario in outcome.values()) == TASKS_CHECKS


UNSCORED = {
    "2025-11-25": {"server-session-lifecycle", "json-schema-2020-12", "server-sse-polling"},
    "2026-07-28": {
        "json-schema-2020-12",
        "http-header-validation",
        "http-custom-header-server-validation",
    },
}


@pytest.mark.parametrize("leg", [leg for leg in ALONE if leg.select == "requirements"], ids=str)
def test_fixture_passes_what_does_not_count_too(leg: Leg, runs: Runs) -> None:
    outcome = runs.outcome(leg)
    assert [
        complaint for name in sorted(UNSCORED[leg.wire]) for complaint in outcome[name].complaints()
    ] == []


@pytest.mark.parametrize(
    "leg",
    [leg.alone() for leg in CLIENT_LEGS if leg.scenario == "http-invalid-tool-headers"],
    ids=str,
)
def test_driver_calls_invalid_tools_when_nobody_keeps_them_from_it(
    leg: ClientLeg, runs: Runs
) -> None:
    """Else the gateway's leg would show nothing."""
    assert not runs.outcome(leg)[leg.scenario].passed
