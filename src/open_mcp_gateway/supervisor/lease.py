"""What a caller holds of a running server."""

from __future__ import annotations

from typing import Protocol

from open_mcp_gateway.auth.principal import Holder
from open_mcp_gateway.outbound.peer import Peer


class Lease(Protocol):
    """A running instance of a server. Lives as long as the instance; not made per call."""

    @property
    def peer(self) -> Peer: ...

    @property
    def serving(self) -> bool:
        """As long as this holds, it takes new calls, and whoever was given it would be given it
        again for the same manner."""

    def began(self, holder: Holder) -> None:
        """Count one request of ``holder`` and mark activity. On the hot path: no allocation, no
        lock."""

    def ended(self, holder: Holder, *, failed: bool, cause: str | None = None) -> None:
        """The request is over; mark activity, and count an error if it failed.

        ``cause`` is what the caller was told of a server that broke.
        """
