"""Output of servers that is not JSON-RPC, such as the banner of a library that prints to stdout."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Final

from open_mcp_gateway.names import ServerId

_INTERVAL_S: Final = 60.0
"""At most one warning about one server in this time."""

_log = logging.getLogger(__name__)


class Noise:
    """What one server said that nobody can read."""

    __slots__ = ("_loop", "_messages", "_server", "_told_at_s")

    def __init__(self, server: ServerId) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._messages = 0
        self._told_at_s = -math.inf

    def heard(self, size_bytes: int) -> None:
        """One more message, of this size."""
        self._messages += 1
        now_s = self._loop.time()
        if now_s - self._told_at_s < _INTERVAL_S:
            return
        self._told_at_s = now_s
        _log.warning(
            "server sends what is not JSON-RPC; skipped",
            extra={"server": self._server, "messages": self._messages, "size_bytes": size_bytes},
        )
        self._messages = 0
