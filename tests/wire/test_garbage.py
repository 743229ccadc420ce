"""Requests leave nothing for the cyclic garbage collector, whose pauses are everybody's."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.rawhttp import request
from tests.wire.faces import AUTH, HOT, Face, call, echo, echoed, face, server

TIMES = 30
OURS = {"Turn", "Arrival", "Admitted", "Exchange", "InFlight", "Connection", "Intake"}


@pytest.fixture(scope="module", params=HOT)
def front(request: pytest.FixtureRequest) -> Iterator[Face]:
    with face(request.param, server("echo", "echo"), server("mute", "never_answers")) as running:
        yield running


def calls_on_one_connection(front: Face) -> None:
    with front.connect() as wire:
        for _ in range(TIMES):
            wire.send(echo("x"))
            assert echoed(wire.receive()) == (1, "x")


def calls_on_many(front: Face) -> None:
    for _ in range(TIMES):
        assert front.ask(echo("x")).status == 200


def refusals(front: Face) -> None:
    for raw in (request(b"/servers"), request(b"/nowhere", AUTH), b"nonsense\r\n\r\n"):
        for _ in range(TIMES):
            assert front.ask(raw).status >= 400


def management(front: Face) -> None:
    for _ in range(TIMES):
        assert front.ask(request(b"/servers", AUTH)).status == 200


def callers_that_leave(front: Face) -> None:
    front.ask(call("mute", method="ping"))
    for _ in range(TIMES):
        with front.connect() as wire:
            wire.send(call("mute", params={"name": "x"}))
            front.until(lambda: front.used("mute") == (1, 1))
        front.at_rest()


@pytest.mark.parametrize(
    "use", [calls_on_one_connection, calls_on_many, refusals, management, callers_that_leave]
)
def test_nothing_is_left(front: Face, use: Callable[[Face], None]) -> None:
    use(front)
    front.until(lambda: not front.connections())
    gc.collect()
    gc.disable()
    try:
        use(front)
        front.until(lambda: not front.connections())
        found = front.inside(_garbage)
    finally:
        gc.enable()
    left = {name: number for name, number in found.items() if name in OURS}
    assert sum(left.values()) < TIMES / 3, left


def _garbage() -> Counter[str]:
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return Counter(type(one).__name__ for one in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
