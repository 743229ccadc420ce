"""Servers that need no supervision: reached when they are wanted, kept while they last.

For what somebody else starts, watches and stops, such as the servers of another gateway. A failure
is told to whoever waits and is then forgotten: the next one who wants the server tries again. Only
where somebody listens, who may never call again, a lost connection is opened anew by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import anyio
from anyio.abc import TaskGroup

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Holder
from open_mcp_gateway.catalog.model import CatalogEntry, Isolation
from open_mcp_gateway.errors import EraNotSpoken, GatewayError, UpstreamUnavailable
from open_mcp_gateway.names import ServerId
from open_mcp_gateway.outbound.open import Opener
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner, Peer
from open_mcp_gateway.supervisor.lease import Lease

OPEN_S: Final = 120.0
"""Bound on reaching a server, its own start included."""

CLOSE_S: Final = 5.0

FIRST_PAUSE_S: Final = 1.0
LAST_PAUSE_S: Final = 30.0
"""Bounds of the pause before a lost connection is opened anew, which doubles with every failure."""

_log = logging.getLogger(__name__)

_Key = tuple[ServerId, Manner]


class Direct:
    """Connections for one caller, by server and manner."""

    def __init__(self, opener: Opener, tasks: TaskGroup) -> None:
        self._opener = opener
        self._tasks = tasks
        self._open: dict[_Key, _Connection] = {}
        self._coming: dict[_Key, _Attempt] = {}
        self._missed: set[_Key] = set()
        """Lost while somebody listened."""

        self.on_opened: Callable[[ServerId], None] = lambda _: None
        """Called when a connection to a server has opened. Must not raise."""

    def isolation(self, permit: Permit) -> Isolation:
        """There is one caller, so that nobody shares anything with others."""
        return permit.entry.spec.isolation or Isolation.SHARED

    def lease(self, permit: Permit, manner: Manner = ANY_MANNER) -> Lease | None:
        """A connection that was open when it was last looked at."""
        return self._open.get((permit.entry.spec.id, manner))

    async def ready(self, permit: Permit, manner: Manner = ANY_MANNER) -> Lease:
        """A connection, opened if need be; an attempt goes on when who waited for it leaves.

        Raises:
            GatewayError: as the opener does.
        """
        return await self._ready((permit.entry.spec.id, manner), permit.entry)

    async def _ready(self, key: _Key, entry: CatalogEntry) -> Lease:
        while (lease := self._open.get(key)) is None:
            attempt = self._coming.get(key)
            if attempt is None:
                attempt = self._coming[key] = _Attempt()
                self._tasks.start_soon(self._connect, key, entry, attempt)
            await attempt.over.wait()
            if attempt.error is not None:
                raise _renewed(attempt.error)
        return lease

    def release(self, permit: Permit, manner: Manner) -> None:
        """Nobody needs a connection of this manner any more."""
        key = (permit.entry.spec.id, manner)
        self._missed.discard(key)
        connection = self._open.pop(key, None)
        if connection is not None:
            self._tasks.start_soon(connection.peer.aclose)

    async def aclose(self) -> None:
        """Close every connection, all at the same time."""
        connections = list(self._open.values())
        self._open.clear()
        with anyio.move_on_after(CLOSE_S, shield=True):
            async with anyio.create_task_group() as tasks:
                for connection in connections:
                    tasks.start_soon(connection.peer.aclose)

    async def _connect(self, key: _Key, entry: CatalogEntry, attempt: _Attempt) -> None:
        try:
            with anyio.move_on_after(OPEN_S) as limit:
                self._opened(key, entry, await self._opener(entry, key[1]))
            if limit.cancelled_caught:
                text = f"Server '{entry.spec.id}' could not be reached within {OPEN_S:g} s"
                attempt.error = UpstreamUnavailable(text)
        except GatewayError as error:
            attempt.error = error
        finally:
            del self._coming[key]
            attempt.over.set()

    def _opened(self, key: _Key, entry: CatalogEntry, peer: Peer) -> None:
        connection = self._open[key] = _Connection(peer)
        self._missed.discard(key)

        def lost(_error: GatewayError) -> None:
            if self._open.get(key) is connection:
                del self._open[key]
                if peer.audience is not None:
                    self._missed.add(key)
                    self._tasks.start_soon(self._reopen, key, entry)
            self._tasks.start_soon(peer.aclose)

        peer.on_lost(lost)
        self.on_opened(key[0])

    async def _reopen(self, key: _Key, entry: CatalogEntry) -> None:
        pause_s = FIRST_PAUSE_S
        while key in self._missed:
            await anyio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_PAUSE_S)
            try:
                if key in self._missed:
                    await self._ready(key, entry)
            except GatewayError as error:
                _log.info(
                    "server not reached again yet", extra={"server": key[0], "reason": error.public}
                )


class _Attempt:
    """One try to connect, and who waits for it."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.error: GatewayError | None = None


class _Connection:
    """A lease of something that nobody counts the use of."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.serving = False
        """Who wants it again looks it up again."""

    def began(self, holder: Holder) -> None: ...
    def ended(self, holder: Holder, *, failed: bool, cause: str | None = None) -> None: ...


def _renewed(error: GatewayError) -> GatewayError:
    """An error of its own for each who waited: each gets the id of its own request."""
    if isinstance(error, EraNotSpoken):
        return EraNotSpoken(error.public, spoken=error.spoken)
    return type(error)(error.public, retry_after_s=error.retry_after_s)
