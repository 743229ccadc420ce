"""Texts that peers repeat in every message, each read only once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

Reading = TypeVar("Reading")

MAX_TEXTS: Final = 256
MAX_TEXT_BYTES: Final = 1024
"""Longer ones are read each time, so that what is kept stays small."""


class _Kept(dict[bytes, Reading], Generic[Reading]):
    """Readings by their texts; what is not there is read when it is looked up."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[bytes], Reading]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, text: bytes) -> Reading:
        reading = self._read(text)
        if len(text) <= MAX_TEXT_BYTES:
            if len(self) >= MAX_TEXTS:
                self.clear()
            self[text] = reading
        return reading


def remembered(read: Callable[[bytes], Reading]) -> Callable[[bytes], Reading]:
    """``read``, a pure function, with what it made of a number of short texts kept.

    What it gives is shared, so nobody may change it. What it raises is not kept.
    """
    return _Kept(read).__getitem__  # no more than a lookup for what is there
