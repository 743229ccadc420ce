"""A request whose sender was let in, and who lets senders in."""

from __future__ import annotations

import math
from typing import Protocol

from msgspec import Struct

from open_mcp_gateway.auth.credential import RawHeaders
from open_mcp_gateway.auth.identify import Holding
from open_mcp_gateway.auth.principal import Principal
from open_mcp_gateway.errors import GatewayError, WrongKey
from open_mcp_gateway.inbound.arrival import UNKNOWN_SIZE, Arrival
from open_mcp_gateway.names import KeyId
from open_mcp_gateway.pipeline.reply import Reply


class Authenticator(Protocol):
    """Authentication switched on or off, as one of two types."""

    def authenticate(self, headers: RawHeaders, client: str) -> Holding: ...
    def loss(self, principal: Principal, client: str | None = None) -> GatewayError | None: ...
    def holding(self, key_id: KeyId) -> Holding | None: ...
    def opens(self, key_id: KeyId) -> bool: ...


class Admitted(Struct, frozen=True):
    """A request whose sender may come in; what it wants is not looked at yet."""

    arrival: Arrival
    ready: Reply | None = None
    """The answer, where it needs nothing more: to a preflight, or on an open route."""

    principal: Principal | None = None
    """Set whenever ``ready`` is not."""

    expects_continue: bool = False
    ends_s: float = math.inf
    """When its key expires; seconds since the epoch."""

    by: Authenticator | None = None
    """Who let it in."""

    most_bytes: int = UNKNOWN_SIZE
    """What its path takes of a body, where that is bounded by itself."""

    def check_still_in_force(self, authenticator: Authenticator, now_s: float) -> None:
        """A body can take its time, and what begins after the end of a key would not end with it.

        Raises:
            WrongKey: the key no longer opens to the sender.
            RightsChanged: not all that it did when the sender was let in.
        """
        if self.principal is None:
            return
        if self.ends_s <= now_s:
            raise WrongKey("Invalid API key", reason="expired")
        if self.by is not authenticator:
            lost = authenticator.loss(self.principal, self.arrival.client)
            if lost is not None:
                raise lost
