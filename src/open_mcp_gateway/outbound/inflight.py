"""A call that has no outcome yet."""

from __future__ import annotations

import logging
from typing import Protocol

from open_mcp_gateway.errors import GatewayError, InternalError, UpstreamBroken
from open_mcp_gateway.outbound.peer import Waiter
from open_mcp_gateway.protocol.jsonrpc import Call
from open_mcp_gateway.protocol.nesting import gave_up_reading

_log = logging.getLogger(__name__)


def not_handed_on(error: Exception, server: str) -> GatewayError:
    """What a waiter is told when ``error`` came of handing an answer on to it. Goes to the log, if
    that is no fault of the server's."""
    if gave_up_reading(error):
        text = "answered with JSON nested too deeply; the call may have taken effect"
        return UpstreamBroken(f"Server '{server}' {text}")
    _log.error("answer could not be handed on", exc_info=error, extra={"server": server})
    return InternalError("internal error")


class Books(Protocol):
    """Where calls in flight are kept."""

    def watch(self, deadline_s: float) -> None:
        """The deadline of one of them has moved to this moment."""

    def withdraw(self, upstream_id: int, reason: str) -> None:
        """Forget the call and tell the server."""


class InFlight:
    """One entry; the caller's Ticket."""

    __slots__ = ("books", "call", "deadline_s", "id", "waiter")

    def __init__(
        self, books: Books, upstream_id: int, call: Call, waiter: Waiter, deadline_s: float
    ) -> None:
        self.books = books
        self.id = upstream_id
        self.call = call
        self.waiter = waiter
        self.deadline_s = deadline_s

    @property
    def of_caller(self) -> bool:
        """Not one of the gateway's own, which change nothing whether they arrive or not."""
        return self.call.id is not None

    def extend(self, deadline_s: float) -> None:
        """See ``Ticket``."""
        self.deadline_s = deadline_s
        self.books.watch(deadline_s)

    def cancel(self, reason: str) -> None:
        """See ``Ticket``."""
        self.books.withdraw(self.id, reason)

    def broken(self, server: str, what: str, detail: str = "") -> UpstreamBroken:
        """What the waiter is told where the server does ``what`` instead of answering."""
        doubt = "; it may have taken effect" if self.of_caller else ""
        return UpstreamBroken(f"Server '{server}' {what}{doubt}. {detail}".rstrip())

    def broken_off(self, server: str, what: str, detail: str) -> UpstreamBroken:
        """The same where the connection is over."""
        return self.broken(server, f"{what} during the call" if self.of_caller else what, detail)

    def in_doubt(self, error: GatewayError) -> GatewayError:
        """``error``, where nobody can tell whether the server got the call."""
        doubt = "; the call may have taken effect" if self.of_caller else ""
        return type(error)(error.public + doubt)
