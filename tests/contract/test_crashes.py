"""Killed at any statement, a store is as before the change or as after it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest

from open_mcp_gateway.errors import InvalidConfig
from open_mcp_gateway.keystore.store import Remembered, Transaction
from tests.contract.places import Place, a_key, put
from tests.environments import ROOT

MOST_STEPS = 400


def killed(place: Place, task: str, step: int, *rest: str) -> bool:
    """Whether the other process died at that step; otherwise it had fewer."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.contract.other_process"),
            *(place.kind, place.where, task, str(step), *rest),
        ],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode == -signal.SIGKILL:
        return True
    assert done.returncode == 0, done.stderr
    return False


def recall(name: str, change: Transaction) -> Remembered | None:
    return change.remembered("actor", name, 0)


def check_creation(new_place: Callable[[], Place], stride: int) -> int:
    kills = 0
    for step in range(1, MOST_STEPS, stride):
        place = new_place()
        if not killed(place, "create", step):
            break
        kills += 1
        try:
            store = place.open()
        except InvalidConfig as absent:
            assert "there is no key store" in str(absent)  # noqa: PT017
            store = place.create()
        store.transact(put(a_key("k")))
        assert store.read().rev == 1
        store.close()
    else:
        raise AssertionError("it never comes to an end")
    return kills


def check_changes(place: Place, stride: int) -> int:
    kills = 0
    store = place.create()
    outcomes = set()
    for step in range(1, MOST_STEPS, stride):
        before = store.read()
        if not killed(place, "transact", step, f"n{step}"):
            break
        kills += 1
        after = store.read(before.rev)
        done = after.rev != before.rev
        outcomes.add(done)
        assert after.rev == before.rev + done
        assert [one.name for one in after.keys] == [f"n{step}-1", f"n{step}-2"] * done
        assert [one.id for one in after.tenants] == [f"n{step}"] * done
        remembered, _ = store.transact(partial(recall, f"n{step}"))
        assert (remembered is not None) == done
    else:
        raise AssertionError("it never comes to an end")
    store.close()
    if stride == 1:
        assert outcomes == {False, True}, "some died before the end of the change, some after it"
    return kills


def check_upgrade(new_place: Callable[[], Place], stride: int) -> int:
    kills, outcomes = 0, set()
    for step in range(1, MOST_STEPS, stride):
        place = new_place()
        before = place.create()
        before.transact(put(a_key("a"), a_key("b")))
        keys = before.read().keys
        before.close()
        if not killed(place, "upgrade", step):
            break
        kills += 1
        schema = place.ask("SELECT schema FROM auth_meta")[0][0]
        outcomes.add(schema)
        if schema == 3:
            store = place.open()
            assert store.read().keys == keys
            store.close()
            assert not killed(place, "upgrade", 0)
        # After it, by whichever of the two: all of the step and not a row twice.
        assert place.ask("SELECT schema FROM auth_meta") == [(4,)]
        assert place.ask("SELECT id, added FROM api_keys ORDER BY id") == [
            (one.id, one.id) for one in keys
        ]
        assert len(place.ask("SELECT id FROM added")) == len(keys)
        with pytest.raises(InvalidConfig, match="there is no way back"):
            place.open()
    else:
        raise AssertionError("it never comes to an end")
    if stride == 1:
        assert outcomes == {3, 4}, "some died before the end of the upgrade, some after it"
    return kills


def test_killed_while_it_is_upgraded(new_place: Callable[[], Place]) -> None:
    assert check_upgrade(new_place, 13) >= 2


@pytest.mark.long("every step")
@pytest.mark.timeout(600)
def test_killed_at_every_step_while_it_is_upgraded(new_place: Callable[[], Place]) -> None:
    assert check_upgrade(new_place, 1) >= 15


def test_killed_while_it_is_made(new_place: Callable[[], Place]) -> None:
    assert check_creation(new_place, 7) >= 4


def test_killed_while_it_is_changed(place: Place) -> None:
    assert check_changes(place, 7) >= 4


@pytest.mark.long("every step")
@pytest.mark.timeout(600)
def test_killed_at_every_step_while_it_is_made(new_place: Callable[[], Place]) -> None:
    assert check_creation(new_place, 1) >= 30


@pytest.mark.long("every step")
@pytest.mark.timeout(600)
def test_killed_at_every_step_while_it_is_changed(place: Place) -> None:
    assert check_changes(place, 1) >= 30
