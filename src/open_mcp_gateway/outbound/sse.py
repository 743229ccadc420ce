"""The HTTP+SSE transport of 2024-11-05 as a channel: one event stream in, POSTs out.

Spec: 2024-11-05 basic/transports#http-with-sse.
"""

from __future__ import annotations

import asyncio
from collections import deque

from open_mcp_gateway.errors import Busy, UpstreamUnavailable
from open_mcp_gateway.outbound.answer import MAX_REDIRECTS, Reply
from open_mcp_gateway.outbound.channel import Loss, Receiver
from open_mcp_gateway.outbound.endpoint import BadUrl, Endpoint
from open_mcp_gateway.outbound.http_exchange import Exchange, Fault, ResponseHead
from open_mcp_gateway.outbound.link import Link
from open_mcp_gateway.protocol.sse import EventTooLarge, SseDecoder

_ENDS_KEPT_BYTES = 4096


class SseChannel:
    """Messages to and from one HTTP+SSE server."""

    __slots__ = (
        "_barrier",
        "_closed",
        "_link",
        "_post_head",
        "_receiver",
        "_stream",
        "_waiting",
        "full",
    )

    def __init__(self, link: Link, stream: _Stream, endpoint: Endpoint) -> None:
        self._link = link
        self._stream = stream
        self._post_head = link.head(b"POST", endpoint) + b"Content-Type: application/json\r\n"
        self._receiver: Receiver | None = None
        self._barrier: _Post | None = None
        """A notification on its way. POSTs travel on several connections and may overtake each
        other; nothing may overtake ``notifications/initialized``."""
        self._waiting: deque[_Post] = deque()
        self._closed = False
        self.full = False
        stream.channel = self

    @property
    def pid(self) -> None:
        return None

    def deliver_to(self, receiver: Receiver) -> None:
        """Set the receiver; before the first ``send``."""
        self._receiver = receiver

    def send(self, message: bytes, upstream_id: int | None, /) -> None:
        """See ``Channel``."""
        if self._closed:
            return
        head = b"%bContent-Length: %d\r\n\r\n" % (self._post_head, len(message))
        post = _Post(self, head + message, upstream_id)
        if self._barrier is None:
            self._post(post)
        else:
            self._waiting.append(post)
            self.full = sum(len(p.request) for p in self._waiting) > self._bound

    @property
    def _bound(self) -> int:
        return self._link.settings.max_send_buffer_bytes

    def _post(self, post: _Post) -> None:
        if post.upstream_id is None:
            self._barrier = post
        try:
            self._link.pool.submit(post)
        except Busy:
            loop = asyncio.get_running_loop()
            loop.call_soon(post.fell, Fault("takes no more input now; try again later", sent=False))

    def posted(self, post: _Post, error: Fault | None) -> None:
        """A POST is over; ``error`` when the server did not take the message."""
        if error is not None and post.upstream_id is not None and self._receiver is not None:
            self._receiver.undelivered(post.upstream_id, self._link.call_error(error))
        if post is self._barrier:
            self._barrier = None
            while self._waiting and self._barrier is None:
                self._post(self._waiting.popleft())
            self.full = False

    def message(self, data: bytes) -> None:
        """One ``message`` event."""
        if self._receiver is not None and not self._closed:
            self._receiver.message(data)

    def overlong(self, front: bytes) -> None:
        """An event over the limit: the stream cannot be read on."""
        if self._receiver is not None and not self._closed:
            self._receiver.overlong(front, b"")

    def ended(self, what: str) -> None:
        """The stream is over."""
        if not self._closed:
            self._closed = True
            self._waiting.clear()
            self._link.pool.withdraw(self._stream)
            if self._receiver is not None:
                self._receiver.lost(Loss(self._link.entry.scrub(what)))

    def give_up(self) -> None:
        """See ``Channel``."""
        self._closed = True
        self._link.pool.withdraw(self._stream)

    async def aclose(self) -> None:
        """See ``Channel``."""
        self._closed = True
        self._waiting.clear()
        await self._link.aclose()

    def refusal(self, status: int) -> str:
        """What a POST's status says."""
        return self._link.refusal(Reply(status, b"", b""))


class _Post(Exchange):
    """One message out."""

    __slots__ = ("_channel", "_status", "upstream_id")

    def __init__(self, channel: SseChannel, message: bytes, upstream_id: int | None) -> None:
        super().__init__(message, replayable=False)
        self._channel = channel
        self._status = 0
        self.upstream_id = upstream_id

    def head(self, head: ResponseHead) -> None:
        self._status = head.status

    def done(self) -> None:
        if self._status < 300:
            self._channel.posted(self, None)
            return
        self._channel.posted(self, Fault(self._channel.refusal(self._status), sent=True))
        if self._status == 404:
            self._channel.ended("has forgotten the session")

    def fell(self, fault: Fault) -> None:
        self._channel.posted(self, fault)


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
            return SseChannel(link, stream, _endpoint(link, outcome))
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
