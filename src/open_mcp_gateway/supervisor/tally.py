"""What has happened at a server so far."""

from __future__ import annotations

from collections.abc import Iterable


class Tally:
    """What the use of a server by one holder came to since the gateway knows it, over all its
    instances. Nobody else's use shows in it."""

    __slots__ = ("errors", "last_activity_s", "last_error", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.last_activity_s: float | None = None
        self.last_error: str | None = None

    def refused(self) -> None:
        """Count a request that found no instance."""
        self.requests += 1
        self.errors += 1


def total(tallies: Iterable[Tally], last_error: str | None) -> Tally:
    """All of them as one; which error was the last is not to be seen in them."""
    whole = Tally()
    whole.last_error = last_error
    for one in tallies:
        whole.requests += one.requests
        whole.errors += one.errors
        if one.last_activity_s is not None:
            whole.last_activity_s = max(whole.last_activity_s or 0.0, one.last_activity_s)
    return whole
