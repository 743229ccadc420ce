"""A session's place on the connection to its server, and what that server remembers for it.

Several sessions may share the connection, and must not change it for each other.
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.errors import Busy, InvalidParams
from open_mcp_gateway.pipeline import narrowing
from open_mcp_gateway.pipeline.agreement import for_upstream, string_in
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.hub import Hub, Share
from open_mcp_gateway.pipeline.memory import LEVELS, Memory
from open_mcp_gateway.pipeline.remembered import SET_LEVEL, SUBSCRIBE
from open_mcp_gateway.pipeline.session_exchange import Owner, Wish
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming, encode
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
    def by(self) -> tuple[Permit, Means]:
        """By whose right and with what anything is told to its server."""
        return self._session.permit, self._session.means

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
        session, hub = self._session, self._hub_at(lease)
        self.lease = lease
        if hub is not self._hub:
            earlier, self._hub = self._hub, hub
            self._share = hub.add(session)
            if earlier is not None:
                earlier.remove(session)
                hub.restore(session.permit, session.means, session)

    def _hub_at(self, lease: Lease) -> Hub:
        hub = lease.peer.audience
        if not isinstance(hub, Hub):
            hub = Hub(lease.peer, exclusive=bool(self._session.manner.owner))
            lease.peer.attend(hub)
        return hub

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
                hub.memory.tell(session.permit, session.means, uri, subscribe=False)

    # ── what it is to remember ───────────────────────────────────────────────────────────────────

    def memory(self, lease: Lease) -> Memory:
        """See ``Attached``."""
        self.share(lease)
        return self._hub_at(lease).memory

    def wants(self, logged: Incoming) -> bool:
        """See ``Attached``."""
        return self._hub is None or self._hub.wants(self._session, logged)

    def remember(self, call: Call) -> tuple[Call | None, Wish | None]:
        """What of one of ``REMEMBERED`` is sent, and what is wanted by it. No call where the server
        must not or need not hear of it, because other sessions share its connection.

        Raises:
            GatewayError: it is at fault; nothing is remembered of it.
        """
        narrowing.check(self._session.permit, call)
        call = for_upstream(call)
        params = call.params or {}
        if call.method == SET_LEVEL:
            return self._level(call, string_in(params, "level"))
        uri = string_in(params, "uri")
        if not uri:
            return call, None
        if call.method == SUBSCRIBE:
            return call, self._subscribe(uri)
        if self._unsubscribe(uri):
            return None, None
        return call, _Subscription(self, uri, subscribe=False)

    def _level(self, call: Call, level: str) -> tuple[Call | None, Wish | None]:
        if level not in LEVELS:
            raise InvalidParams(f"'params.level' must be one of {', '.join(LEVELS)}")
        if self._hub is not None and self._hub.memory.covers(level):
            self.level = level
            return None, None
        return call, _Level(self, level)

    def _subscribe(self, uri: str) -> Wish:
        """From now on it hears of changes, unless the server refuses; they may come before its
        answer."""
        if uri in self.subscriptions:
            return _Subscription(self, uri, subscribe=True)
        if len(self.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise Busy("too many subscriptions in this session; end some")
        self.subscriptions.add(uri)
        return _Subscription(self, uri, subscribe=True, fresh=True)

    def _unsubscribe(self, uri: str) -> bool:
        """Whether the server need not hear of it, because others still want to."""
        self.drop(uri)
        hub = self._hub
        return hub is not None and not hub.exclusive and hub.subscribers(uri) > 0

    def drop(self, uri: str) -> None:
        """The session wants no news of that resource."""
        self.subscriptions.discard(uri)
        self.hold(self._holding)

    # ── where it has moved to another connection in between ──────────────────────────────────────

    def drop_elsewhere(self, uri: str, memory: Memory) -> None:
        """``drop`` where it was told to another server than that of ``memory``."""
        session, hub = self._session, self._hub
        if hub is not None and hub.memory is not memory and not hub.subscribers(uri):
            hub.memory.tell(session.permit, session.means, uri, subscribe=False)

    def level_elsewhere(self, level: str, memory: Memory) -> None:
        """The level that the server of ``memory`` has agreed to is that of its successor, too."""
        session, hub = self._session, self._hub
        if hub is not None and hub.memory is not memory:
            hub.memory.have_level(session.permit, session.means, level)


class _Subscription:
    """News of a resource, or none any more. ``fresh``: they were none of the session's before."""

    def __init__(
        self, place: Attachment, uri: str, *, subscribe: bool, fresh: bool = False
    ) -> None:
        self._place = place
        self._uri = uri
        self._subscribe = subscribe
        self._fresh = fresh
        self._memory: Memory | None = None
        """Of the server that it was sent to last."""

    def sent(self, call: Call, memory: Memory) -> Call:
        self._memory = memory
        memory.about(self._uri)
        return call

    def heard(self, *, done: bool) -> None:
        if self._fresh and not done:
            self._place.drop(self._uri)
            if self._memory is not None:
                self._place.drop_elsewhere(self._uri, self._memory)

    def settled(self, *, done: bool | None) -> None:
        if self._memory is not None:
            self._memory.settled(*self._place.by, self._uri, subscribe=self._subscribe, done=done)


class _Level:
    """Log messages from a level on."""

    def __init__(self, place: Attachment, level: str) -> None:
        self._place = place
        self._level = level
        self._asked_for = level
        self._memory: Memory | None = None

    def sent(self, call: Call, memory: Memory) -> Call:
        self._memory = memory
        self._asked_for = memory.level_for(self._level)
        params = {**(call.params or {}), "level": Raw(encode(self._asked_for))}
        return Call(call.method, call.id, params, progress_token=call.progress_token)

    def heard(self, *, done: bool) -> None:
        if done:
            self._place.level = self._level
            if self._memory is not None:
                self._place.level_elsewhere(self._level, self._memory)

    def settled(self, *, done: bool | None) -> None:
        if self._memory is not None:
            self._memory.level_settled(*self._place.by, self._asked_for, done=done)
