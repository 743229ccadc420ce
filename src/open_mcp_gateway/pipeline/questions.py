"""What a server has asked one client, until there is an answer.

Spec: 2025-11-25 client/elicitation, client/sampling, client/roots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from msgspec import UNSET, Struct

from open_mcp_gateway.clock import Clock
from open_mcp_gateway.outbound.peer import Question
from open_mcp_gateway.protocol.faults import INTERNAL_ERROR
from open_mcp_gateway.protocol.jsonrpc import Incoming, notification, request

Channel: TypeAlias = Callable[[bytes], None]
"""Takes one message for the client."""

ANSWER_S: Final = 600.0
"""How long a person may take; afterwards the server is told that nobody answered."""


class _Posed(Struct, frozen=True):
    question: Question
    channel: Channel
    until_s: float


class Questions:
    """Asked under ids of this client's own, so that no other's answer can be taken for its."""

    __slots__ = ("_clock", "_count", "_posed")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._posed: dict[int, _Posed] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._posed)

    def pose(self, question: Question, channel: Channel) -> None:
        """Ask the client, on this channel."""
        self.expire()
        self._count += 1
        until_s = self._clock.monotonic() + ANSWER_S
        self._posed[self._count] = _Posed(question, channel, until_s)
        params = None if question.params is UNSET else bytes(question.params)
        channel(request(self._count, question.method, params))

    def answer(self, incoming: Incoming) -> None:
        """The client's response; one to nothing that was asked is dropped."""
        posed = self._posed.pop(incoming.id, None) if isinstance(incoming.id, int) else None
        if posed is not None:
            posed.question.answer(incoming)

    def withdraw(self, raw_id: bytes) -> None:
        """The server no longer wants an answer to its question of that id."""
        for number, posed in tuple(self._posed.items()):
            if posed.question.raw_id == raw_id:
                del self._posed[number]
                _take_back(number, posed)

    def expire(self) -> None:
        """Give up those that were asked too long ago."""
        now_s = self._clock.monotonic()
        for number, posed in tuple(self._posed.items()):
            if posed.until_s > now_s:
                return  # in the order of asking
            del self._posed[number]
            posed.question.refuse(INTERNAL_ERROR, "the client did not answer")

    def refuse_all(self, *, tell: bool = False) -> None:
        """The client can answer nothing any more; ``tell`` it so."""
        posed, self._posed = self._posed, {}
        for number, one in posed.items():
            if tell:
                _take_back(number, one)
            one.question.refuse(INTERNAL_ERROR, "the client is gone")


def _take_back(number: int, posed: _Posed) -> None:
    text = b'{"requestId":%d}' % number
    posed.channel(notification("notifications/cancelled", text))
