"""What carries messages between the gateway and one server, and where it delivers them."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from open_mcp_gateway.errors import GatewayError


class Loss(Struct, frozen=True):
    """Why a connection is over. Both texts are scrubbed."""

    what: str
    """Reads on after ``Server 'x'``: ``exited with code 3``."""

    detail: str = ""
    """Whole sentences, e.g. the last stderr lines."""


class Channel(Protocol):
    """Carries whole messages to one server and gives what comes back to its Receiver."""

    full: bool
    """The server takes less than it is sent, and the bound on what waits is reached."""

    @property
    def pid(self) -> int | None: ...

    def send(self, message: bytes, upstream_id: int | None, /) -> None:
        """Send soon, in order. ``upstream_id`` is that of a request, for ``Receiver.undelivered``.

        Never raises and never calls the receiver from inside; once closed it does nothing.
        """

    def give_up(self) -> None:
        """The server broke the protocol beyond repair: begin to close, do not wait."""

    async def aclose(self) -> None:
        """Close in the orderly way, then by force; bounded, completes under cancellation."""


class Receiver(Protocol):
    """Where a Channel delivers."""

    def message(self, message: bytes) -> None:
        """One message, without framing."""

    def overlong(self, front: bytes, back: bytes) -> None:
        """A message over the limit was skipped; these are its two ends."""

    def undelivered(self, upstream_id: int, error: GatewayError, *, doubtful: bool) -> None:
        """The request did not get to the server; ``doubtful``: nobody can tell whether it did."""

    def awaits(self, upstream_id: int) -> bool:
        """Whether the request has no outcome yet."""

    def lost(self, loss: Loss) -> None:
        """The connection is over without ``aclose``; nothing follows."""
