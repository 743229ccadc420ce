"""Calls that a server refused as if it knew nothing of their session, and what is true of that.

Spec: 2025-11-25 basic/transports#session-management asks for 404 and a new session then. Published
servers say 400 instead, with a JSON-RPC error or a line of text, and others say so to one bad
request; a stateless server says 400 with -32022, or that there is no such endpoint.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final, Protocol

import anyio
from msgspec import Struct

from open_mcp_gateway.errors import Busy, UpstreamError
from open_mcp_gateway.outbound.answer import Reply, error_code
from open_mcp_gateway.outbound.discovery import INQUIRY_S, is_outage
from open_mcp_gateway.outbound.doubt import NOT_AS_IT_WAS, Doubt
from open_mcp_gateway.outbound.handshake import UNSUPPORTED_VERSION
from open_mcp_gateway.outbound.http import NO_ENDPOINT, HttpPeer
from open_mcp_gateway.outbound.http_call import HttpCall
from open_mcp_gateway.outbound.http_opening import Refused, Session, end_session, open_session
from open_mcp_gateway.outbound.link import Link
from open_mcp_gateway.outbound.peer import Manner
from open_mcp_gateway.protocol.faults import METHOD_NOT_FOUND
from open_mcp_gateway.protocol.jsonrpc import Incoming, request

_BAD_REQUEST: Final = 400
_GONE: Final = 404
_FIRST_ID: Final = 1
"""In a session of its own; ``initialize`` has 0."""


class Finding(enum.Enum):
    """What is true of a session in doubt."""

    STANDS = "stands"
    """Or nobody can tell: silence, outages and refused credentials are no word about it."""

    OVER = "over"
    """The server opens sessions, and does not know this one."""

    CHANGED = "changed"
    """The server has no sessions any more."""

    UNTOLD = "untold"
    """It stands, as far as can be seen: the server refuses ``ping`` in a new session, too."""


class Inquiry(Struct, frozen=True):
    """What came of asking."""

    finding: Finding
    refusal: Reply | None = None
    """How ``ping`` was refused in the session."""


class InSession(Protocol):
    """The peer whose session it is."""

    link: Link
    manner: Manner

    @property
    def session(self) -> Session | None:
        """None while a new one is opened."""

    def next_id(self) -> int:
        """For a request of the gateway's own."""

    def concluded(self, call: HttpCall, reply: Reply, answer: Incoming | None) -> None:
        """The response is what came of the call."""

    def again(self, call: HttpCall) -> None:
        """Send it in the session of now."""

    def session_over(self, refused: list[HttpCall]) -> None:
        """The server does not know the session any more."""

    def changed(self, refused: list[HttpCall]) -> None:
        """The server has no sessions any more."""


class Refusals:
    """The refused calls of a peer, until it is known whether their session stands.

    Of those that were refused because it does not, nothing was done: they go on.
    """

    __slots__ = ("_asked_about", "_doubt", "_inquiry", "_kept", "_last", "_peer", "_telling")

    def __init__(self, peer: InSession) -> None:
        self._peer = peer
        self._doubt = Doubt(self._denied, self._confirmed, self._dismissed)
        self._kept: dict[HttpCall, tuple[Reply, Incoming | None]] = {}
        self._asked_about: Session | None = None
        self._inquiry = Inquiry(Finding.STANDS)
        self._last: Reply | None = None
        """How the session before the present one was refused."""
        self._telling = True
        """Whether the server knows a session shows in how it takes ``ping``."""

    def admit(self, call: HttpCall, reply: Reply, answer: Incoming | None) -> bool:
        """Whether this may be no answer to the call, which is seen to then."""
        session = self._peer.session
        if call.session is not session:  # which is over
            if call.repaired or not _not_taken(call, reply, answer, self._last):
                return False
            call.repaired = True
            self._peer.again(call)
            return True
        if session is None or not self._doubtful(session, call, reply, answer):
            return False
        self._kept[call] = reply, answer
        self.arise()
        return True

    def arise(self) -> None:
        """Something else than a call was refused."""
        if self._peer.session is not None:
            self._doubt.arise()

    async def dispel(self) -> None:
        """Ask no more."""
        await self._doubt.dispel()

    def clear(self) -> None:
        """The calls have their outcomes from elsewhere."""
        self._kept.clear()

    def _doubtful(
        self, session: Session, call: HttpCall, reply: Reply, answer: Incoming | None
    ) -> bool:
        if _of_endpoint(reply, answer):
            return True
        refused = session.has_id and self._telling and reply.status == _BAD_REQUEST
        return refused and not _unknown_method(answer, call.id)

    async def _denied(self) -> bool:
        peer = self._peer
        self._asked_about = session = peer.session
        if session is None:
            return False
        self._inquiry = await inquire(peer.link, session, peer.manner, peer.next_id())
        return self._inquiry.finding in {Finding.OVER, Finding.CHANGED}

    def _confirmed(self) -> None:
        peer, finding = self._peer, self._inquiry.finding
        self._last = self._inquiry.refusal
        refused = self._parted()
        if finding is Finding.CHANGED:
            peer.changed(refused)
        elif peer.session is self._asked_about:
            peer.session_over(refused)
        else:  # somebody else has found out
            for call in refused:
                peer.again(call)

    def _dismissed(self) -> None:
        self._telling = self._telling and self._inquiry.finding is not Finding.UNTOLD
        kept, self._kept = self._kept, {}
        for call, (reply, answer) in kept.items():
            self._peer.concluded(call, reply, answer)

    def _parted(self) -> list[HttpCall]:
        """Those that go on; the others have their answers."""
        kept, self._kept = self._kept, {}
        refused = []
        for call, (reply, answer) in kept.items():
            if not call.repaired and _not_taken(call, reply, answer, self._last):
                call.repaired = True
                refused.append(call)
            else:
                self._peer.concluded(call, reply, answer)
        return refused


def lose_changed(peer: HttpPeer, refused: Iterable[HttpCall], why: str = NOT_AS_IT_WAS) -> None:
    """Lose a server that is something else now; ``refused`` were not done, so whoever made them may
    go on with what it is."""
    theirs = [call for call in refused if peer.forget(call)]
    peer.lose(why)
    for call in theirs:
        error = peer.link.unavailable(why)
        error.untaken = True
        call.waiter.failed(error)


def _of_endpoint(reply: Reply, answer: Incoming | None) -> bool:
    """No endpoint took the request, or none that knows requests of sessions."""
    if answer is None:
        return reply.status in NO_ENDPOINT
    return error_code(answer) == UNSUPPORTED_VERSION


def _unknown_method(answer: Incoming | None, upstream_id: int) -> bool:
    """It was read, so its session is known."""
    return (
        answer is not None and answer.id == upstream_id and error_code(answer) == METHOD_NOT_FOUND
    )


def _not_taken(
    call: HttpCall, reply: Reply, answer: Incoming | None, refusal: Reply | None
) -> bool:
    """Whether this is not what came of the call; ``refusal`` is how ``ping`` was refused. A call
    that acts must have got the same word for word: its session may have ended after it."""
    if _of_endpoint(reply, answer):
        return True
    if refusal is None or reply.status != refusal.status:
        return False
    other = refusal.message
    if answer is None or other is None:
        return answer is other and (call.replayable or reply.body == refusal.body)
    alike = error_code(answer) == error_code(other)
    return alike and (call.replayable or answer.error == other.error)


async def inquire(link: Link, session: Session, manner: Manner, ping_id: int) -> Inquiry:
    """Find out by ``ping`` what is true of the session. Where that is refused with 400, a session
    opened for the purpose shows whether the server refuses it anywhere."""
    try:
        with anyio.fail_after(INQUIRY_S):
            reply = await _ping(link, session, ping_id)
            finding = _judge(session, reply, ping_id) or await _compare(link, manner, reply)
    except (UpstreamError, Busy, TimeoutError):
        return Inquiry(Finding.STANDS)
    return Inquiry(finding, reply)


async def _ping(link: Link, session: Session, ping_id: int) -> Reply:
    ping = request(ping_id, "ping", None)
    return await link.ask(session.headers, ping, ping_id, replayable=True)


def _judge(session: Session, reply: Reply, ping_id: int) -> Finding | None:
    """What the answer to ``ping`` says; None where another session has to tell."""
    answer = reply.message
    if _of_endpoint(reply, answer):
        forgotten = answer is None and session.has_id and reply.status == _GONE
        return Finding.OVER if forgotten else Finding.CHANGED
    if not session.has_id or reply.status != _BAD_REQUEST or _unknown_method(answer, ping_id):
        return Finding.STANDS
    return None


async def _compare(link: Link, manner: Manner, refusal: Reply) -> Finding:
    opened = await open_session(link, manner)
    if isinstance(opened, Refused):
        return Finding.STANDS if is_no_word(opened.reply) else Finding.CHANGED
    try:
        other = await _ping(link, opened, _FIRST_ID)
    finally:
        await end_session(link, opened)
    return Finding.UNTOLD if other.status == refusal.status else Finding.OVER


def is_no_word(reply: Reply) -> bool:
    """About the moment, or about credentials."""
    return is_outage(reply) or reply.status in {401, 403}
