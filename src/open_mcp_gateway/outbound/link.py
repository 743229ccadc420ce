"""The way to one remote server: its connections, and the parts of a request that never change."""

from __future__ import annotations

import re
import ssl

from msgspec.structs import replace

from open_mcp_gateway import __version__
from open_mcp_gateway.catalog.model import CatalogEntry, Remote
from open_mcp_gateway.errors import (
    GatewayError,
    UpstreamBroken,
    UpstreamError,
    UpstreamUnavailable,
)
from open_mcp_gateway.outbound.answer import (
    MAX_REDIRECTS,
    REDIRECTS,
    REPEATING_REDIRECTS,
    Ask,
    Fell,
    Reply,
)
from open_mcp_gateway.outbound.dial import Dialer
from open_mcp_gateway.outbound.endpoint import BadUrl, Endpoint
from open_mcp_gateway.outbound.http_exchange import Fault
from open_mcp_gateway.outbound.pool import Pool
from open_mcp_gateway.outbound.proxy import Proxy, is_loopback
from open_mcp_gateway.outbound.settings import OutboundSettings

ACCEPT_BOTH = b"Accept: application/json, text/event-stream\r\n"

_OURS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Set by the gateway; in the catalog (many are copied from clients) they are passed over."""

DOUBT = "; the call may have taken effect"

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_UNSAFE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")


class Link:
    """One URL of one server. Never carries a caller's credentials, only those of the catalog."""

    def __init__(
        self,
        entry: CatalogEntry,
        endpoint: Endpoint,
        proxy: Proxy | None,
        context: ssl.SSLContext | None,
        settings: OutboundSettings,
    ) -> None:
        """
        Raises:
            BadUrl: a catalog header cannot be sent.
        """
        self.entry = entry
        self.settings = settings
        self.endpoint = endpoint
        self._absolute = proxy is not None and context is None
        self._static = _static_headers(entry, endpoint, proxy if self._absolute else None)
        dialer = Dialer(endpoint.origin, proxy, context, settings.connect_timeout_s)
        self.pool = Pool(dialer, settings)
        self.post_head = b""
        """Request line and headers of every POST, up to what differs from call to call."""
        self._aim(endpoint)

    def _aim(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.post_head = self.head(b"POST") + b"Content-Type: application/json\r\n" + ACCEPT_BOTH

    def head(self, verb: bytes, endpoint: Endpoint | None = None) -> bytes:
        """Request line and the headers every request has; more headers and a blank line follow."""
        target = (endpoint or self.endpoint).target
        if self._absolute:
            target = f"{self.endpoint.origin}{target}"
        return b"%b %b HTTP/1.1\r\n%b" % (verb, target.encode(), self._static)

    def post(self, headers: bytes, body: bytes) -> bytes:
        """A whole POST; ``headers`` are lines with their line ends."""
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (self.post_head, headers, len(body), body)

    # Words for failures

    def text(self, rest: str) -> str:
        """``Server 'x' <rest>``, scrubbed of the server's secrets."""
        return f"Server '{self.entry.spec.id}' {self.entry.scrub(rest)}"

    def unavailable(self, rest: str) -> UpstreamUnavailable:
        return UpstreamUnavailable(self.text(rest))

    def broken(self, rest: str) -> UpstreamBroken:
        return UpstreamBroken(self.text(rest))

    def error(self, fault: Fault) -> UpstreamError:
        """Unavailable only where nothing can have reached the server."""
        return self.broken(fault.text) if fault.sent else self.unavailable(fault.text)

    def call_error(self, fault: Fault) -> UpstreamError:
        """The same where a call of somebody's fails, not the opening of the server."""
        doubt = DOUBT if fault.doubtful else ""
        return self.error(replace(fault, text=fault.text + doubt))

    def check(self, reply: Reply) -> None:
        """Raise for an answer to a handshake after which no other way of asking would do.

        Of most servers that is not known: see ``gateway.GatewayLink``.
        """

    def failure(self, reply: Reply) -> GatewayError:
        """What a response without a JSON-RPC answer means for the call it is to."""
        return self.broken(self.refusal(reply))

    def refusal(self, reply: Reply) -> str:
        """What is wrong with a response that holds no JSON-RPC answer; follows ``Server 'x'``."""
        status = reply.status
        if status in {401, 403}:
            return (
                f"refused the gateway's credentials (HTTP {status}); "
                "check `headers` of the server in the catalog"
            )
        if status in REDIRECTS:
            return self._redirected(reply.location)
        if status in {404, 405, 410}:
            return f"has no MCP endpoint at {self.endpoint} (HTTP {status}); check `url`"
        if status >= 300:
            return f"answered with HTTP {status} instead of a JSON-RPC message"
        if not reply.body:
            return f"sent an empty answer (HTTP {status})"
        kind = reply.content_type.split(b";")[0].strip().lower().decode("latin-1")[:60]
        if kind != "application/json":
            return f"answered with {kind or 'no content type'} instead of JSON; check `url`"
        return "sent an answer that is not one whole JSON-RPC response"

    def _redirected(self, location: bytes) -> str:
        try:
            target = self.endpoint.beside(location.decode("latin-1"))
        except BadUrl:
            return "redirects to something that is not a URL"
        if target.origin != self.endpoint.origin:
            return (
                f"redirects to another origin, {target.origin}; if that is right, "
                "change `url` in the catalog"
            )
        return f"redirects to {target}; change `url` in the catalog"

    # Redirects

    def follow(self, reply: Reply) -> bool:
        """Aim at where a 307 or 308 within the origin points; False where none must be followed."""
        if reply.status not in REPEATING_REDIRECTS or not reply.location:
            return False
        try:
            target = self.endpoint.beside(reply.location.decode("latin-1"))
        except BadUrl:
            return False
        if target.origin != self.endpoint.origin:
            return False
        self._aim(target)
        return True

    # Off the hot path

    async def ask(
        self, headers: bytes, body: bytes, upstream_id: int | None, *, replayable: bool = False
    ) -> Reply:
        """POST and await the response; 307 and 308 within the origin are followed.

        Raises:
            UpstreamUnavailable: nothing reached the server.
            UpstreamBroken: no complete response came.
        """
        reply = await self.exchange(self.post(headers, body), upstream_id, replayable=replayable)
        for _ in range(MAX_REDIRECTS):
            if not self.follow(reply):
                break
            request = self.post(headers, body)
            reply = await self.exchange(request, upstream_id, replayable=replayable)
        return reply

    async def exchange(
        self, request: bytes, upstream_id: int | None = None, *, replayable: bool = False
    ) -> Reply:
        """Send a whole request and await the response, as it is.

        Raises:
            UpstreamUnavailable: nothing reached the server.
            UpstreamBroken: no complete response came.
        """
        ask = Ask(
            request,
            upstream_id,
            replayable=replayable,
            max_bytes=self.settings.max_message_bytes,
        )
        try:
            self.pool.submit(ask)
            reply = await ask.outcome
        except Fell as fell:
            self.pool.withdraw(ask)
            raise self.error(fell.fault) from fell
        except BaseException:
            self.pool.withdraw(ask)
            raise
        self.pool.settled(ask)
        return reply

    async def aclose(self) -> None:
        """Close every connection."""
        await self.pool.aclose()


def _static_headers(entry: CatalogEntry, endpoint: Endpoint, proxy: Proxy | None) -> bytes:
    """What every request to the server carries."""
    lines = {"host": f"Host: {endpoint.origin.authority}".encode()}
    lines["user-agent"] = f"User-Agent: open-mcp-gateway/{__version__}".encode()
    if endpoint.basic is not None:
        lines["authorization"] = b"Authorization: Basic " + endpoint.basic
    if not is_loopback(endpoint.origin.host):
        lines["accept-encoding"] = b"Accept-Encoding: gzip"
    if proxy is not None and proxy.authorization is not None:
        lines["proxy-authorization"] = b"Proxy-Authorization: " + proxy.authorization
    runtime = entry.spec.runtime
    for name, value in (runtime.headers if isinstance(runtime, Remote) else {}).items():
        if name.lower() not in _OURS:
            lines[name.lower()] = _header_line(name, value)
    return b"".join(line + b"\r\n" for line in lines.values())


def _header_line(name: str, value: str) -> bytes:
    """One catalog header; RFC 9110 section 5.5 keeps line ends and controls out of values."""
    if not _TOKEN.fullmatch(name):
        raise BadUrl(f"`headers`: {name[:40]!r} is not a header name")
    text = value.strip(" \t")
    if _UNSAFE.search(text):
        raise BadUrl(f"`headers`: the value of {name!r} has characters a header cannot carry")
    return f"{name}: {text}".encode("latin-1")
