"""The results in the docs are those of this run."""

import pytest

from tests.conformance.client_legs import CLIENT_LEGS
from tests.conformance.conftest import Runs
from tests.conformance.legs import BEHIND_GATEWAY
from tests.conformance.page import PAGE, client_row, server_row, with_tables

pytestmark = [pytest.mark.timeout(300), pytest.mark.peers]


def test_page_shows_the_results(every_leg: Runs) -> None:
    servers = [
        server_row(leg, every_leg.outcome(leg), every_leg.outcome(leg.alone()))
        for leg in BEHIND_GATEWAY
    ]
    clients = [client_row(leg, every_leg.outcome(leg)) for leg in CLIENT_LEGS]
    committed = PAGE.read_text("utf-8")
    current = with_tables(committed, servers, clients)
    if committed != current:
        PAGE.write_text(current, "utf-8")
    assert committed == current, f"{PAGE.name} was rewritten from this run: look at it, commit it"
