"""Handles and states where there is one caller alone: nobody to keep them from.

What it was given outlives this process, so nothing that it brings back is refused here; whoever
made it has the last word.
"""

from __future__ import annotations

from open_mcp_gateway.names import KeyId, ServerId
from open_mcp_gateway.pipeline.handles import Handles
from open_mcp_gateway.pipeline.states import StateSeal
from open_mcp_gateway.protocol.jsonrpc import Call


class SoleHandles(Handles):
    """Everything belongs to the one caller."""

    __slots__ = ()

    def check(self, caller: KeyId, server_id: ServerId, call: Call) -> None: ...

    def owns(self, caller: KeyId, server_id: ServerId, text: str) -> bool:  # noqa: ARG002 - nothing to tell apart
        return True

    def passed_on(self, caller: KeyId, server_id: ServerId, call: Call, message: bytes) -> bytes:
        self.learn(caller, server_id, call, message)
        return message


class NoSeal(StateSeal):
    """States pass as they are."""

    __slots__ = ()

    def opened(self, caller: KeyId, server_id: ServerId, call: Call) -> Call:  # noqa: ARG002 - nothing to tell apart
        return call

    def sealed(self, caller: KeyId, server_id: ServerId, call: Call, message: bytes) -> bytes:  # noqa: ARG002 - nothing to tell apart
        return message
