"""Opening the HTTP+SSE transport of 2024-11-05: the event stream that names where to POST.

Spec: 2024-11-05 basic/transports#http-with-sse.
"""

from __future__ import annotations

import asyncio

from open_mcp_gateway.errors import UpstreamUnavailable
from open_mcp_gateway.outbound.answer import MAX_REDIRECTS, Reply
from open_mcp_gateway.outbound.endpoint import BadUrl, Endpoint
from open_mcp_gateway.outbound.http_exchange import Exchange, Fault, ResponseHead
from open_mcp_gateway.outbound.link import Link
from open_mcp_gateway.outbound.sse_channel import SseChannel
from open_mcp_gateway.protocol.sse import EventTooLarge, SseDecoder

_ENDS_KEPT_BYTES = 4096


class _Stream(Exchange):
    """The GET whose response never ends."""

    __slots__ = ("_decoder", "_link", "_max_bytes", "channel", "opened")

    def __init__(self, link: Link) -> None:
        head = link.head(b"GET") + b"Accept: text/event-stream\r\nCache-Control: no-store\r\n\r\n"
        super().__init__(head, replayable=True)
        self._link = link
        self._max_bytes = link.settings.max_message_bytes
        self._decoder: SseDecoder | None = None
        self.channel: SseChannel | None = None
        self.opened: asyncio.Future[str | Reply] = asyncio.get_running_loop().create_future()
        """The endpoint's URL as sent, or a response that is no event stream."""

    def head(self, head: ResponseHead) -> None:
        if head.status == 200 and head.content_type[:17].lower() == b"text/event-stream":
            self._decoder = SseDecoder(self._max_bytes)
        else:
            self._open(Reply(head.status, head.content_type, b"", head.location))

    def chunk(self, data: bytes) -> None:
        if self._decoder is None:
            return
        try:
            events = self._decoder.feed(data)
        except EventTooLarge as error:
            if self.channel is not None:
                self.channel.overlong(data[:_ENDS_KEPT_BYTES])
            self._over(f"sent too much at once: {error}")
            return
        for event in events:
            if event.type == "endpoint":
                self._open(event.data.decode(errors="replace").strip())
            elif event.type == "message" and event.data and self.channel is not None:
                self.channel.message(event.data)

    def done(self) -> None:
        self._over("ended its event stream")

    def fell(self, fault: Fault) -> None:
        if not self.opened.done():
            self.opened.set_exception(self._link.error(fault))
        self._over(f"broke off its event stream: it {fault.text}")

    def _open(self, outcome: str | Reply) -> None:
        if not self.opened.done():
            self.opened.set_result(outcome)

    def _over(self, what: str) -> None:
        if not self.opened.done():
            self.opened.set_exception(self._link.unavailable(what))
        if self.channel is not None:
            self.channel.ended(what)


async def open_sse(link: Link, patience_s: float) -> SseChannel | Reply | None:
    """GET the URL and wait for the ``endpoint`` event.

    None when ``patience_s`` pass without one; the response when it is no event stream.

    Raises:
        UpstreamUnavailable: nothing reached the server, or the endpoint is at another origin.
        UpstreamBroken: the stream broke before the event.
    """
    opened = await _open_once(link, patience_s)
    for _ in range(MAX_REDIRECTS):
        if not isinstance(opened, Reply) or not link.follow(opened):
            break
        opened = await _open_once(link, patience_s)
    return opened


async def _open_once(link: Link, patience_s: float) -> SseChannel | Reply | None:
    stream = _Stream(link)
    try:
        link.pool.submit(stream)
        async with asyncio.timeout(patience_s):
            outcome = await stream.opened
        if isinstance(outcome, str):
            stream.channel = SseChannel(link, stream, _endpoint(link, outcome))
            return stream.channel
    except TimeoutError:
        link.pool.withdraw(stream)
        return None
    except BaseException:
        link.pool.withdraw(stream)
        raise
    link.pool.withdraw(stream)
    return outcome


def _endpoint(link: Link, reference: str) -> Endpoint:
    """Where to POST; only ever at the origin that the credentials are for."""
    try:
        endpoint = link.endpoint.beside(reference)
    except BadUrl as error:
        raise _bad_endpoint(link, f"that is not a URL ({error})") from error
    if endpoint.origin != link.endpoint.origin:
        raise _bad_endpoint(link, f"at another origin, {endpoint.origin}")
    return endpoint


def _bad_endpoint(link: Link, why: str) -> UpstreamUnavailable:
    return link.unavailable(f"names an endpoint {why}")
