"""What a server remembers of all who share one connection to it, and what is on its way there.

A server may take requests that are on their way at once in any order, and whether it has done what
it never answered nobody can tell. So when the last one about a thing has its outcome, the server is
told once more what is wanted, if something else may be what it was left with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import UNSET, Raw, Struct

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.outbound.peer import Peer, Question
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.remembered import SET_LEVEL, SUBSCRIBE, UNSUBSCRIBE
from open_mcp_gateway.protocol.faults import INTERNAL_ERROR
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming, decode_incoming, encode

LEVELS: Final = (
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
)
"""From the most to the least verbose (RFC 5424 section 6.2.1)."""

UNASKED: Final = "info"
"""From which level on most servers send log messages to who asked for none."""


class _Crossing(Struct):
    """Requests about one resource without an outcome, and what those that have one may have left:
    a subscription, none, or both."""

    open: int = 0
    left: set[bool] = set()


class Memory:
    """Of one server about one connection; ``subscribers`` says how many there want to hear of
    changes to a resource, ``exclusive`` that it belongs to one session.

    ``done`` says whether the server did what it was asked for; None: nobody can tell.
    """

    __slots__ = ("_agreed", "_asked", "_crossings", "_exclusive", "_left", "_peer", "_subscribers")

    def __init__(self, peer: Peer, subscribers: Callable[[str], int], *, exclusive: bool) -> None:
        self._peer = peer
        self._subscribers = subscribers
        self._exclusive = exclusive
        self._crossings: dict[str, _Crossing] = {}
        self._agreed: str | None = None
        """The most verbose level that the server has agreed to."""

        self._asked: list[str] = []
        """Levels asked for without an outcome."""

        self._left: set[str] = set()
        """Levels that the server may have been left with since nothing was asked for."""

    # ── subscriptions ────────────────────────────────────────────────────────────────────────────

    def about(self, uri: str) -> None:
        """A request about that resource is sent now."""
        self._crossings.setdefault(uri, _Crossing()).open += 1

    def settled(
        self, permit: Permit, means: Means, uri: str, *, subscribe: bool, done: bool | None
    ) -> None:
        """It has its outcome: to subscribe, or no longer to."""
        crossing = self._crossings[uri]
        crossing.open -= 1
        if done is not False:
            crossing.left.add(subscribe)
        if crossing.open:
            return
        del self._crossings[uri]
        wanted = self._subscribers(uri) > 0
        if crossing.left - {wanted}:
            self.tell(permit, means, uri, subscribe=wanted)

    def tell(self, permit: Permit, means: Means, uri: str, *, subscribe: bool) -> None:
        """Have the server send news of that resource, or no longer."""

        def settle(*, done: bool) -> None:
            self.settled(permit, means, uri, subscribe=subscribe, done=done)

        self.about(uri)
        method = SUBSCRIBE if subscribe else UNSUBSCRIBE
        self._send(permit, means, Call(method, b"0", {"uri": Raw(encode(uri))}), _Told(settle))

    # ── the log level ────────────────────────────────────────────────────────────────────────────

    @property
    def unasked(self) -> str | None:
        """From which level on a session that set none is to hear log messages: as if it were alone,
        whatever others made the server send. None: all that comes, for nobody made it."""
        touched = self._agreed is not None or self._asked or self._left
        return UNASKED if touched and not self._exclusive else None

    def covers(self, level: str) -> bool:
        """Whether the server has agreed to send as much already."""
        return not self._exclusive and _reaches(self._agreed, level)

    def level_for(self, level: str) -> str:
        """The level to ask the server for, which is sent now.

        One serves all who share the connection: what was wanted before, what others are asking for,
        and what most servers send unasked. Each session then gets what it wants.
        """
        needed = level
        if not self._exclusive:
            needed = _most_verbose(level, self._agreed or UNASKED, *self._asked)
        self._asked.append(needed)
        return needed

    def level_settled(
        self, permit: Permit, means: Means, asked_for: str, *, done: bool | None
    ) -> None:
        """That has its outcome."""
        self._asked.remove(asked_for)
        if done is not False:
            self._left.add(asked_for)
        if done:
            self._agreed = _most_verbose(asked_for, self._agreed or asked_for)
        agreed = self._agreed
        if self._exclusive or self._asked or agreed is None:
            return
        left, self._left = self._left, set()
        if not all(_reaches(level, agreed) for level in left):
            self.tell_level(permit, means, agreed)

    def have_level(self, permit: Permit, means: Means, level: str) -> None:
        """Ask the server for that level, unless it sends as much or is asked to already."""
        asked = self._asked if not self._exclusive else ()
        if not self.covers(level) and not any(_reaches(one, level) for one in asked):
            self.tell_level(permit, means, level)

    def tell_level(self, permit: Permit, means: Means, level: str) -> None:
        """Ask the server for that level."""
        needed = self.level_for(level)

        def settle(*, done: bool) -> None:
            self.level_settled(permit, means, needed, done=done)

        call = Call(SET_LEVEL, b"0", {"level": Raw(encode(needed))})
        self._send(permit, means, call, _Told(settle))

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _send(self, permit: Permit, means: Means, call: Call, told: _Told) -> None:
        """Not at all if the connection is gone."""
        deadline_s = means.clock.monotonic() + means.timeout_s(permit)
        try:
            self._peer.call(permit, call, told, deadline_s=deadline_s)
        except GatewayError as error:
            told.failed(error)


class _Told:
    """Waits for what nobody waits for. What fails is not tried again: it would fail for ever."""

    whose = None

    def __init__(self, settle: Callable[..., None]) -> None:
        self._settle = settle

    def answered(self, message: bytes, upstream_id: int) -> None:  # noqa: ARG002 - as Waiter's
        self._settle(done=decode_incoming(message).error is UNSET)

    def failed(self, error: GatewayError) -> None:  # noqa: ARG002 - as Waiter's
        self._settle(done=False)

    def related(self, message: bytes, incoming: Incoming) -> None: ...

    def asked(self, question: Question) -> None:
        question.refuse(INTERNAL_ERROR, "nobody is there to be asked")


def _most_verbose(*levels: str) -> str:
    return min(levels, key=LEVELS.index)


def _reaches(level: str | None, wanted: str) -> bool:
    """Whether a server at ``level`` sends all that ``wanted`` asks for."""
    return level is not None and LEVELS.index(level) <= LEVELS.index(wanted)
