"""Behind the gateway a server passes all that it passes alone."""

import pytest

from tests.conformance.conftest import Runs
from tests.conformance.legs import BEHIND_GATEWAY, Leg

pytestmark = [pytest.mark.timeout(300), pytest.mark.peers]


NOT_IN_JSON = {"server-sse-polling", "server-sse-multiple-streams"}
"""Some of their checks are about event streams alone, and say nothing of an answer in JSON, which
the gateway gives where nothing comes before it."""


@pytest.mark.parametrize("leg", BEHIND_GATEWAY, ids=str)
def test_server_behind_gateway_passes_what_it_passes_alone(leg: Leg, runs: Runs) -> None:
    outcome, alone = runs.outcome(leg), runs.outcome(leg.alone())
    expected = [one for one in alone.values() if not one.complaints()]
    complaints = [text for one in expected for text in outcome[one.name].complaints()]
    fewer = [
        f"{one.name}: {outcome[one.name].successes} of {one.successes} checks"
        for one in expected
        if outcome[one.name].successes < one.successes and one.name not in NOT_IN_JSON
    ]
    assert complaints + fewer == []
    passed = [name for name in leg.required(alone) if outcome[name].passed]
    assert len(passed) == leg.passing
