"""URIs that may mean something else than how they begin: ``..`` takes beginnings back. Pure.

Whoever is given ``file:///a/*`` must not get out of there by a spelling that some server resolves.
Servers in JavaScript read URIs by the WHATWG URL Standard, which drops tabs and line ends anywhere
and takes ``\\`` for ``/``; those in Java cut path parameters (``..;x``) off; Windows ignores blanks
at the end of a name; and some decode twice.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import unquote

_ROUNDS: Final = 5
"""How often a URI is decoded; one that the last time still changes is not read to its end."""

_LONGEST_CHARS: Final = 8 * 1024
"""Of a URI; each takes time on the event loop, and who may use little may send much."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BLANK: Final = re.compile(r"\s")
_BETWEEN: Final = re.compile(r"[/\\?#]")
_EXPRESSION: Final = re.compile(r"\{[^{}]*\}")


def may_step_back(uri: str) -> bool:
    """Whether some server may resolve ``uri`` to what does not begin like it.

    So may be taken what is no URI for certain: with blanks or control characters, encoded over and
    over, of bytes that are not UTF-8, or longer than a URI is.
    """
    if len(uri) > _LONGEST_CHARS:
        return True
    if _BLANK.search(uri) is not None:
        return True  # blanks of a URI are encoded
    for _ in range(_ROUNDS):
        if _CONTROL.search(uri) is not None or _steps_back(uri):
            return True
        try:
            decoded = unquote(uri, errors="strict")
        except UnicodeDecodeError:
            return True  # also ``%c0%ae``, once taken for a dot
        if decoded == uri:
            return False
        uri = decoded
    return True


def template_may_step_back(template: str) -> bool:
    """Whether ``template`` (RFC 6570) steps back by itself, whatever is filled in."""
    return len(template) > _LONGEST_CHARS or may_step_back(_EXPRESSION.sub("", template))


def _steps_back(uri: str) -> bool:
    if not uri.isascii():
        uri = unicodedata.normalize("NFKC", uri)  # wide dots and the like
    return any(_is_step(segment) for segment in _BETWEEN.split(uri))


def _is_step(segment: str) -> bool:
    return ".." in segment and segment.partition(";")[0].strip() == ".."
