"""Client sessions that share one upstream connection, and who of them hears what from it.

A question goes to the one session a connection belongs to, never to another. On a connection that
several share nobody can be asked, and what might be about one caller's data reaches a session only
while its own calls are all that the server can be at work on.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec
from msgspec import UNSET, Struct

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.outbound.missed import UPDATED, missed
from open_mcp_gateway.outbound.peer import Peer, Question
from open_mcp_gateway.outbound.relation import CANCELLED, LOGGED, cancelled_of
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.memory import LEVELS, Memory
from open_mcp_gateway.protocol.faults import METHOD_NOT_FOUND
from open_mcp_gateway.protocol.jsonrpc import Incoming, encode
from open_mcp_gateway.protocol.surrogates import Lenient

LIST_CHANGES: Final = frozenset(
    {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
    }
)


class _Params(Struct):
    uri: str = ""
    level: str = ""


_params = Lenient(_Params)


class Listener(Protocol):
    """A session as the hub sees it."""

    @property
    def session_id(self) -> str:
        """The ``whose`` of its calls."""

    @property
    def level(self) -> str | None:
        """From which level on it wants log messages; None: what it would get alone."""

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

    __slots__ = ("_left", "_peer", "_sessions", "exclusive", "memory")

    def __init__(self, peer: Peer, *, exclusive: bool) -> None:
        self._peer = peer
        self._sessions: dict[Listener, Share] = {}
        self._left: dict[Listener, Share] = {}
        """Of sessions that are elsewhere now, with calls still in flight here."""

        self.exclusive = exclusive
        """The connection belongs to one session."""

        self.memory = Memory(peer, self.subscribers, exclusive=exclusive)

    def restore(self, permit: Permit, means: Means, session: Listener) -> None:
        """Tell the server what ``session`` had told the one before it, and the session that nobody
        heard what there was to hear in between."""
        for uri in session.subscriptions:
            self.memory.tell(permit, means, uri, subscribe=True)
        if session.level is not None:
            self.memory.have_level(permit, means, session.level)
        for message in missed(self._peer.handshake, session.subscriptions):
            session.deliver(message, urgent=False)

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
        if meant is None or (method == LOGGED and not self.wants(meant, incoming)):
            return
        meant.deliver(message, urgent=True)

    def wants(self, session: Listener, logged: Incoming) -> bool:
        """Whether a log message is of a level that the session wants, or has no level at all."""
        level, wanted = _read(logged).level, session.level or self.memory.unasked
        if wanted is None or level not in LEVELS:
            return True
        return LEVELS.index(level) >= LEVELS.index(wanted)

    def _only_one_meant(self) -> Listener | None:
        """The session that something can be about: the owner of the connection, or the one whose
        calls are all that the server can be at work on. Envelope calls belong to no session."""
        if self.exclusive:
            busy = (who for who, one in self._left.items() if one.inflight)
            return next(iter((*self._sessions, *busy)), None)
        inflight = self._peer.inflight
        shares = (*self._sessions.items(), *self._left.items())
        meant = next((who for who, one in shares if one.inflight == inflight > 0), None)
        if meant is None or self._peer.given_up_by_others(meant.session_id):
            return None
        return meant

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


def _read(incoming: Incoming) -> _Params:
    if incoming.params is UNSET:
        return _Params()
    try:
        return _params.decode(incoming.params)
    except msgspec.DecodeError:
        return _Params()
