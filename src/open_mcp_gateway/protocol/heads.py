"""Heads of HTTP messages whose meaning is known, because they were parsed on the same connection.

A peer repeats its heads, and between two messages a parser can only find again what it found
before. So a whole message with a head that is known byte for byte needs none.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

Meaning = TypeVar("Meaning")

MAX_HEADS: Final = 8
MAX_HEAD_BYTES: Final = 2048
"""Of one connection."""

_END: Final = b"\r\n\r\n"


class KnownHeads(Generic[Meaning]):
    """Those of one connection. ``bool`` of it says whether there are any."""

    __slots__ = ("_known", "_last")

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[bytes, int, Meaning]] = {}
        """By the head: that again, the length of the whole message, what the head means."""

        self._last: tuple[bytes, int, Meaning] | None = None
        """The one found last: most likely the next one too, and to compare is cheaper than to look
        for the end of the head and then for the head."""

    def __len__(self) -> int:
        return len(self._known)

    def find(self, data: bytes) -> tuple[Meaning, bytes] | None:
        """What the head of ``data`` means, and the body after it.

        None where it cannot be told that ``data`` is that one message, no more and no less.
        """
        found = self._last
        if found is None or len(data) != found[1] or not data.startswith(found[0]):
            found = self._known.get(data[: data.find(_END) + len(_END)])
            if found is None or len(data) != found[1]:
                return None
            self._last = found
        return found[2], data[len(found[0]) :]

    def keep(self, data: bytes, body_bytes: int, meaning: Meaning) -> None:
        """``data`` was parsed as one whole message with a body of so many bytes."""
        end = data.find(_END) + len(_END)
        if end > MAX_HEAD_BYTES or len(data) != end + body_bytes:
            return
        if len(self._known) >= MAX_HEADS:
            self._known.clear()
        head = data[:end]
        self._last = self._known[head] = (head, len(data), meaning)

    def forget(self) -> None:
        """None is known any more."""
        self._known.clear()
        self._last = None
