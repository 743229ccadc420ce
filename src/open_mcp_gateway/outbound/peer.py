"""A live MCP server as the rest of the gateway sees it, whatever carries the bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Raw, Struct, UnsetType

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming
from open_mcp_gateway.protocol.mirrored import Fields


class Manner(Struct, frozen=True, kw_only=True, cache_hash=True):
    """How a connection to a server is to be opened, and who may use it."""

    era: Era | None = None
    """None: whichever the server speaks."""

    version: str | None = None
    """The session-era revision to offer; None: the newest."""

    capabilities: bytes = b"{}"
    """What the client can be asked for, as canonical JSON; told once, at the start of a session.
    Stateless requests tell their own each time."""

    owner: str = ""
    """The client session that alone may use it; empty: all callers of the isolation scope."""


ANY_MANNER: Final = Manner()
"""For callers that have no connection of their own to match, such as the envelope's."""


class Handshake(Struct, frozen=True, kw_only=True):
    """How the gateway and the server agreed to speak."""

    era: Era
    version: str
    """The negotiated revision, e.g. ``2025-11-25``."""

    result: bytes
    """The raw JSON of the server's InitializeResult (legacy) or DiscoverResult (modern)."""


class Waiter(Protocol):
    """Whoever is owed the outcome of one call: exactly one of the two is called, once, later.

    Never from inside ``Peer.call`` itself. Neither may raise.
    """

    @property
    def whose(self) -> str | None:
        """Who may hear what is about the call: calls with the same one need not be told apart. None
        for the gateway's own, which are about nobody."""

    def answered(self, message: bytes, upstream_id: int) -> None:
        """``message`` is the server's JSON-RPC response (checked to be valid JSON, with exactly one
        of ``result`` and ``error``), still carrying the id this gateway gave the call upstream."""

    def failed(self, error: GatewayError) -> None:
        """There will be no answer; ``error`` says why."""

    def related(self, message: bytes, incoming: Incoming) -> None:
        """A notification that belongs to this call, before its outcome; any number of times.

        ``message`` is ready for the client: progress token and subscription id are its own again.
        """

    def asked(self, question: Question) -> None:
        """The server asks the client something while it works on this call."""


class Question(Protocol):
    """A request from a server (elicitation, sampling, roots) that waits for the client's answer."""

    @property
    def raw_id(self) -> bytes:
        """The server's own id for it, as raw JSON."""

    @property
    def method(self) -> str: ...

    @property
    def params(self) -> Raw | UnsetType: ...

    def answer(self, incoming: Incoming) -> None:
        """Pass on the client's response, result or error. Does nothing the second time."""

    def refuse(self, code: int, text: str) -> None:
        """Answer with an error of the gateway's own. Does nothing after an answer."""


class Audience(Protocol):
    """Whoever is told what a server sends without relation to a call. Neither may raise."""

    def notified(self, message: bytes, incoming: Incoming) -> None:
        """``message`` is the notification as the server sent it."""

    def asked(self, question: Question) -> None: ...


class Ticket(Protocol):
    """One call in flight."""

    def extend(self, deadline_s: float) -> None:
        """Move the deadline to another moment on the monotonic clock, e.g. on progress."""

    def cancel(self, reason: str) -> None:
        """Stop waiting and tell the server by its era's rule; the waiter hears nothing more.

        Does nothing once the call is over.
        """


class Peer(Protocol):
    """One process or one remote session, past its handshake, serving many calls at once."""

    @property
    def handshake(self) -> Handshake: ...

    @property
    def inflight(self) -> int:
        """Calls that have no outcome yet."""

    def given_up_by_others(self, whose: str) -> bool:
        """Whether a call of anybody but ``whose`` (see ``Waiter``) was given up not long ago, so
        that the server may still be at work on it."""

    @property
    def pid(self) -> int | None:
        """The process id, None for a remote server."""

    def call(self, permit: Permit, call: Call, waiter: Waiter, *, deadline_s: float) -> Ticket:
        """Send a request (``call.id`` is not None) now; the outcome goes to ``waiter``.

        ``deadline_s`` is a moment on the monotonic clock, in seconds; when it passes, the waiter
        gets UpstreamTimeout and the server a cancellation.

        Raises:
            UpstreamUnavailable: the peer is already gone; nothing was sent.
            Busy: its send buffer is full; nothing was sent.
        """

    def notify(self, permit: Permit, call: Call) -> None:
        """Send a notification (``call.id`` is None); best effort, errors are not reported."""

    @property
    def audience(self) -> Audience | None:
        """Who was last given to ``attend``."""

    def attend(self, audience: Audience) -> None:
        """From now on tell ``audience`` what belongs to no call.

        Without one, notifications are dropped and requests refused. ``ping`` is always answered
        here.
        """

    def mirrored(self, tool: str) -> Fields | None:
        """The arguments that calls of a stateless server's tool repeat in headers; None while the
        tool is not known."""

    def wait_for_tools(self, then: Callable[[], None]) -> bool:
        """Have ``then`` called, later, once it is known what tools a stateless server has, or that
        it does not say so in time. False where there is nothing to wait for."""

    async def probe(self) -> None:
        """Ask the server for a sign of life (``ping``, or ``server/discover`` in the modern era).

        Any well-formed answer counts, an error too. The caller bounds the wait.

        Raises:
            UpstreamError: the peer is gone or broke the protocol.
        """

    def on_lost(self, callback: Callable[[GatewayError], None]) -> None:
        """Call ``callback`` once when the peer dies by itself (not by ``aclose``), after every
        waiter has heard of it. At once if that has already happened."""

    async def aclose(self) -> None:
        """End the process or session in the orderly way, then by force; calls still in flight fail
        with UpstreamBroken. Safe to call twice; completes under cancellation (bounded)."""
