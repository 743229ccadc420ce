"""How deep a JSON text is nested, found out without recursion.

Every decoder here recurses and gives up at the interpreter's limit, which is nearer the deeper the
call is made from: what one could read, the next one could not. So clients are held to a fixed depth
far below it.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final

_OPENS: Final = 1
_CLOSES: Final = 255  # -1, read as a signed byte
_STEP_BYTES: Final = 128

_MARKS: Final = bytes.maketrans(b"[{]}", bytes((_OPENS, _OPENS, _CLOSES, _CLOSES)))
_NO_MARK: Final = bytes(set(range(256)) - set(b'[]{}"'))
_STRING: Final = re.compile(rb'"[^"]*"')


def gave_up_reading(error: Exception) -> bool:
    """Whether it is what a decoder raises at the interpreter's limit; a defect of ours that never
    ends recursing raises the same, in other words."""
    return isinstance(error, RecursionError) and "deserializing" in str(error)


def nested_deeper(text: bytes, levels: int) -> bool:
    """Whether arrays and objects of ``text``, valid JSON, are nested more than ``levels`` deep."""
    if not _opens_more(text, levels):
        return False
    if b"\\" in text:
        text = text.replace(rb"\\", b"").replace(rb"\"", b"")
    # What is left of most strings is a pair of quotes. Taking one away leaves the rest in place: a
    # mark is in a string if and only if the number of quotes before it is odd.
    marks = text.translate(_MARKS, _NO_MARK).replace(b'""', b"")
    if b'"' in marks:
        marks = _STRING.sub(b"", marks)
    depth = 0
    for start in range(0, len(marks), _STEP_BYTES):
        step = marks[start : start + _STEP_BYTES]
        opened = step.count(_OPENS)
        if depth + opened > levels:
            signed = memoryview(step).cast("b")
            if max(accumulate(signed, initial=depth)) > levels:
                return True
        depth += 2 * opened - len(step)
    return False


def _opens_more(text: bytes, times: int) -> bool:
    """Whether there are more than ``times`` opening brackets in it, those in strings included.

    Hops from one to the next: most large texts are long strings, and this is the fastest way past
    them.
    """
    for bracket in (b"{", b"["):
        place = text.find(bracket)
        while place >= 0:
            times -= 1
            if times < 0:
                return True
            place = text.find(bracket, place + 1)
    return False
