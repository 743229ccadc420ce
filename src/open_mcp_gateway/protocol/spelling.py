"""Names of members in every spelling that some parser takes for them.

Go's ``encoding/json`` and options of Jackson and .NET read members whatever their case, by the
rules of Unicode; Python models often read ``task_id`` for ``taskId``. A check that looks for one
spelling alone would be walked around on such a server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

_LONGEST_CHARS: Final = 64
"""Of names that any parser could take for one of ours."""

_DROPPED: Final = str.maketrans("", "", "_-\u0307")
"""Beside ``_`` and ``-`` the dot that is left of a Turkish capital I."""


def folded(name: str) -> str:
    """The same for all spellings of a name. Long names, which cannot be meant, stay as they are."""
    if len(name) > _LONGEST_CHARS:
        return name
    # Both: upper takes the dotless i, casefold the long s and the Kelvin sign.
    return name.upper().casefold().translate(_DROPPED)


def spellings(names: Iterable[str]) -> Mapping[str, str]:
    """Each of ``names`` by what all its spellings fold to."""
    return {folded(name): name for name in names}


def misspelt(members: Iterable[str], guarded: Mapping[str, str]) -> str | None:
    """The first name of ``guarded`` (see ``spellings``) that is in ``members`` in another spelling
    than its own; None: there is none."""
    for member in members:
        name = guarded.get(folded(member))
        if name is not None and name != member:
            return name
    return None
