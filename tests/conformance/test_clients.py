"""The gateway is judged by what it sends to servers, as clients are."""

import pytest

from tests.conformance.client_legs import CLIENT_LEGS, ClientLeg
from tests.conformance.conftest import Runs

pytestmark = [pytest.mark.timeout(300), pytest.mark.peers]


@pytest.mark.parametrize("leg", CLIENT_LEGS, ids=str)
def test_gateway_passes_as_client(leg: ClientLeg, runs: Runs) -> None:
    scenario = runs.outcome(leg)[leg.scenario]
    assert scenario.complaints() == []
    assert scenario.successes == leg.successes
