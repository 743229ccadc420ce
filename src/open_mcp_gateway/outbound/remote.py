"""A remote server of the catalog, from its entry to an open peer: which flavour, which era.

Spec: 2026-07-28 basic/versioning (backward compatibility); 2025-11-25
basic/transports#backwards-compatibility. Only answers decide: network errors, HTTP 5xx and silence
are outages and say nothing about how a server speaks.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Mapping
from ssl import SSLContext
from typing import TypeAlias

import anyio

from open_mcp_gateway.aside import Aside
from open_mcp_gateway.catalog.model import CatalogEntry, EraChoice, Remote
from open_mcp_gateway.errors import (
    Busy,
    InternalError,
    UpstreamBroken,
    UpstreamUnavailable,
)
from open_mcp_gateway.outbound.answer import Reply, error_code
from open_mcp_gateway.outbound.discovery import discover, is_outage
from open_mcp_gateway.outbound.duplex import DuplexPeer
from open_mcp_gateway.outbound.endpoint import BadUrl, Endpoint, parse
from open_mcp_gateway.outbound.greeting import Plan, greet
from open_mcp_gateway.outbound.handshake import (
    AskAgain,
    NotModern,
    NoWay,
    judge_discovery,
)
from open_mcp_gateway.outbound.http_modern import ModernPeer
from open_mcp_gateway.outbound.http_opening import Refused, open_session
from open_mcp_gateway.outbound.http_session import SessionPeer
from open_mcp_gateway.outbound.link import Link
from open_mcp_gateway.outbound.peer import ANY_MANNER, Handshake, Manner, Peer
from open_mcp_gateway.outbound.proxy import Proxy, proxy_for
from open_mcp_gateway.outbound.settings import OutboundSettings
from open_mcp_gateway.outbound.sse import open_sse
from open_mcp_gateway.outbound.sse_channel import SseChannel
from open_mcp_gateway.outbound.tls import BadTls, client_context
from open_mcp_gateway.outbound.verdicts import EraVerdicts, Verdict
from open_mcp_gateway.protocol.eras import LATEST_MODERN, Era
from open_mcp_gateway.protocol.faults import INTERNAL_ERROR

CLOSE_S = 2.0
"""Bound on taking down a failed attempt."""

_NOT_IMPLEMENTED = 501
_OLDER_FLAVOUR = frozenset({400, 404, 405, 406, 415, _NOT_IMPLEMENTED})
"""Answers to ``initialize`` after which HTTP+SSE is worth asking for."""


MakeLink: TypeAlias = Callable[
    [CatalogEntry, Endpoint, Proxy | None, SSLContext | None, OutboundSettings], Link
]


class Flavour(enum.StrEnum):
    """The three HTTP transports in the wild."""

    MODERN = "modern"
    SESSION = "session"
    SSE = "sse"


_ERA = {
    Flavour.MODERN: Era.MODERN,
    Flavour.SESSION: Era.LEGACY,
    Flavour.SSE: Era.LEGACY,
}

_FLAVOURS = {
    EraChoice.AUTO: (Flavour.MODERN, Flavour.SESSION, Flavour.SSE),
    EraChoice.MODERN: (Flavour.MODERN,),
    EraChoice.LEGACY: (Flavour.SESSION, Flavour.SSE),
}
"""In the order of asking."""


async def open_remote(
    entry: CatalogEntry,
    manner: Manner,
    settings: OutboundSettings,
    verdicts: EraVerdicts,
    environ: Mapping[str, str],
    *,
    link: MakeLink = Link,
) -> Peer:
    """Reach the server and do the handshake, in the era that ``manner`` asks for. The caller bounds
    the time; cancelled or failed, nothing of the attempt is left behind.

    Raises:
        EraNotSpoken: the server does not speak that era, by its own answers.
        UpstreamUnavailable: with the cause, scrubbed.
    """
    verdicts.refuse_unspoken(entry, manner.era)
    opening = _Opening(await link_to(entry, settings, environ, link), entry, manner, verdicts)
    try:
        return await opening.run()
    except BaseException as error:
        with anyio.move_on_after(CLOSE_S, shield=True):
            await opening.link.aclose()
        if isinstance(error, UpstreamBroken | Busy):
            raise UpstreamUnavailable(error.public) from error
        raise


async def link_to(
    entry: CatalogEntry, settings: OutboundSettings, environ: Mapping[str, str], link: MakeLink
) -> Link:
    runtime = entry.spec.runtime
    if not isinstance(runtime, Remote):
        raise InternalError(f"Server '{entry.spec.id}' is not a remote server")
    try:
        endpoint = parse(runtime.url)
        proxy = proxy_for(endpoint.origin, environ)
        context = None
        if endpoint.origin.scheme == "https":
            # Reading the system's certificates takes tens of milliseconds, own ones may hang.
            context = await Aside().run(functools.partial(client_context, runtime.tls))
        return link(entry, endpoint, proxy, context, settings)
    except (BadUrl, BadTls) as error:
        text = entry.scrub(f"cannot be reached: {error}")
        raise UpstreamUnavailable(f"Server '{entry.spec.id}' {text}") from error


class _Opening:
    """One attempt to open one server."""

    def __init__(
        self, link: Link, entry: CatalogEntry, manner: Manner, verdicts: EraVerdicts
    ) -> None:
        self.link = link
        self._entry = entry
        self._manner = manner
        self._verdicts = verdicts
        self._refusal: str | None = None
        """The most telling reason so far why no flavour would do."""

    async def run(self) -> Peer:
        wanted = self._manner.era
        for flavour in self._order():
            peer = await self._try(flavour)
            if peer is None:
                continue
            self._learn(flavour, peer.handshake)
            if wanted is None or peer.handshake.era is wanted:
                return peer
            await peer.aclose()
            raise self._verdicts.not_spoken(self._entry, wanted)
        self._verdicts.forget(self._entry)
        raise self.link.unavailable(self._refusal or "speaks no transport of MCP at its `url`")

    def _order(self) -> list[Flavour]:
        """What to ask for, one after the other. An era that is not wanted comes last: that it is
        spoken, and the wanted one is not, makes the verdict."""
        order = list(_FLAVOURS[self._entry.spec.era])
        # By custom that path is the 2024-11-05 transport's, which answers POSTs with odd errors.
        path = self.link.endpoint.target.partition("?")[0].rstrip("/")
        if path.endswith("/sse"):
            order.sort(key=lambda flavour: flavour is not Flavour.SSE)
        known = self._verdicts.recall(self._entry)
        if known is not None:
            order.sort(key=lambda flavour: flavour != known.flavour)
        if self._manner.era is not None:
            order.sort(key=lambda flavour: _ERA[flavour] is not self._manner.era)
        return order

    def _learn(self, flavour: Flavour, handshake: Handshake) -> None:
        """What an opening that succeeded says about the server."""
        wanted = self._manner.era
        if self._entry.spec.era is EraChoice.AUTO:
            self._verdicts.learn(self._entry, handshake)
            if wanted is not None and handshake.era is not wanted:
                self._verdicts.deny(self._entry, wanted)
        # A server opened in the session era on request may speak the other one as well.
        if wanted is not Era.LEGACY or handshake.era is Era.MODERN:
            self._verdicts.remember(self._entry, Verdict(era=handshake.era, flavour=flavour))

    def _manner_of(self, era: Era) -> Manner:
        """Where only the verdict counts, nothing is said of the caller."""
        return self._manner if self._manner.era in (None, era) else ANY_MANNER

    async def _try(self, flavour: Flavour) -> Peer | None:
        match flavour:
            case Flavour.MODERN:
                return await self._try_modern(LATEST_MODERN, again=True)
            case Flavour.SESSION:
                return await self._try_session()
            case Flavour.SSE:
                return await self._try_sse()

    def _misjudged(self) -> None:
        self._verdicts.forget(self._entry)

    def _no(self, reason: str) -> None:
        if self._refusal is None:
            self._refusal = reason

    def _refuse_outage(self, reply: Reply) -> None:
        """Raise for what is no verdict: the server, or something before it, is not well."""
        auth = reply.status in {401, 403} and reply.message is None
        if auth or is_outage(reply):
            raise self.link.unavailable(self.link.refusal(reply))

    async def _try_modern(self, version: str, *, again: bool) -> Peer | None:
        reply = await discover(self.link, version)
        self.link.check(reply)
        self._refuse_outage(reply)
        if reply.message is None:
            if 300 <= reply.status < 400:
                raise self.link.unavailable(self.link.refusal(reply))
            if self._entry.spec.era is EraChoice.MODERN:
                self._no(self.link.refusal(reply))
            return None
        judged = judge_discovery(reply.body)
        match judged:
            case Handshake():
                peer = ModernPeer(self.link, judged, self._misjudged)
                if self._manner.era is not Era.LEGACY:
                    peer.learn_tools()
                return peer
            case AskAgain(other) if again:
                return await self._try_modern(other, again=False)
            case NoWay(reason):
                raise self.link.unavailable(reason)
            case AskAgain() | NotModern():
                if self._entry.spec.era is EraChoice.MODERN:
                    self._no("does not speak a modern protocol version (era: modern)")
                return None

    async def _try_session(self) -> Peer | None:
        manner = self._manner_of(Era.LEGACY)
        opened = await open_session(self.link, manner)
        if not isinstance(opened, Refused):
            peer = SessionPeer(self.link, opened, manner, self._misjudged)
            if self._manner.era is not Era.MODERN:
                await _listening(peer)
            return peer
        self.link.check(opened.reply)
        self._refuse_outage(opened.reply)
        self._no(opened.reason)
        answer = opened.reply.message if self._manner.era is Era.LEGACY else None
        refused = opened.reply.status in _OLDER_FLAVOUR or answer is not None
        if not refused or (answer is not None and error_code(answer) == INTERNAL_ERROR):
            raise self.link.unavailable(opened.reason)
        return None

    async def _try_sse(self) -> Peer | None:
        opened = await open_sse(self.link, self.link.settings.probe_silence_s)
        if isinstance(opened, Reply):
            self._refuse_outage(opened)
            return None
        return None if opened is None else await self._greet(opened)

    async def _greet(self, channel: SseChannel) -> Peer:
        peer = DuplexPeer(self._entry, channel)
        channel.deliver_to(peer)
        silence_s = self.link.settings.probe_silence_s
        manner = self._manner_of(Era.LEGACY)
        greeting = await greet(peer, Plan.LEGACY_ONLY, silence_s=silence_s, manner=manner)
        if isinstance(greeting, Handshake):
            peer.settle(greeting)
            return peer
        reason = greeting.reason if isinstance(greeting, NoWay) else "ended during the handshake"
        raise self.link.unavailable(reason)


async def _listening(peer: SessionPeer) -> None:
    try:
        await peer.listen()
    except BaseException:
        await peer.aclose()  # the server would keep the session
        raise
