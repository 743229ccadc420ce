"""A session's place on the connection to its server, and what that server remembers for it.

Several sessions may share the connection, and must not change it for each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Raw

from open_mcp_gateway.errors import Busy, InvalidParams
from open_mcp_gateway.pipeline import narrowing
from open_mcp_gateway.pipeline.agreement import for_upstream, string_in
from open_mcp_gateway.pipeline.hub import LEVELS, Hub, Share
from open_mcp_gateway.pipeline.session_exchange import Owner
from open_mcp_gateway.protocol.jsonrpc import Call, encode
from open_mcp_gateway.supervisor.lease import Lease

MAX_SUBSCRIPTIONS: Final = 1000


class Attachment:
    """Where one session is attached; nowhere before its first call."""

    def __init__(self, session: Owner) -> None:
        self._session = session
        self.level: str | None = None
        self.subscriptions: set[str] = set()
        self._hub: Hub | None = None
        self._share = Share()
        """In that hub."""

        self.lease: Lease | None = None
        """Whose server the hub listens to."""

        self._holding: Lease | None = None

    @property
    def exists(self) -> bool:
        """Whether there is a server whose words it hears."""
        return self._hub is not None

    def share(self, lease: Lease) -> Share:
        """Where calls on this connection are counted. On the path of every request."""
        if lease is not self.lease:
            self.attach(lease)
        if self.subscriptions or self._holding is not None:
            self.hold(lease)
        return self._share

    def attach(self, lease: Lease) -> None:
        """Hear what this connection's server says."""
        session, hub = self._session, lease.peer.audience
        if not isinstance(hub, Hub):
            hub = Hub(lease.peer, exclusive=bool(session.manner.owner))
            lease.peer.attend(hub)
        self.lease = lease
        if hub is not self._hub:
            earlier, self._hub = self._hub, hub
            self._share = hub.add(session)
            if earlier is not None:
                earlier.remove(session)
                hub.restore(session.permit, session.means, session)

    def hold(self, lease: Lease | None) -> None:
        """Keep a server with subscriptions from idling; let it go when there are none left."""
        wanted = lease if self.subscriptions and not self._session.hung_up else None
        earlier = self._holding
        if wanted is earlier:
            return
        self._holding = wanted
        holder = self._session.permit.principal.holder
        if wanted is not None:
            wanted.began(holder)
        if earlier is not None:
            earlier.ended(holder, failed=False)

    def leave(self) -> None:
        """The session is over. What the server remembers for it alone, it may forget."""
        session = self._session
        subscribed, self.subscriptions = self.subscriptions, set()
        self.hold(None)
        hub, self._hub, self.lease = self._hub, None, None
        if hub is None:
            return
        hub.remove(session)
        for uri in () if hub.exclusive else subscribed:
            if not hub.subscribers(uri):
                gone = Call("resources/unsubscribe", b"0", {"uri": Raw(encode(uri))})
                hub.tell(session.permit, session.means, gone)

    # ── what it is to remember ───────────────────────────────────────────────────────────────────

    def remember(self, call: Call) -> tuple[Call | None, Callable[[bool], None] | None]:
        """What of one of ``REMEMBERED`` is sent, and who is to hear whether it is done then. No
        call where the server must not or need not hear of it, because other sessions share its
        connection.

        Raises:
            GatewayError: it is at fault; nothing is remembered of it.
        """
        narrowing.check(self._session.permit, call)
        call = for_upstream(call)
        params = call.params or {}
        if call.method == "resources/subscribe":
            return call, self._subscribe(string_in(params, "uri"))
        if call.method == "resources/unsubscribe":
            return None if self._unsubscribe(string_in(params, "uri")) else call, None
        level = string_in(params, "level")
        if level not in LEVELS:
            raise InvalidParams(f"'params.level' must be one of {', '.join(LEVELS)}")
        needed = level if self._hub is None else self._hub.needed_level(level)
        if needed is None:
            self.level = level
            return None, None
        params = {**params, "level": Raw(encode(needed))}
        told = Call(call.method, call.id, params, progress_token=call.progress_token)
        return told, self._levelled(level, needed)

    def _levelled(self, wanted: str, asked_for: str) -> Callable[[bool], None]:
        def then(done: bool) -> None:
            if done:
                self.level = wanted
                if self._hub is not None:
                    self._hub.level = asked_for

        return then

    def _subscribe(self, uri: str) -> Callable[[bool], None] | None:
        """From now on it hears of changes, unless the server refuses; they may come before its
        answer."""
        if not uri or uri in self.subscriptions:
            return None
        if len(self.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise Busy("too many subscriptions in this session; end some")
        self.subscriptions.add(uri)

        def then(done: bool) -> None:
            if not done:
                self.subscriptions.discard(uri)
                self.hold(self._holding)

        return then

    def _unsubscribe(self, uri: str) -> bool:
        """Whether the server need not hear of it, because others still want to."""
        self.subscriptions.discard(uri)
        self.hold(self._holding)
        hub = self._hub
        return hub is not None and not hub.exclusive and hub.subscribers(uri) > 0
