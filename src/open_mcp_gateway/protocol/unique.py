"""Objects in which a member is there twice: parsers differ on which of the two counts. Pure."""

from __future__ import annotations

import json
from typing import Any

from open_mcp_gateway.errors import InvalidRequest, MalformedMessage

_SHOWN_CHARS = 64


def check_members(text: bytes, *, deep: bool = True) -> None:
    """Looks at every object of a JSON text, or at the outermost alone.

    Raises:
        InvalidRequest: a member is there twice; says which.
        MalformedMessage: it is not JSON, or nested too deeply.
    """
    hook = _checked if deep else list
    try:
        # Numbers stay text: turning very long ones into numbers takes very long.
        found = json.loads(text, object_pairs_hook=hook, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        # Without the cause, which can hold a part of the text.
        raise MalformedMessage("the body is not JSON") from None
    if not deep and isinstance(found, list):
        _checked([one for one in found if isinstance(one, tuple)])


def _checked(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise InvalidRequest(f"member {name[:_SHOWN_CHARS]!r} appears twice; send it once")
        seen.add(name)
