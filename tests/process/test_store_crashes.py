"""A gateway that is killed in the middle of changes to keys: what it has said is so."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Final

import pytest

from open_mcp_gateway.auth.apikeys import digest_of
from tests.contract.places import Place
from tests.process.one_store import ask, gateways, office
from tests.process.talk import Running, wait_until
from tests.wire.stored_keys import Made, opens

CLIENTS: Final = 4


class Makers:
    """Clients that make keys, and revoke every third, until the gateway is gone."""

    def __init__(self, gateway: Running, prefix: str) -> None:
        self.made: list[Made] = []
        self.revoked: set[str] = set()
        self.maybe_revoked: set[str] = set()
        self._office = office(gateway)
        self._prefix = prefix
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(CLIENTS)
        self._running = [self._threads.submit(self._make, number) for number in range(CLIENTS)]

    def _make(self, client: int) -> None:
        number = 0
        while True:
            number += 1
            body = {"name": f"{self._prefix}-{client}-{number}", "role": "viewer"}
            try:
                answer = self._office.send("POST", "/admin/keys", body)
                if answer.status == 0:
                    return
                told = json.loads(answer.body)
                assert answer.status == 201, answer
                key = Made(told["id"], told["secret"].encode())
                with self._lock:
                    self.made.append(key)
                if number % 3 == 0:
                    self.maybe_revoked.add(key.id)
                    answer = self._office.send("DELETE", f"/admin/keys/{key.id}")
                    if answer.status == 200 and answer.body:
                        self.revoked.add(key.id)
            except (OSError, HTTPException, ValueError):
                return  # it was killed within this request

    def until_made(self, wanted: int) -> None:
        wait_until(lambda: len(self.made) >= wanted, "keys are made", every_s=0.0007)

    def end(self) -> None:
        self._threads.shutdown()
        for one in self._running:
            one.result()


def check_kills(folder: Path, place: Place, rounds: int) -> None:
    for number in range(rounds):
        with gateways(folder, place, 1) as (only,):
            makers = Makers(only, f"r{number}")
            # At another moment each time, within whatever is being done then.
            wanted = 5 + 7 * number % 40
            makers.until_made(wanted)
            only.gateway.process.kill()
            only.gateway.process.wait()
            makers.end()
        check(folder, place, makers)


def check(folder: Path, place: Place, makers: Makers) -> None:
    """Everything that was said is so, and nothing is there by half."""
    store = place.open()
    stored = {str(one.id): one for one in store.read().keys}
    store.close()
    assert all(len(one.digests) == 1 and one.name and one.created_at for one in stored.values())
    for key in makers.made:
        assert stored[key.id].digests == (digest_of(key.secret),)
        revoked = stored[key.id].revoked_at is not None
        assert revoked or key.id not in makers.revoked
        assert not revoked or key.id in makers.maybe_revoked
    with gateways(folder, place, 1) as (only,):
        for key in makers.made[-20:]:
            refused = stored[key.id].revoked_at is not None
            answer = opens(partial(ask, only), key)
            assert answer.status == (403 if refused else 200)


@pytest.mark.parametrize(
    "rounds", [2, pytest.param(50, marks=[pytest.mark.long("50 kills"), pytest.mark.timeout(1800)])]
)
def test_what_was_answered_outlives_a_kill(tmp_path: Path, place: Place, rounds: int) -> None:
    check_kills(tmp_path, place, rounds)
