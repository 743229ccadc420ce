"""Heads of HTTP messages whose meaning is known, because they were parsed on the same connection.

A peer repeats its heads, and between two messages a parser can only find again what it found
before. So a whole message with a head that is known byte for byte needs none.
"""

from __future__ import annotations

from typing import Final, Generic, NamedTuple, TypeVar

Meaning = TypeVar("Meaning")

MAX_HEADS: Final = 8
MAX_HEAD_BYTES: Final = 2048
"""Of one connection."""

_END: Final = b"\r\n\r\n"


class Known(NamedTuple, Generic[Meaning]):
    """What the head of a message means, and the body after it."""

    meaning: Meaning
    body: memoryview


class KnownHeads(Generic[Meaning]):
    """Those of one connection. ``bool`` of it says whether there are any."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Meaning, int]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, data: bytes) -> Known[Meaning] | None:
        """The message that ``data`` is, no more and no less; None where that cannot be told."""
        end = data.find(_END) + len(_END)
        found = self._known.get(data[:end])
        if found is None or len(data) != end + found[1]:
            return None
        return Known(found[0], memoryview(data)[end:])

    def keep(self, data: bytes, body_bytes: int, meaning: Meaning) -> None:
        """``data`` was parsed as one whole message with a body of so many bytes."""
        end = data.find(_END) + len(_END)
        if end > MAX_HEAD_BYTES or len(data) != end + body_bytes:
            return
        if len(self._known) >= MAX_HEADS:
            self._known.clear()
        self._known[data[:end]] = (meaning, body_bytes)

    def forget(self) -> None:
        """None is known any more."""
        self._known.clear()
