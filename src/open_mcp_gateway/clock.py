"""Time as a value that is passed in, so that deciding code and tests never read a real clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final, Protocol


class Clock(Protocol):
    """Where the time comes from."""

    def monotonic(self) -> float:
        """Seconds that never run backwards; same origin as the event loop's clock."""

    def now(self) -> datetime:
        """Wall-clock time in UTC."""

    def wall(self) -> float:
        """The same in seconds since the epoch, for comparisons on the path of every request."""


_FIRST_S: Final = -62_135_596_800.0
_LAST_S: Final = 253_402_300_799.0


class SystemClock:
    """The machine's clocks."""

    __slots__ = ("monotonic", "wall")

    def __init__(self) -> None:
        self.monotonic = time.monotonic
        self.wall = time.time

    def now(self) -> datetime:
        return datetime.now(UTC)


def rfc3339_at(seconds: float) -> str:
    """A moment since the epoch as RFC 3339 text. Who may write years and zones freely can mean one
    before the year 1 or after 9999, which no text can say: then the nearest that one can."""
    return rfc3339(datetime.fromtimestamp(min(max(seconds, _FIRST_S), _LAST_S), UTC))


def rfc3339(moment: datetime) -> str:
    """A UTC moment as RFC 3339 text with whole milliseconds, e.g. ``2026-01-31T12:00:00.000Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
