"""Texts that peers repeat in every message, each read only once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeVar

Reading = TypeVar("Reading")

MAX_TEXTS: Final = 256
MAX_TEXT_BYTES: Final = 1024
"""Longer ones are read each time, so that what is kept stays small."""


def remembered(read: Callable[[bytes], Reading]) -> Callable[[bytes], Reading]:
    """``read``, a pure function, with what it made of the latest short texts kept.

    What it gives is shared, so nobody may change it. What it raises is not kept.
    """
    kept = lru_cache(MAX_TEXTS)(read)

    def reading(text: bytes) -> Reading:
        return kept(text) if len(text) <= MAX_TEXT_BYTES else read(text)

    return reading
