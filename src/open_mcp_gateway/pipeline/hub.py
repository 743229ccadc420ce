"""Client sessions that share one upstream connection, and who of them hears what from it.

A question goes to the one session a connection belongs to, never to another. On a connection that
several share nobody can be asked, and what might be about one caller's data reaches a session only
while its own calls are all that the server can be at work on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec
from msgspec import UNSET, Struct

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.names import KeyId, ServerId
from open_mcp_gateway.outbound.missed import missed
from open_mcp_gateway.outbound.peer import Peer, Question
from open_mcp_gateway.outbound.relation import (
    CANCELLED,
    ELICITED,
    LIST_CHANGES,
    LOGGED,
    PROGRESS,
    UPDATED,
    cancelled_of,
    task_of,
    with_progress_token,
)
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.memory import LEVELS, Memory
from open_mcp_gateway.protocol.faults import METHOD_NOT_FOUND
from open_mcp_gateway.protocol.jsonrpc import Incoming, encode
from open_mcp_gateway.protocol.surrogates import Lenient


class _Params(Struct):
    uri: str = ""
    level: str = ""


_params = Lenient(_Params)


class Listener(Protocol):
    """A session as the hub sees it."""

    means: Means
    permit: Permit

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
        if incoming.method == CANCELLED:
            self._withdraw(incoming)
            return
        if incoming.method == PROGRESS:
            self._progressed(message, incoming)
            return
        named = self._named(incoming)
        meant = self._only_one_meant() if named is None else None
        for session in named or (() if meant is None else (meant,)):
            if incoming.method != LOGGED or self.wants(session, incoming):
                session.deliver(message, urgent=session is meant)

    def wants(self, session: Listener, logged: Incoming) -> bool:
        """Whether a log message is of a level that the session wants, or has no level at all."""
        level, wanted = _read(logged).level, session.level or self.memory.unasked
        if wanted is None or level not in LEVELS:
            return True
        return LEVELS.index(level) >= LEVELS.index(wanted)

    def _named(self, incoming: Incoming) -> Iterable[Listener] | None:
        """The sessions that a notification is about by what it names; None where it names nothing
        that would tell. What is not known to be anybody's is about nobody."""
        method = incoming.method
        if method in LIST_CHANGES or (method == UPDATED and self.exclusive):
            return tuple(self._sessions)
        if self.exclusive:
            return None
        if method == UPDATED:
            uri = _read(incoming).uri
            return [session for session in self._sessions if uri in session.subscriptions]
        if method == ELICITED:  # nobody is asked anything where several share
            return ()
        task = task_of(incoming)
        return None if task is None else self._owners(task)

    def _owners(self, task: str) -> list[Listener]:
        """The sessions of the key that was given this task."""
        busy = (who for who, one in self._left.items() if one.inflight)
        return [
            who for who in (*self._sessions, *busy) if who.means.handles.owns(*_place(who), task)
        ]

    def _progressed(self, message: bytes, incoming: Incoming) -> None:
        """Of a task, whose call is over; that of calls comes to them."""
        task = task_of(incoming)
        if task is None:
            return
        for owner in self._owners(task):
            token = owner.means.handles.token_of(*_place(owner), task)
            if token is not None:
                owner.deliver(with_progress_token(message, token), urgent=False)

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


def _place(session: Listener) -> tuple[KeyId, ServerId]:
    """By which handles are known."""
    return session.permit.principal.key_id, session.permit.entry.spec.id


def _read(incoming: Incoming) -> _Params:
    if incoming.params is UNSET:
        return _Params()
    try:
        return _params.decode(incoming.params)
    except msgspec.DecodeError:
        return _Params()
