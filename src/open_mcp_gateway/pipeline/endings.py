"""What whoever has a request in flight is told when its session ends."""

from __future__ import annotations

from typing import Final

from open_mcp_gateway.errors import NotFound

SESSION_ENDED: Final = "session_ended"
"""The session is not to be found any more, but that is not why the request has no answer."""


def session_ended(why: str) -> NotFound:
    """An error of its own for each request."""
    error = NotFound(f"The session has ended: {why}")
    error.code = SESSION_ENDED
    return error
