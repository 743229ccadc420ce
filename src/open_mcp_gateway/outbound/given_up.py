"""Calls that were given up while their server may still be at work on them.

A server that was told to stop need not, and what it says without naming a call may still be about
one that has left the books.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

KEPT_S: Final = 600.0
"""How long a call counts after it was given up, unless its late answer comes before: as long as one
may take by default. Most servers that stop never say so."""

MOST: Final = 1000
"""Known one by one, for each connection; of older ones no more than that there were some."""


class _GivenUp(Struct, frozen=True):
    whose: str
    until_s: float


class GivenUp:
    """Those of one connection, in the order of giving up."""

    __slots__ = ("_calls", "_monotonic", "_others_until_s")

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._calls: dict[int, _GivenUp] = {}
        self._monotonic = monotonic
        self._others_until_s = 0.0
        """Until when those count that are not known one by one any more."""

    def add(self, upstream_id: int, whose: str | None) -> None:
        """The call of that id will have no answer; ``whose`` it was, see ``Waiter``."""
        if whose is None:
            return
        now_s = self._drop_old()
        self._calls[upstream_id] = _GivenUp(whose, now_s + KEPT_S)
        if len(self._calls) > MOST:
            self._others_until_s = self._calls.pop(next(iter(self._calls))).until_s

    def answered(self, upstream_id: object) -> None:
        """A late answer came: the server is done with that call."""
        if self._calls and isinstance(upstream_id, int):
            self._calls.pop(upstream_id, None)

    def by_others(self, whose: str | None) -> bool:
        """Whether any counts that is not of ``whose``."""
        now_s = self._drop_old()
        if self._others_until_s > now_s:
            return True
        return any(call.whose != whose for call in self._calls.values())

    def _drop_old(self) -> float:
        """Forget what counts no more; the time now."""
        now_s = self._monotonic()
        while self._calls:
            first = next(iter(self._calls))
            if self._calls[first].until_s > now_s:
                break
            del self._calls[first]
        return now_s
