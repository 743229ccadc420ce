"""What a caller holds of a running server."""

from __future__ import annotations

from typing import Protocol

from open_mcp_gateway.outbound.peer import Peer


class Lease(Protocol):
    """A running instance of a server. Lives as long as the instance; not made per call."""

    @property
    def peer(self) -> Peer: ...

    def began(self) -> None:
        """Count one request and mark activity. On the hot path: no allocation, no lock."""

    def ended(self, *, failed: bool) -> None:
        """The request is over; mark activity, and count an error if it failed."""
