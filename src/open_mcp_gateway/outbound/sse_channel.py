"""The HTTP+SSE transport of 2024-11-05 as a channel: one event stream in, POSTs out.

Spec: 2024-11-05 basic/transports#http-with-sse.
"""

from __future__ import annotations

import asyncio
from collections import deque

from open_mcp_gateway.errors import Busy
from open_mcp_gateway.outbound.answer import Reply
from open_mcp_gateway.outbound.channel import Loss, Receiver
from open_mcp_gateway.outbound.endpoint import Endpoint
from open_mcp_gateway.outbound.http_call import TOLD_S, Told
from open_mcp_gateway.outbound.http_exchange import Exchange, Fault, ResponseHead
from open_mcp_gateway.outbound.link import Link

BARRIER_S = 10.0
"""How long what is to be sent waits for the response to the notification before it."""

LOOK_S = 5.0
"""How often it is looked for POSTs that have outlived their calls."""

_UNKNOWN = 404
_PING = b'{"jsonrpc":"2.0","id":"still-there","method":"ping"}'


class SseChannel:
    """Messages to and from one HTTP+SSE server."""

    __slots__ = (
        "_asking_until_s",
        "_barrier",
        "_closed",
        "_link",
        "_look",
        "_post_head",
        "_posts",
        "_receiver",
        "_stream",
        "_timer",
        "_waiting",
        "full",
    )

    def __init__(self, link: Link, stream: Exchange, endpoint: Endpoint) -> None:
        self._link = link
        self._stream = stream
        self._post_head = link.head(b"POST", endpoint) + b"Content-Type: application/json\r\n"
        self._receiver: Receiver | None = None
        self._barrier: _Post | None = None
        """A notification on its way. POSTs travel on several connections and may overtake each
        other; nothing may overtake ``notifications/initialized``."""
        self._asking_until_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        """Of the barrier, or of the one before."""
        self._waiting: deque[_Post] = deque()
        self._posts: dict[_Post, int] = {}
        """Those of requests that have no response yet, with the id of each."""
        self._look: asyncio.TimerHandle | None = None
        self._closed = False
        self.full = False

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
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(BARRIER_S, self._give_up_on, post)
        else:
            self._posts[post] = post.upstream_id
            if self._look is None:
                self._look = asyncio.get_running_loop().call_later(LOOK_S, self._look_through)
        try:
            self._link.pool.submit(post)
        except Busy:
            loop = asyncio.get_running_loop()
            loop.call_soon(post.fell, Fault("takes no more input now; try again later", sent=False))

    def _give_up_on(self, post: _Post) -> None:
        """No response to a notification: what comes after it goes out all the same."""
        self._link.pool.withdraw(post)
        self.posted(post, None)

    def _look_through(self) -> None:
        """Let go of the connections of POSTs whose calls are over: a server may never respond to
        them. While a call lasts, so does its POST: servers respond at the end of their work, too,
        and some break that off when the connection goes."""
        self._look = None
        for post, upstream_id in list(self._posts.items()):
            if self._receiver is None or not self._receiver.awaits(upstream_id):
                del self._posts[post]
                if self._link.pool.waits(post):
                    self._link.pool.withdraw(post)
                else:
                    self._link.pool.settled(post)
        if self._posts:
            self._look = asyncio.get_running_loop().call_later(LOOK_S, self._look_through)

    def posted(self, post: _Post, error: Fault | None) -> None:
        """A POST is over; ``error`` when the server did not take the message."""
        self._posts.pop(post, None)
        if error is not None and post.upstream_id is not None and self._receiver is not None:
            reason = self._link.error(error)
            self._receiver.undelivered(post.upstream_id, reason, doubtful=error.doubtful)
        if post is self._barrier:
            self._barrier = None
            if self._timer is not None:
                self._timer.cancel()
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
            self._shut()
            self._link.pool.withdraw(self._stream)
            if self._receiver is not None:
                self._receiver.lost(Loss(self._link.entry.scrub(what)))

    def give_up(self) -> None:
        """See ``Channel``."""
        self._shut()
        self._link.pool.withdraw(self._stream)

    async def aclose(self) -> None:
        """See ``Channel``."""
        self._shut()
        await self._link.aclose()

    def _shut(self) -> None:
        self._closed = True
        self._waiting.clear()
        self._posts.clear()
        for timer in (self._timer, self._look):
            if timer is not None:
                timer.cancel()

    def refusal(self, status: int) -> str:
        """What a POST's status says."""
        if status == _UNKNOWN:
            return "does not know the session of its own event stream (HTTP 404); call again"
        return self._link.refusal(Reply(status, b"", b""))

    def doubt(self) -> None:
        """Ask whether the session is still known. One answer to one call, which may come from
        something in between, must not take the server from all the others."""
        now_s = asyncio.get_running_loop().time()
        if self._closed or now_s < self._asking_until_s:
            return
        self._asking_until_s = now_s + TOLD_S
        head = b"%bContent-Length: %d\r\n\r\n" % (self._post_head, len(_PING))
        ping = _Ping(self, self._link, head + _PING)
        try:
            self._link.pool.submit(ping)
        except Busy as busy:
            ping.fell(Fault(busy.public, sent=False))

    def certain(self, *, known: bool) -> None:
        """What came of that."""
        self._asking_until_s = 0.0
        if not known:
            self.ended("has forgotten the session")


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
        if self._status == _UNKNOWN:
            self._channel.doubt()

    def fell(self, fault: Fault) -> None:
        self._channel.posted(self, fault)


class _Ping(Told):
    """A ping. Its answer, on the event stream, is one to no call: the POST's status counts."""

    __slots__ = ("_channel", "_status")

    def __init__(self, channel: SseChannel, link: Link, message: bytes) -> None:
        super().__init__(link, message)
        self._channel = channel
        self._status = 0

    def head(self, head: ResponseHead) -> None:
        self._status = head.status

    def done(self) -> None:
        super().done()
        self._channel.certain(known=self._status != _UNKNOWN)

    def fell(self, fault: Fault) -> None:
        super().fell(fault)
        self._channel.certain(known=True)  # an outage says nothing about it
