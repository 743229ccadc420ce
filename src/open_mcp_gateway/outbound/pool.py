"""Keep-alive connections to one origin: the last one freed is the first one reused."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from open_mcp_gateway.errors import Busy
from open_mcp_gateway.outbound.connection import Connection
from open_mcp_gateway.outbound.http_exchange import Carrier, Drain, Exchange, Fault
from open_mcp_gateway.outbound.settings import OutboundSettings
from open_mcp_gateway.writes import Writes

DRAIN_S = 2.0
"""How long the rest of an event stream may take once its answer has been read."""

LOOK_FIRST_AFTER_S = 0.25
"""A connection unused for longer is looked at before it is reused, because a server that closes
idle connections may just have done so; a request that crosses its goodbye cannot be repeated."""

_SWEEP_S = 1.0


class DialError(Exception):
    """No connection could be made; the text completes the sentence "Server 'x' …"."""


Dial: TypeAlias = Callable[[Callable[[], Connection]], Awaitable[Connection]]
"""Makes a connection to the origin. Raises DialError."""


class Pool:
    """At most ``max_connections_per_origin`` connections; what finds none free waits in order."""

    __slots__ = (
        "_closed",
        "_connections",
        "_dial",
        "_dials",
        "_draining",
        "_emptied",
        "_free",
        "_loop",
        "_queue",
        "_queued_bytes",
        "_settings",
        "_sweeper",
        "writes",
    )

    def __init__(self, dial: Dial, settings: OutboundSettings) -> None:
        self._dial = dial
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self.writes = Writes()
        self._free: list[Connection] = []
        self._connections: set[Connection] = set()
        self._draining: dict[Carrier, float] = {}
        self._dials: set[asyncio.Task[None]] = set()
        self._queue: OrderedDict[Exchange, None] = OrderedDict()
        self._queued_bytes = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._emptied: asyncio.Future[None] | None = None

    @property
    def open_connections(self) -> int:
        """Connections there are, busy or free."""
        return len(self._connections)

    # For users of the pool

    def submit(self, exchange: Exchange) -> None:
        """Send the exchange on a free connection, or as soon as there is one.

        Its callbacks come later, never from inside here.

        Raises:
            Busy: too much is waiting for this origin already.
        """
        free = self._free
        while free:
            connection = free.pop()
            if self._usable(connection):
                connection.begin(exchange)
                return
        self._enqueue(exchange)

    def withdraw(self, exchange: Exchange) -> None:
        """Forget the exchange: a waiting one leaves the queue, a running one loses its connection.

        Closing is how a stream of the modern era is cancelled (2026-07-28 basic/transports).
        """
        if exchange in self._queue:
            del self._queue[exchange]
            self._queued_bytes -= len(exchange.request)
        elif exchange.connection is not None:
            exchange.connection.drop()

    def waits(self, exchange: Exchange) -> bool:
        """Nothing of it has been sent."""
        return exchange in self._queue

    def settled(self, exchange: Exchange) -> None:
        """The exchange has its answer although its stream is still open; let the stream run out."""
        connection = exchange.connection
        if connection is not None:
            connection.drain()
            if isinstance(connection.exchange, Drain):
                self._draining[connection] = self._loop.time()

    async def aclose(self) -> None:
        """Close every connection; exchanges hear nothing more. Safe to call twice."""
        self._closed = True
        self._queue.clear()
        self._queued_bytes = 0
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._connections):
            connection.drop()
        dials = list(self._dials)
        for dial in dials:
            dial.cancel()
        if dials:
            await asyncio.wait(dials)
        # Dropped transports close in the loop's next turns; whoever awaits this finds them closed.
        if self._connections:
            self._emptied = self._emptied or self._loop.create_future()
            await asyncio.wait({self._emptied})

    # For its connections

    def release(self, connection: Connection) -> None:
        """``connection`` is free: next in the queue, else keep it for later."""
        self._draining.pop(connection, None)
        if self._closed:
            connection.close()
        elif self._queue:
            connection.begin(self._dequeue())
        else:
            connection.free_since_s = self._loop.time()
            self._free.append(connection)

    def lost(self, connection: Connection) -> None:
        """``connection`` is gone; make room for who waits."""
        self._connections.discard(connection)
        if self._emptied is not None and not self._connections and not self._emptied.done():
            self._emptied.set_result(None)
        self._draining.pop(connection, None)
        if connection.exchange is None and connection in self._free:
            self._free.remove(connection)
        if self._queue and not self._closed:
            self._grow()

    def resubmit(self, exchange: Exchange) -> None:
        """Send it once more, on a connection of its own rather than another stale one."""
        for connection in self._free:
            connection.close()
        self._free.clear()
        try:
            self._enqueue(exchange)
        except Busy as error:
            exchange.fell(Fault(error.public, sent=False))

    # Inside

    def _usable(self, connection: Connection) -> bool:
        if connection.transport.is_closing():
            return False
        idle_s = self._loop.time() - connection.free_since_s
        if idle_s > LOOK_FIRST_AFTER_S and not connection.quiet:
            connection.drop()
            return False
        return True

    def _enqueue(self, exchange: Exchange) -> None:
        size = len(exchange.request)
        if self._queue and self._queued_bytes + size > self._settings.max_send_buffer_bytes:
            raise Busy("too many calls wait for this server; try again later", retry_after_s=1)
        self._queue[exchange] = None
        self._queued_bytes += size
        self._grow()

    def _dequeue(self) -> Exchange:
        exchange, _ = self._queue.popitem(last=False)
        self._queued_bytes -= len(exchange.request)
        return exchange

    def _grow(self) -> None:
        """One more connection if more wait than are being made, and the bound allows it."""
        dialling = len(self._dials)
        room = self._settings.max_connections_per_origin - len(self._connections) - dialling
        if room > 0 and dialling < len(self._queue):
            task = self._loop.create_task(self._connect())
            self._dials.add(task)

    async def _connect(self) -> None:
        try:
            connection = await self._dial(self._make)
        except DialError as error:
            self._dialled()
            self._failed(Fault(str(error), sent=False))
            return
        except BaseException:
            self._dialled()
            raise
        self._dialled()
        if self._closed or connection.transport.is_closing():
            connection.drop()
            self._failed(Fault("closed the connection at once", sent=False))
            return
        self._connections.add(connection)
        self.release(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    def _make(self) -> Connection:
        return Connection(self)

    def _dialled(self) -> None:
        """The present task no longer counts as a connection being made."""
        task = asyncio.current_task()
        self._dials = {dial for dial in self._dials if dial is not task}

    def _failed(self, fault: Fault) -> None:
        if self._queue:
            self._dequeue().fell(fault)
        if self._queue and not self._closed:
            self._grow()

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection, since in list(self._draining.items()):
            if now - since > DRAIN_S:
                connection.drop()
        oldest = now - self._settings.pool_idle_s
        stale = [connection for connection in self._free if connection.free_since_s < oldest]
        if stale:
            self._free = [c for c in self._free if c.free_since_s >= oldest]
            for connection in stale:
                connection.close()
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep) if self._connections else None
