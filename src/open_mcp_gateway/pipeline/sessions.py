"""The sessions of all clients, each bound to whoever opened it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Container
from typing import Final

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Principal
from open_mcp_gateway.errors import Busy, GatewayError, NotFound
from open_mcp_gateway.names import KeyId, ServerId
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.reply import Outlet
from open_mcp_gateway.pipeline.session import ClientSession
from open_mcp_gateway.pipeline.sink import HOLD_OPEN_S
from open_mcp_gateway.pipeline.streamlog import StreamLog

IDLE_S: Final = 3600.0
"""A session without a message, an open stream or a call in flight ends after this."""

MAX_SESSIONS_PER_KEY: Final = 1000
MAX_ENDED_STREAMS: Final = 32
MAX_ENDED_BYTES: Final = 1024 * 1024
"""Kept of one session for clients that missed the end of an answer; the oldest go first, but the
last one stays whatever its size."""

ENDED_S: Final = 60.0
"""How long they are kept."""

MAX_KEPT_BYTES: Final = 256 * 1024 * 1024
"""Kept of all sessions together; beyond it ended streams go at once."""


class HttpSession:
    """A session over Streamable HTTP: the core, and the streams it can be picked up on."""

    def __init__(self, core: ClientSession, principal: Principal) -> None:
        self.core = core
        self.principal = principal
        self.standalone = StreamLog(0)
        """What belongs to no request; read by GET."""

        self._streams: dict[int, StreamLog] = {0: self.standalone}
        self._made = 0

    @property
    def session_id(self) -> str:
        return self.core.session_id

    def new_stream(self) -> StreamLog:
        """The stream of one POST."""
        self._made += 1
        log = self._streams[self._made] = StreamLog(self._made)
        self._make_room()
        return log

    def _make_room(self) -> None:
        ended = [stream for stream in self._streams.values() if stream.ended]
        kept_bytes = sum(stream.size_bytes for stream in ended)
        for earlier, stream in enumerate(ended[:-1]):
            if kept_bytes <= MAX_ENDED_BYTES and len(ended) - earlier <= MAX_ENDED_STREAMS:
                break
            kept_bytes -= stream.size_bytes
            del self._streams[stream.stream_id]

    def stream(self, number: int) -> StreamLog | None:
        """One that can be picked up again."""
        return self._streams.get(number)

    def drop_reader(self, stream: StreamLog, outlet: Outlet) -> None:
        """Whoever read ``stream`` by ``outlet`` is gone; another may have taken over."""
        stream.detach(outlet)
        if stream is self.standalone and not stream.connected:
            self.core.close_channel(stream.send)

    @property
    def connected(self) -> bool:
        """Whether anybody reads any stream of it."""
        return any(stream.connected for stream in self._streams.values())

    @property
    def in_use(self) -> bool:
        """Whether a call is in flight or a stream is read."""
        return self.core.inflight > 0 or self.connected

    @property
    def kept_bytes(self) -> int:
        """What is kept for clients that come back."""
        return sum(stream.size_bytes for stream in self._streams.values())

    def sweep(self, now_s: float) -> None:
        """Called now and then: forget what nobody came back for."""
        self.core.sweep(now_s - HOLD_OPEN_S)
        for stream in tuple(self._streams.values()):
            if stream.ended and stream is not self.standalone and stream.age(now_s) > ENDED_S:
                del self._streams[stream.stream_id]
        self._make_room()

    def forget_ended(self) -> None:
        """Forget it all at once."""
        for stream in tuple(self._streams.values()):
            if stream.ended and stream is not self.standalone:
                del self._streams[stream.stream_id]

    def close(self, why: str = "its client is gone") -> None:
        """End the session and every stream of it."""
        self.core.close(why)
        for stream in self._streams.values():
            stream.end()
        self._streams.clear()  # connections may know the session for a while yet


class Sessions:
    """Finds a session for whoever opened it; for everybody else there is none."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._sessions: dict[str, HttpSession] = {}
        self._opening: set[HttpSession] = set()
        self._open: dict[KeyId, set[HttpSession]] = {}
        """By key, those too that are still being opened."""

    def open(self, permit: Permit) -> HttpSession:
        """A new session, not to be found before ``register``; ``end`` it if it comes to nothing.

        Clients that vanished must not keep those that come out: of too many sessions, the one that
        nobody has used for longest makes room.

        Raises:
            Busy: this key has too many, and all are in use.
        """
        principal = permit.principal
        if len(self._open.get(principal.key_id, ())) >= MAX_SESSIONS_PER_KEY:
            self._make_room(principal.key_id)
        own = self._open.setdefault(principal.key_id, set())
        if len(own) >= MAX_SESSIONS_PER_KEY:
            raise Busy("too many sessions are open with this key; end some", retry_after_s=60)
        core = ClientSession(self._means, permit, secrets.token_urlsafe(24))
        session = HttpSession(core, principal)
        own.add(session)
        self._opening.add(session)
        return session

    def _make_room(self, key_id: KeyId) -> None:
        unused = (
            session
            for session in self._sessions.values()
            if session.principal.key_id == key_id and not session.in_use
        )
        oldest = min(unused, key=lambda session: session.core.last_used_s, default=None)
        if oldest is not None:
            self.end(oldest)

    def count(self) -> int:
        """How many there are, those too that are still being opened."""
        return sum(map(len, self._open.values()))

    def register(self, session: HttpSession) -> None:
        """From now on it can be found."""
        self._opening.discard(session)
        if not session.core.closed:
            self._sessions[session.session_id] = session

    def find(self, permit: Permit, session_id: str) -> HttpSession:
        """
        Raises:
            NotFound: unknown, ended, of another server, somebody else's, or opened with rights that
                its caller has no more; all the same.
        """
        session = self._sessions.get(session_id)
        if session is not None and session.core.permit is permit:
            return session  # was found by it before, or opened
        if (
            session is None
            or not session.principal.is_same_caller(permit.principal)
            or session.core.permit.entry.spec.id != permit.entry.spec.id
            or not permit.principal.includes(session.core.permit.principal)
        ):
            raise NotFound("Session not found")
        core = session.core
        core.permit = permit  # by the definition and the rights that hold now
        if core.hung_up:  # its server is back
            core.hung_up = False
            core.rejoin()
        return session

    def end(self, session: HttpSession, why: str = "its client ended it") -> None:
        """End it; ``why`` is for who has a call in flight. Safe to call twice."""
        if session.core.closed:
            return
        self._opening.discard(session)
        self._sessions.pop(session.session_id, None)
        key_id = session.principal.key_id
        own = self._open.get(key_id, set())
        own.discard(session)
        if not own:
            self._open.pop(key_id, None)
        session.close(why)

    def end_if(self, unwanted: Callable[[HttpSession], bool]) -> None:
        """End every session that ``unwanted`` says so of."""
        for session in (*self._sessions.values(), *self._opening):
            if unwanted(session):
                self.end(session)

    def lock_out(self, loss: Callable[[Permit], GatewayError | None]) -> None:
        """End every session where ``loss`` says why its caller may not have it any more."""
        for session in (*self._sessions.values(), *self._opening):
            error = loss(session.core.permit)
            if error is not None:
                self.end(session, error.public)

    def rejoin(self, server_id: ServerId) -> None:
        """A connection to a server has opened."""
        for session in self._sessions.values():
            if session.core.permit.entry.spec.id == server_id:
                session.core.rejoin()

    def hang_up(self, removed: Container[ServerId]) -> None:
        """The servers have left the catalog: their sessions are not to be found as long as that is
        so, and nobody waits for news of them. Calls in flight keep their streams."""
        for session in (*self._sessions.values(), *self._opening):
            if session.core.permit.entry.spec.id in removed:
                session.core.hang_up(tell=True)
                session.core.channel = None
                session.standalone.put_down()

    def end_reading(self) -> None:
        """End every stream for what belongs to no request; requests in flight keep theirs."""
        for session in self._sessions.values():
            session.core.channel = None
            session.standalone.end()

    def sweep(self) -> None:
        """Called now and then: end the sessions nobody has used for long, and tidy the others."""
        now_s = self._means.clock.monotonic()
        self.end_if(
            lambda session: (
                session not in self._opening
                and session.core.last_used_s < now_s - IDLE_S
                and not session.in_use
            )
        )
        kept_bytes = 0
        for session in self._sessions.values():
            session.sweep(now_s)
            kept_bytes += session.kept_bytes
            if kept_bytes > MAX_KEPT_BYTES:
                session.forget_ended()
