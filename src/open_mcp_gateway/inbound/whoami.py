"""What callers can learn of themselves, and what the roles are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.access.permit import Clearance
from open_mcp_gateway.auth.identify import ANONYMOUS_ROLE
from open_mcp_gateway.auth.principal import Permission, Platform, Principal
from open_mcp_gateway.auth.records import KeyRecord
from open_mcp_gateway.auth.scope import NOTHING, Everything, Selection, written
from open_mcp_gateway.clock import rfc3339_at
from open_mcp_gateway.errors import WrongKey
from open_mcp_gateway.inbound.handlers import Handler, OnCaller, OnGateway, Request
from open_mcp_gateway.inbound.routes import ANY_KEY, Route
from open_mcp_gateway.pipeline.reply import Reply

WARNS_BEFORE_S: Final = 14 * 86_400.0
"""How long before its end a key is told of it."""

_DAY_S: Final = 86_400.0
_ALL: Final = "*"


class Whoami:
    """Handlers; ``keyring`` gives the keys in force, ``now`` wall time in seconds."""

    def __init__(self, *, keyring: Callable[[], Keyring], now: Callable[[], float]) -> None:
        self.keyring = keyring
        self.now = now

    def routes(self) -> list[Route[Handler]]:
        """The part of the table."""
        return [
            Route(
                methods=("GET",), path="/whoami", permission=ANY_KEY, handler=OnCaller(self.show)
            ),
            Route(
                methods=("GET",),
                path="/admin/roles",
                permission=Permission.KEYS_READ,
                handler=OnGateway(self.roles),
            ),
        ]

    async def show(self, principal: Principal, _: Request) -> Reply:
        """Who the caller is and what it may do."""
        answer = rights_of(principal)
        if principal.role == ANONYMOUS_ROLE:
            answer |= {"name": ANONYMOUS_ROLE, "expires_at": None, "auth": "none", "warnings": []}
        else:
            answer |= self._known(self.keyring().keys.get(principal.key_id))
        return Reply(200, msgspec.json.encode(answer))

    def _known(self, record: KeyRecord | None) -> dict[str, object]:
        """What the principal does not carry, for no decision depends on it."""
        if record is None:  # gone since this request was let in
            raise WrongKey("Invalid API key")
        ends_s = record.expires_at
        return {
            "name": record.name,
            "expires_at": None if ends_s is None else rfc3339_at(ends_s),
            "auth": "api_key",
            "warnings": [] if ends_s is None else expiry_warnings(ends_s - self.now()),
        }

    async def roles(self, _clearance: Clearance, _query: bytes) -> Reply:
        """Every role with what it grants."""
        roles = {name: sorted(granted) for name, granted in self.keyring().roles.items()}
        return Reply(200, msgspec.json.encode({"roles": roles}))


def rights_of(principal: Principal) -> dict[str, object]:
    """What ``principal`` may do: role, holder and own scope together."""
    scope = principal.scope
    rights: dict[str, object] = {
        "key_id": principal.key_id,
        "tenant": None if isinstance(principal.holder, Platform) else principal.holder,
        "role": principal.role,
        "permissions": sorted(one for one in principal.permissions if principal.may(one)),
        "namespaces": _namespaces(principal),
        "servers": _shown(scope.servers),
        "tools": _shown(scope.tools),
        "resources": _shown(scope.resources),
        "prompts": _shown(scope.prompts),
    }
    if scope.deny_tools != NOTHING:
        rights["deny_tools"] = _shown(scope.deny_tools)
    return rights


def expiry_warnings(left_s: float) -> list[str]:
    """What to tell the owner of a key that ends in ``left_s`` seconds."""
    if left_s > WARNS_BEFORE_S:
        return []
    days = int(left_s // _DAY_S)
    if days < 1:
        return ["expires in less than a day"]
    return [f"expires in {days} day{'s' if days > 1 else ''}"]


def _namespaces(principal: Principal) -> str | list[str]:
    """Those of the holder that the key keeps; patterns only where the holder has everything."""
    own = principal.scope.namespaces
    if isinstance(principal.namespaces, Everything):
        return _shown(own)
    return sorted(one for one in principal.namespaces if one in own)


def _shown(chosen: Selection) -> str | list[str]:
    return _ALL if isinstance(chosen, Everything) else written(chosen)
