"""Another gateway as the way to a server: its failures, told as such and not as the server's."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from open_mcp_gateway.catalog.model import CatalogEntry, Remote, ServerSpec
from open_mcp_gateway.errors import (
    EraNotSpoken,
    GatewayError,
    NotFound,
    TooLarge,
    UpstreamError,
    UpstreamUnavailable,
)
from open_mcp_gateway.names import ServerId
from open_mcp_gateway.outbound.answer import Reply
from open_mcp_gateway.outbound.endpoint import Endpoint
from open_mcp_gateway.outbound.http import HttpPeer
from open_mcp_gateway.outbound.link import Link
from open_mcp_gateway.outbound.open import Opener
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner, Peer
from open_mcp_gateway.outbound.proxy import Proxy
from open_mcp_gateway.outbound.pulse import Pulse
from open_mcp_gateway.outbound.remote import open_remote
from open_mcp_gateway.outbound.settings import OutboundSettings
from open_mcp_gateway.outbound.verdicts import EraVerdicts
from open_mcp_gateway.protocol.surrogates import Lenient

_QUOTED_CHARS: Final = 500
_OPEN: Final = frozenset({"", "invalid_request", "invalid_params", "unsupported_version"})
"""Codes of refusals after which another way of asking may do."""


class _Refusal(Struct):
    """The gateway's words where there is no JSON-RPC answer, as without a key."""

    message: str


class _Origin(Struct):
    code: str = ""


class _RpcError(Struct):
    message: str = ""
    data: Raw | UnsetType = UNSET


_refusal = Lenient(_Refusal)
_origin = Lenient(_Origin)
_error = Lenient(_RpcError)


class GatewayLink(Link):
    """The connections to one gateway; ``entry`` is the server behind it."""

    def __init__(
        self,
        entry: CatalogEntry,
        endpoint: Endpoint,
        proxy: Proxy | None,
        context: ssl.SSLContext | None,
        settings: OutboundSettings,
        *,
        key_hint: str,
    ) -> None:
        """``key_hint`` says how to mend a key that is refused."""
        super().__init__(entry, endpoint, proxy, context, settings)
        self._key_hint = key_hint
        self._pulse: Pulse | None = None

    def watch(self, peer: HttpPeer) -> None:
        """Lose ``peer``, which goes by this link, when the gateway hangs during its calls."""
        self._pulse = Pulse(peer)

    async def aclose(self) -> None:
        """See ``Link``."""
        if self._pulse is not None:
            await self._pulse.stop()
        await super().aclose()

    def text(self, rest: str) -> str:
        return self.entry.scrub(f"the gateway at {self.endpoint.origin} {rest}")

    def check(self, reply: Reply) -> None:
        """See ``Link``."""
        answer = reply.message
        if answer is None:
            raise self.failure(reply)
        if answer.error is UNSET:
            return
        code, said = _own_words(answer.error)
        if code == "not_found":
            raise NotFound(said)
        if code == "upstream_unavailable":
            raise UpstreamUnavailable(self.entry.scrub(said))
        if code not in _OPEN:
            raise self.unavailable(f"says: {said}")

    def failure(self, reply: Reply) -> GatewayError:
        """See ``Link``."""
        status, said = reply.status, _said(reply.body)
        if said is None or status < 400 or status == 404:
            text = f"answered with HTTP {status} and no JSON-RPC message; check its URL"
            # What stands before a gateway says 502 and 504 of calls that may have reached it.
            taken = status < 300 or status >= 500
            return self.broken(text) if taken else self.unavailable(text)
        refused = f"refused the request (HTTP {status}: {said})"
        if status == 413:
            return TooLarge(self.text(refused))
        if status in {401, 403}:
            return self.unavailable(f"{refused}; {self._key_hint}")
        return self.unavailable(refused)


def gateway_entry(url: str, server_id: str, key: str | None) -> CatalogEntry:
    """The server ``server_id`` of the gateway at ``url``, which takes ``key``, as a remote one."""
    spec = ServerSpec(
        id=ServerId(server_id),
        display_name=server_id,
        runtime=Remote(
            url=f"{url.rstrip('/')}/servers/{server_id}/mcp",
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
        ),
    )
    return CatalogEntry(
        spec=spec,
        shown=spec,
        runtime_type="remote-http",
        secrets=() if key is None else (key,),
    )


def gateway_opener(
    settings: OutboundSettings, environ: Mapping[str, str], *, key_hint: str
) -> Opener:
    """Opens servers of another gateway; ``key_hint`` is said where that refuses the key.

    Beside what an ``Opener`` raises: NotFound, the gateway has no such server.
    """
    verdicts = EraVerdicts()
    link = functools.partial(GatewayLink, key_hint=key_hint)

    async def open_entry(entry: CatalogEntry, manner: Manner = ANY_MANNER) -> Peer:
        try:
            peer = await open_remote(entry, manner, settings, verdicts, environ, link=link)
        except EraNotSpoken:
            raise
        except UpstreamError as error:
            raise UpstreamUnavailable(error.public) from error
        if isinstance(peer, HttpPeer) and isinstance(peer.link, GatewayLink):
            peer.link.watch(peer)
        return peer

    return open_entry


def _own_words(raw: Raw) -> tuple[str, str]:
    """The gateway's own code in a JSON-RPC error, empty where it is not one of its own."""
    try:
        error = _error.decode(raw)
        code = _origin.decode(error.data or b"{}").code
    except msgspec.DecodeError:
        return "", ""
    return code, error.message[:_QUOTED_CHARS]


def _said(body: bytes) -> str | None:
    try:
        return _refusal.decode(body).message[:_QUOTED_CHARS]
    except msgspec.DecodeError:
        return None
