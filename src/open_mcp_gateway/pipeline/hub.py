"""Client sessions that share one upstream connection, and who of them hears what from it.

A question goes to the one session a connection belongs to, never to another. On a connection that
several share nobody can be asked, and what might be about one caller's data reaches a session only
while its own calls are all that is in flight.
"""

from __future__ import annotations

import contextlib
from typing import Final, Protocol

import msgspec
from msgspec import UNSET, Raw, Struct

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.outbound.missed import UPDATED, missed
from open_mcp_gateway.outbound.peer import Peer, Question
from open_mcp_gateway.outbound.relation import CANCELLED, LOGGED, cancelled_of
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.protocol.faults import INTERNAL_ERROR, METHOD_NOT_FOUND
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming, encode
from open_mcp_gateway.protocol.surrogates import Lenient

LIST_CHANGES: Final = frozenset(
    {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
    }
)

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


class _Params(Struct):
    uri: str = ""
    level: str = ""


_params = Lenient(_Params)


class Listener(Protocol):
    """A session as the hub sees it."""

    @property
    def level(self) -> str | None:
        """From which level on it wants log messages; None: whatever the server sends."""

    @property
    def subscriptions(self) -> set[str]: ...

    def deliver(self, message: bytes, *, urgent: bool) -> None:
        """Something from the server; ``urgent`` belongs to what is in flight, if anything is."""

    def pose(self, question: Question) -> None: ...

    def withdraw(self, raw_id: bytes) -> None:
        """The server no longer wants an answer to its question of that id."""


class Share:
    """How many calls one session has in flight on one connection; it keeps count itself."""

    __slots__ = ("inflight",)

    def __init__(self) -> None:
        self.inflight = 0


class Hub:
    """The audience of one upstream connection."""

    __slots__ = ("_left", "_peer", "_sessions", "exclusive", "level")

    def __init__(self, peer: Peer, *, exclusive: bool) -> None:
        self._peer = peer
        self._sessions: dict[Listener, Share] = {}
        self._left: dict[Listener, Share] = {}
        """Of sessions that are elsewhere now, with calls still in flight here."""

        self.exclusive = exclusive
        """The connection belongs to one session."""

        self.level: str | None = None
        """The most verbose level that the server has agreed to."""

    def tell(self, permit: Permit, means: Means, call: Call) -> None:
        """Send a request whose answer changes nothing; not at all if the connection is gone."""
        deadline_s = means.clock.monotonic() + means.timeout_s(permit)
        with contextlib.suppress(GatewayError):
            self._peer.call(permit, call, _Nobody(), deadline_s=deadline_s)

    def restore(self, permit: Permit, means: Means, session: Listener) -> None:
        """Tell the server what ``session`` had told the one before it, and the session that nobody
        heard what there was to hear in between."""
        for uri in session.subscriptions:
            self.tell(permit, means, Call("resources/subscribe", b"0", {"uri": Raw(encode(uri))}))
        needed = None if session.level is None else self.needed_level(session.level)
        if needed is not None:
            self.level = needed
            level = {"level": Raw(encode(needed))}
            self.tell(permit, means, Call("logging/setLevel", b"0", level))
        for message in missed(self._peer.handshake, session.subscriptions):
            session.deliver(message, urgent=False)

    def needed_level(self, level: str) -> str | None:
        """The level to ask the server for; None: it sends all that is wanted already.

        One level serves all who share the connection: what was wanted before, and what most servers
        send unasked. Each session then gets what it wants.
        """
        if self.exclusive:
            return level
        needed = min((level, self.level or "info"), key=LEVELS.index)
        return None if needed == self.level else needed

    def add(self, session: Listener) -> Share:
        """``session`` hears what is said here, and counts its calls on this very connection."""
        share = self._left.pop(session, None) or Share()
        self._sessions[session] = share
        return share

    def remove(self, session: Listener) -> None:
        """From now on it hears only what belongs to its calls that are still in flight here."""
        share = self._sessions.pop(session, None)
        if share is not None:
            self._left[session] = share
            self._left = {who: one for who, one in self._left.items() if one.inflight}

    def subscribers(self, uri: str) -> int:
        """How many sessions want to hear of changes to ``uri``."""
        return sum(uri in session.subscriptions for session in self._sessions)

    def notified(self, message: bytes, incoming: Incoming) -> None:
        method = incoming.method
        sessions = tuple(self._sessions)
        if method in LIST_CHANGES:
            for session in sessions:
                session.deliver(message, urgent=False)
            return
        if method == UPDATED:
            uri = _read(incoming).uri
            for session in sessions:
                if self.exclusive or uri in session.subscriptions:
                    session.deliver(message, urgent=False)
            return
        if method == CANCELLED:
            self._withdraw(incoming)
            return
        meant = self._only_one_meant()
        if meant is None or (method == LOGGED and not _wanted(meant, _read(incoming).level)):
            return
        meant.deliver(message, urgent=True)

    def _only_one_meant(self) -> Listener | None:
        """The session that something can be about: the owner of the connection, or the one whose
        calls are all that is in flight. Envelope calls are in flight without a session."""
        if self.exclusive:
            busy = (who for who, one in self._left.items() if one.inflight)
            return next(iter((*self._sessions, *busy)), None)
        inflight = self._peer.inflight
        shares = (*self._sessions.items(), *self._left.items())
        return next((who for who, one in shares if one.inflight == inflight > 0), None)

    def _withdraw(self, incoming: Incoming) -> None:
        named = cancelled_of(incoming)
        meant = self._only_one_meant()
        if self.exclusive and meant is not None and named is not None:
            meant.withdraw(encode(named))

    def asked(self, question: Question) -> None:
        meant = self._only_one_meant() if self.exclusive else None
        if meant is None:
            question.refuse(METHOD_NOT_FOUND, "no client here has declared that capability")
        else:
            meant.pose(question)


class _Nobody:
    """A waiter for answers that change nothing."""

    def answered(self, message: bytes, upstream_id: int) -> None: ...
    def failed(self, error: GatewayError) -> None: ...
    def related(self, message: bytes, incoming: Incoming) -> None: ...
    def asked(self, question: Question) -> None:
        question.refuse(INTERNAL_ERROR, "nobody is there to be asked")


def _read(incoming: Incoming) -> _Params:
    if incoming.params is UNSET:
        return _Params()
    try:
        return _params.decode(incoming.params)
    except msgspec.DecodeError:
        return _Params()


def _wanted(session: Listener, level: str) -> bool:
    if session.level is None or level not in LEVELS:
        return True
    return LEVELS.index(level) >= LEVELS.index(session.level)
