"""Which era a connection is run in: the first message that gets somewhere decides.

Spec: 2026-07-28 basic/versioning (backward compatibility over stdio). A refused opener decides
nothing, so that a client of both eras can fall back on the same connection. Nor does a request
that belongs to neither: it is answered as the envelope would.
"""

from __future__ import annotations

from typing import Final

from open_mcp_gateway.errors import InvalidRequest, UnsupportedVersion
from open_mcp_gateway.pipeline.agreement import string_in
from open_mcp_gateway.protocol.classify import claims_modern
from open_mcp_gateway.protocol.eras import MODERN_VERSIONS, Era
from open_mcp_gateway.protocol.jsonrpc import Call

INITIALIZE: Final = "initialize"


class ConnectionEra:
    """What is known of a connection so far."""

    def __init__(self) -> None:
        self.decided: Era | None = None
        self._opening: bytes | None = None

    @property
    def opening(self) -> bool:
        """Whether ``initialize`` has no answer yet."""
        return self._opening is not None

    def of(self, call: Call) -> Era | None:
        """How to serve a request; None: as one that belongs to neither era.

        Raises:
            UnsupportedVersion, InvalidRequest: not on this connection any more.
        """
        claimed = claims_modern(call.params)
        if claimed and self.decided is Era.LEGACY:
            raise InvalidRequest(
                "this connection was opened with 'initialize'; it takes no request that names its "
                "own protocol version"
            )
        if self.decided is Era.MODERN and call.method == INITIALIZE and not claimed:
            raise UnsupportedVersion(
                "this connection is one of stateless requests",
                supported=MODERN_VERSIONS,
                requested=string_in(call.params or {}, "protocolVersion"),
            )
        if claimed:
            return Era.MODERN
        return Era.LEGACY if call.method == INITIALIZE else self.decided

    def opens(self, raw_id: bytes) -> None:
        """The session is being opened by the request of that id."""
        if self.decided is None:
            self.decided, self._opening = Era.LEGACY, raw_id

    def finished(self, raw_id: bytes, *, opened: bool) -> None:
        """A request is over; ``opened``: there is a session by now."""
        if raw_id == self._opening:
            self._opening = None
            if not opened:
                self.decided = None

    def spoke_modern(self) -> None:
        """A stateless request got somewhere."""
        if self.decided is None:
            self.decided = Era.MODERN
