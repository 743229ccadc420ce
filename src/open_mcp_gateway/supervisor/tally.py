"""What has happened at a server so far."""

from __future__ import annotations


class Tally:
    """What a server has done since the gateway knows it, over all its instances."""

    __slots__ = ("errors", "last_activity_s", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.last_activity_s: float | None = None

    def refused(self) -> None:
        """Count a request that found no instance."""
        self.requests += 1
        self.errors += 1
