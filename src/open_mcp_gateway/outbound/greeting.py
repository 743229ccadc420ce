"""The order of the questions by which a duplex connection is opened, in whatever era.

Spec: 2026-07-28 basic/versioning (backward compatibility over stdio).
"""

from __future__ import annotations

import enum
from typing import Protocol, TypeAlias

from msgspec import Struct

from open_mcp_gateway.errors import UpstreamError
from open_mcp_gateway.outbound.handshake import (
    DISCOVER,
    INITIALIZE,
    INITIALIZED,
    AskAgain,
    NotModern,
    NoWay,
    discover_params,
    initialize_params,
    judge_discovery,
    read_initialize,
)
from open_mcp_gateway.outbound.peer import ANY_MANNER, Handshake, Manner
from open_mcp_gateway.protocol.eras import LATEST_LEGACY
from open_mcp_gateway.protocol.jsonrpc import Params


class DiedAsking(Struct, frozen=True):
    """The server ended on being asked ``server/discover``, as some legacy servers do."""


class Plan(enum.Enum):
    """In which order to ask. Only the two that ask one question are sure to open no other era."""

    FIND_OUT = enum.auto()
    """``server/discover``; on silence or any answer that is not modern, ``initialize``."""

    MODERN_FIRST = enum.auto()
    """The same, but silence is waited out: the server was modern the last time."""

    LEGACY_FIRST = enum.auto()
    """``initialize``; where that is refused, ``server/discover``."""

    MODERN_ONLY = enum.auto()
    LEGACY_ONLY = enum.auto()


class Inquiry(Protocol):
    """One request of the handshake, out with the server."""

    async def within(self, seconds: float | None) -> bytes | None:
        """The raw response; None when ``seconds`` (None: no bound) pass in silence.

        May be called again after None.

        Raises:
            UpstreamError: the connection is gone.
        """

    def abandon(self) -> None:
        """Wait no more and tell the server nothing; a late answer is dropped."""


class Conversation(Protocol):
    """A duplex connection to a server that is not open for calls yet."""

    def ask(self, method: str, params: Params | None) -> Inquiry: ...

    def tell(self, method: str, params: Params | None) -> None: ...


Greeting: TypeAlias = Handshake | NoWay | DiedAsking


async def greet(
    server: Conversation, plan: Plan, *, silence_s: float, manner: Manner = ANY_MANNER
) -> Greeting:
    """Open a fresh connection by ``plan``, with the capabilities and the version of ``manner``;
    its era is the plan's business. The caller bounds the whole.

    Raises:
        UpstreamError: the connection is gone; after ``server/discover`` alone that is DiedAsking.
    """
    if plan is Plan.LEGACY_ONLY:
        return await _initialize(server, manner)
    if plan is Plan.LEGACY_FIRST:
        return await _initialize_first(server, silence_s, manner)
    try:
        return await _discover_first(server, plan, silence_s, manner)
    except UpstreamError:
        if plan is Plan.FIND_OUT:
            return DiedAsking()
        raise


async def _discover_first(
    server: Conversation, plan: Plan, silence_s: float, manner: Manner
) -> Handshake | NoWay:
    inquiry = server.ask(DISCOVER, discover_params(capabilities=manner.capabilities))
    patience_s = silence_s if plan is Plan.FIND_OUT else None
    judged = await _discovery(server, inquiry, patience_s, manner)
    if isinstance(judged, Handshake | NoWay):
        return judged
    if plan is Plan.MODERN_ONLY:
        return NoWay("does not speak a modern protocol version, but the catalog says era: modern")
    initialized = await _initialize(server, manner)
    if judged is None and isinstance(initialized, NoWay):
        # Slow to start, not silent: it has settled on the question that it read first.
        late = await _discovery(server, inquiry, silence_s, manner)
        initialized = late if isinstance(late, Handshake) else initialized
    inquiry.abandon()
    return initialized


async def _initialize_first(
    server: Conversation, silence_s: float, manner: Manner
) -> Handshake | NoWay:
    initialized = await _initialize(server, manner)
    if isinstance(initialized, Handshake):
        return initialized
    try:
        inquiry = server.ask(DISCOVER, discover_params(capabilities=manner.capabilities))
        judged = await _discovery(server, inquiry, silence_s, manner)
        inquiry.abandon()
    except UpstreamError:
        return initialized  # it has said why before it went
    return judged if isinstance(judged, Handshake) else initialized


async def _discovery(
    server: Conversation, inquiry: Inquiry, patience_s: float | None, manner: Manner
) -> Handshake | NotModern | NoWay | None:
    """None after ``patience_s`` without an answer."""
    answer = await inquiry.within(patience_s)
    if answer is None:
        return None
    judged = judge_discovery(answer)
    if not isinstance(judged, AskAgain):
        return judged
    again = server.ask(DISCOVER, discover_params(judged.version, manner.capabilities))
    answer = await again.within(None)
    final = None if answer is None else judge_discovery(answer)
    if isinstance(final, AskAgain):
        return NoWay("is modern but accepts no protocol version the gateway offers")
    return final


async def _initialize(server: Conversation, manner: Manner) -> Handshake | NoWay:
    params = initialize_params(manner.capabilities, manner.version or LATEST_LEGACY)
    answer = await server.ask(INITIALIZE, params).within(None)
    if answer is None:
        return NoWay("did not answer initialize")
    agreed = read_initialize(answer)
    if isinstance(agreed, Handshake):
        server.tell(INITIALIZED, None)
    return agreed
