"""What a session is told after a break in which its server's news went unheard.

Spec: 2025-11-25 server/tools#list-changed-notification and the same for prompts and resources: only
what the server declared may be sent. Each says no more than that it is worth looking again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Raw, Struct

from open_mcp_gateway.outbound.peer import Handshake
from open_mcp_gateway.outbound.relation import UPDATED
from open_mcp_gateway.protocol.jsonrpc import encode, notification
from open_mcp_gateway.protocol.surrogates import Lenient

_LISTS: Final = ("tools", "prompts", "resources")


class _Agreed(Struct):
    capabilities: dict[str, Raw]


class _Feature(Struct):
    list_changed: bool = msgspec.field(name="listChanged", default=False)


_agreed = Lenient(_Agreed)
_feature = Lenient(_Feature)


def missed(handshake: Handshake, subscriptions: Iterable[str] = ()) -> list[bytes]:
    """Notifications for all lists and resources that the client of a session with this handshake
    was to hear of."""
    lists = [f"{name}/list_changed" for name in _LISTS if _tells(handshake, name)]
    told = [notification(f"notifications/{what}", None) for what in lists]
    told += [notification(UPDATED, encode({"uri": uri})) for uri in subscriptions]
    return told


def _tells(handshake: Handshake, name: str) -> bool:
    """Whether the server declared that it says when that list changes."""
    try:
        declared = _agreed.decode(handshake.result).capabilities.get(name, Raw(b"{}"))
        return _feature.decode(declared).list_changed
    except msgspec.DecodeError:
        return False
