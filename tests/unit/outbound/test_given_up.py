"""How long calls count that were given up without an answer."""

from __future__ import annotations

import pytest

from open_mcp_gateway.outbound import given_up as module
from open_mcp_gateway.outbound.given_up import KEPT_S, GivenUp


class Hands:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_call_counts_until_its_late_answer() -> None:
    calls = GivenUp()
    assert not calls.by_others("alice")
    calls.add(7, "bob")
    for wrong in (8, "7", None, 7.5, [7]):
        calls.answered(wrong)
    assert calls.by_others("alice")
    assert calls.by_others(None)
    assert not calls.by_others("bob")
    calls.answered(7)
    assert not calls.by_others("alice")


def test_a_call_counts_for_a_bounded_time() -> None:
    clock = Hands()
    calls = GivenUp(clock)
    calls.add(1, "bob")
    clock.now_s += KEPT_S / 2
    calls.add(2, "carol")
    assert calls.by_others("carol")
    clock.now_s += KEPT_S / 2
    assert not calls.by_others("carol")
    assert calls.by_others("bob")
    clock.now_s += KEPT_S / 2
    assert not calls.by_others("bob")


def test_the_gateway_s_own_are_about_nobody() -> None:
    calls = GivenUp()
    calls.add(1, None)
    assert not calls.by_others("alice")


def test_more_than_are_known_one_by_one_still_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    clock = Hands()
    calls = GivenUp(clock)
    for number in range(3):
        clock.now_s += 1
        calls.add(number, "alice")
    assert len(calls._calls) == 2
    # Whose the oldest was is not known any more.
    assert calls.by_others("alice")
    clock.now_s += KEPT_S - 2
    assert not calls.by_others("alice")
    assert calls.by_others("bob")
