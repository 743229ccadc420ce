"""Legal state changes, and the one state of many instances."""

from __future__ import annotations

import itertools

import pytest

from open_mcp_gateway.supervisor.states import LEGAL, ServerState, can_become, overall

STOPPED, STARTING, RUNNING, SHUTTING_DOWN, UNHEALTHY = ServerState


def test_every_state_can_be_left_and_reached() -> None:
    assert set(LEGAL) == set(ServerState)
    assert frozenset().union(*LEGAL.values()) == set(ServerState)
    assert all(LEGAL.values())


@pytest.mark.parametrize(
    "path",
    [
        (STOPPED, STARTING, RUNNING, SHUTTING_DOWN, STOPPED),
        (RUNNING, UNHEALTHY, STARTING, UNHEALTHY, STOPPED),
        (RUNNING, UNHEALTHY, RUNNING),
        (UNHEALTHY, SHUTTING_DOWN),
    ],
)
def test_lives_of_a_server(path: tuple[ServerState, ...]) -> None:
    assert all(can_become(old, new) for old, new in itertools.pairwise(path))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (STOPPED, RUNNING),
        (STOPPED, SHUTTING_DOWN),
        (SHUTTING_DOWN, RUNNING),
        (SHUTTING_DOWN, STARTING),
        (RUNNING, STARTING),
        (RUNNING, STOPPED),
    ],
)
def test_no_shortcuts(old: ServerState, new: ServerState) -> None:
    assert not can_become(old, new)


@pytest.mark.parametrize("state", ServerState)
def test_no_state_becomes_itself(state: ServerState) -> None:
    assert not can_become(state, state)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ((), STOPPED),
        ((STOPPED,), STOPPED),
        ((SHUTTING_DOWN, STOPPED), SHUTTING_DOWN),
        ((UNHEALTHY, SHUTTING_DOWN), UNHEALTHY),
        ((STARTING, UNHEALTHY), STARTING),
        ((SHUTTING_DOWN, UNHEALTHY, STARTING, RUNNING), RUNNING),
    ],
)
def test_a_server_is_what_its_next_caller_may_hope_for(
    states: tuple[ServerState, ...], expected: ServerState
) -> None:
    assert overall(states) is expected
    assert overall(reversed(states)) is expected
