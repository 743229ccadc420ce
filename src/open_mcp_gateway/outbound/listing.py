"""Finding out what tools a stateless server has, whether a caller asks for them or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.outbound.peer import Handshake, Question, Waiter
from open_mcp_gateway.outbound.tools import LIST, ToolSchemas
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming, encode
from open_mcp_gateway.protocol.surrogates import Lenient

FIRST_LISTING_S: Final = 2.0
"""How long the listing of a fresh server's tools may keep the first calls of tools waiting."""

LISTING_S: Final = 30.0
"""How long each page may take."""

RELIST_AFTER_S: Final = 0.2
"""Every listener hears of a change; one look at the tools is enough for all of them."""

MAX_PAGES: Final = 1000


class _Capabilities(Struct):
    tools: Raw | UnsetType = UNSET


class _Discovered(Struct):
    capabilities: _Capabilities


_discovered = Lenient(_Discovered)


def has_tools(handshake: Handshake) -> bool:
    """Whether a stateless server says that it has tools."""
    try:
        return _discovered.decode(handshake.result).capabilities.tools is not UNSET
    except msgspec.DecodeError:
        return False


class Listing:
    """``tools/list`` to its last page, one after the other.

    ``done`` hears of the end, whatever came of it. ``start`` sends a call of the gateway's own, and
    may raise a GatewayError.
    """

    __slots__ = ("_done", "_pages", "_start", "_tools")

    def __init__(
        self,
        tools: ToolSchemas,
        start: Callable[[Call, Waiter, float], object],
        done: Callable[[], None],
    ) -> None:
        self._tools = tools
        self._start = start
        self._done = done
        self._pages = 0

    def ask(self, cursor: str | None) -> None:
        """Ask for the page at ``cursor``, None for the first."""
        params = None if cursor is None else {"cursor": Raw(encode(cursor))}
        deadline_s = asyncio.get_running_loop().time() + LISTING_S
        self._pages += 1
        try:
            self._start(Call(LIST, None, params), self, deadline_s)
        except GatewayError:
            self._done()

    @property
    def whose(self) -> None:
        """See ``Waiter``."""

    def answered(self, message: bytes, upstream_id: int) -> None:  # noqa: ARG002 - as Waiter's
        cursor = self._tools.learn(message)
        if cursor is None or self._pages >= MAX_PAGES:
            self._done()
        else:
            self.ask(cursor)

    def failed(self, error: GatewayError) -> None:  # noqa: ARG002 - as Waiter's
        self._done()

    def related(self, message: bytes, incoming: Incoming) -> None:
        """Nothing was asked for that could come."""

    def asked(self, question: Question) -> None:
        """Stateless servers ask nothing."""


class Look:
    """Lists the tools when somebody first has to know them, and again after each change."""

    __slots__ = ("_later", "_listing", "_loop", "_over", "_start", "_timer", "_tools", "_waiting")

    def __init__(self, tools: ToolSchemas, start: Callable[[Call, Waiter, float], object]) -> None:
        self._tools = tools
        self._start = start
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        """Of the first listing, since it began."""

        self._later: asyncio.TimerHandle | None = None
        self._waiting: list[Callable[[], None]] = []
        self._listing = False
        self._over = False
        """Nobody waits any more: the tools are known, or the time for that has passed."""

    def wait(self, then: Callable[[], None]) -> bool:
        """See ``Peer.wait_for_tools``."""
        if self._over:
            return False
        self._waiting.append(then)
        if self._timer is None:
            self._timer = self._loop.call_later(FIRST_LISTING_S, self._end)
            self._list()
        return True

    def changed(self) -> None:
        """The server has other tools now; no matter while nothing is known of those before."""
        if self._later is None and (self._listing or self._tools.known):
            self._later = self._loop.call_later(RELIST_AFTER_S, self._again)

    def _again(self) -> None:
        self._later = None
        if self._listing:  # which may have seen what was before the change
            self.changed()
        else:
            self._list()

    def _list(self) -> None:
        self._listing = True
        Listing(self._tools, self._start, self._listed).ask(None)

    def _listed(self) -> None:
        self._listing = False
        self._end()

    def _end(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            self._loop.call_soon(then)  # ``wait`` may not have returned yet
