"""Messages for a client that has no stream open."""

from __future__ import annotations

from collections import deque
from typing import Final

MAX_MESSAGES: Final = 100
MAX_BYTES: Final = 1024 * 1024
"""Whichever is reached first; the oldest go first, but the last one always stays."""


class Backlog:
    """Keeps the last ones, in order."""

    __slots__ = ("_bytes", "_messages")

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._bytes = 0

    def add(self, message: bytes) -> None:
        self._messages.append(message)
        self._bytes += len(message)
        while len(self._messages) > MAX_MESSAGES or (
            self._bytes > MAX_BYTES and len(self._messages) > 1
        ):
            self._bytes -= len(self._messages.popleft())

    def take(self) -> list[bytes]:
        """All of them; none are left."""
        messages = list(self._messages)
        self._messages.clear()
        self._bytes = 0
        return messages
