"""A request of the gateway's own, awaited; for the few that are not on the hot path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.outbound.peer import Question
from open_mcp_gateway.protocol.faults import METHOD_NOT_FOUND
from open_mcp_gateway.protocol.jsonrpc import Incoming


class OwnRequest:
    """Its Waiter, and the Inquiry of a handshake; ``forget`` takes it off the peer's books."""

    __slots__ = ("_answer", "_done", "_error", "_forget", "_upstream_id")

    def __init__(
        self, upstream_id: int, forget: Callable[[int], None], done: asyncio.Future[None]
    ) -> None:
        self._upstream_id = upstream_id
        self._forget = forget
        self._done = done
        self._answer: bytes | None = None
        self._error: GatewayError | None = None

    @property
    def whose(self) -> None:
        """See ``Waiter``."""

    def answered(self, message: bytes, _upstream_id: int) -> None:
        self._answer = message
        self._settle()

    def failed(self, error: GatewayError) -> None:
        self._error = error
        self._settle()

    def related(self, message: bytes, incoming: Incoming) -> None:
        """Nothing was asked for that could come."""

    def asked(self, question: Question) -> None:
        question.refuse(METHOD_NOT_FOUND, "Method not found")

    async def within(self, seconds: float | None) -> bytes | None:
        """The raw response; None when ``seconds`` (None: no bound) pass in silence.

        Raises:
            UpstreamError: the connection is gone, or the answer was broken.
        """
        if not self._done.done():
            await asyncio.wait({self._done}, timeout=seconds)
        if self._error is not None:
            raise self._error
        return self._answer

    def abandon(self) -> None:
        """Wait no more and tell the server nothing: ``initialize`` must not be cancelled.

        Spec: 2025-11-25 basic/utilities/cancellation. A late answer is dropped.
        """
        self._forget(self._upstream_id)
        self._settle()

    def _settle(self) -> None:
        if not self._done.done():
            self._done.set_result(None)
