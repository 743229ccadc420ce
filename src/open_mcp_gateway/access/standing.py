"""Whether what is open may stay open now that keys, tenants or the catalog have changed. Pure."""

from __future__ import annotations

from typing import Protocol, final

from open_mcp_gateway.access.authorize import authorize
from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.identify import Holding, rights_changed, within
from open_mcp_gateway.auth.principal import Principal
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.names import KeyId


class Door(Protocol):
    """Who lets callers in: authentication switched on or off."""

    def loss(self, principal: Principal, client: str | None = None) -> GatewayError | None: ...
    def holding(self, key_id: KeyId) -> Holding | None: ...


@final
class Standing:
    """What ``door`` and ``snapshot`` leave of what was open under the door ``before``."""

    __slots__ = ("_before", "_door", "_keeps_networks", "_snapshot")

    def __init__(self, door: Door, before: Door, snapshot: Snapshot) -> None:
        self._door = door
        self._before = before
        self._snapshot = snapshot
        self._keeps_networks: dict[KeyId, bool] = {}
        """Of the keys that were asked about: each may have very much open."""

    def loss(self, permit: Permit) -> GatewayError | None:
        """Why what is open by ``permit`` has to end, another error each time; None: it may go on.

        From where each thing was opened is not known, so a key that takes networks away takes
        everything with it. What becomes of a server that has left the catalog is not said here.
        """
        principal = permit.principal
        lost = self._door.loss(principal)
        if lost is not None:
            return lost
        has = self._door.holding(principal.key_id)
        if has is None or not self._may_come_from_where_it_did(has):
            return rights_changed()
        entry = self._snapshot.entries.get(permit.entry.spec.id)
        if entry is None or entry is permit.entry:
            return None
        try:
            authorize(has.principal, permit.permission, entry)
        except GatewayError as error:
            return error
        return None

    def _may_come_from_where_it_did(self, has: Holding) -> bool:
        key_id = has.principal.key_id
        keeps = self._keeps_networks.get(key_id)
        if keeps is None:
            was = self._before.holding(key_id)
            keeps = was is not None and within(was.networks, has.networks)
            self._keeps_networks[key_id] = keeps
        return keeps
