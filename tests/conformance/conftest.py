"""The legs that the selected tests need, run two at a time, and each only once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import pytest

from tests.conformance.client_legs import CLIENT_LEGS, ClientLeg, run_client_leg
from tests.conformance.legs import ALONE, BEHIND_GATEWAY, Leg, run_leg
from tests.conformance.suite import Outcome

AT_ONCE: Final = 2
"""The suite gives up by clocks of its own, and over stdio nearly each of its scenarios starts a
server anew, so that none can be running beforehand."""

AnyLeg = Leg | ClientLeg


class Runs:
    """Every leg once, whoever asks for it and how often."""

    def __init__(self, folders: pytest.TempPathFactory, pool: ThreadPoolExecutor) -> None:
        self._folders = folders
        self._pool = pool
        self._runs: dict[AnyLeg, Future[Outcome]] = {}

    def begin(self, leg: AnyLeg) -> Future[Outcome]:
        if leg not in self._runs:
            folder = self._folders.mktemp("leg") / str(leg)
            self._runs[leg] = (
                self._pool.submit(run_leg, leg, folder)
                if isinstance(leg, Leg)
                else self._pool.submit(run_client_leg, leg, folder)
            )
        return self._runs[leg]

    def outcome(self, leg: AnyLeg) -> Outcome:
        return self.begin(leg).result()


@pytest.fixture(scope="session")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runs]:
    """Begins, in the order of the tests, with all that they will ask for."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = Runs(tmp_path_factory, pool)
        for leg in _wanted(request.session.items):
            runs.begin(leg)
        yield runs
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def every_leg(runs: Runs) -> Runs:
    """For a test that looks at all of them."""
    return runs


def _wanted(items: list[pytest.Item]) -> list[AnyLeg]:
    wanted: list[AnyLeg] = []
    for item in items:
        if "every_leg" in getattr(item, "fixturenames", ()):
            wanted += [*ALONE, *BEHIND_GATEWAY, *CLIENT_LEGS]
        callspec = getattr(item, "callspec", None)
        leg = callspec.params.get("leg") if callspec is not None else None
        if isinstance(leg, Leg | ClientLeg):
            wanted.append(leg)
    return wanted
