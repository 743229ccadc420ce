"""The same dispatcher behind plain ASGI 3, for servers other than the one the gateway brings.

Slower than ``inbound/hot.py`` and kept equal to it by running the wire tests over both. What the
server does with bytes before it calls an application is its own: framing, time limits, keeping
trailers out of the scope's headers (uvicorn's h11 class does, its httptools class does not).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import anyio

from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.inbound.admission import Admitted
from open_mcp_gateway.inbound.arrival import Arrival
from open_mcp_gateway.inbound.dispatch import Dispatcher
from open_mcp_gateway.inbound.outlet import COMMENT_S, MAX_UNSENT_BYTES
from open_mcp_gateway.pipeline.reply import EVENT_STREAM, Headers, Reply
from open_mcp_gateway.writes import Writes

AsgiMessage: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[AsgiMessage]]
Send: TypeAlias = Callable[[AsgiMessage], Awaitable[None]]


class Application:
    """An ASGI application; the attributes are for the hot protocol class, which has no other way
    to what all its connections share."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.writes = Writes()

    async def __call__(self, scope: AsgiMessage, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._http(scope, receive, send)

    async def _http(self, scope: AsgiMessage, receive: Receive, send: Send) -> None:
        target = scope["raw_path"]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        client = "{}:{}".format(*scope["client"]) if scope.get("client") else ""
        # Some servers leave white space at the end, no part of a value (RFC 9110 section 5.5).
        headers = [(name, value.rstrip(b" \t")) for name, value in scope["headers"]]
        arrival = Arrival(scope["method"].encode(), target, headers, client)
        waiting = _WaitingResponder()
        try:
            arrival.check_size()
            admitted = self.dispatcher.admit(arrival, http_version=scope["http_version"])
            body = b"" if admitted.ready else await self._body(admitted, receive)
            if body is None:
                return
        except GatewayError as error:
            waiting.respond(self.dispatcher.refuse(arrival, error))
        else:
            exchange = self.dispatcher.handle(admitted, body, waiting)
            if not await self._connected(arrival, waiting, receive, send):
                if exchange is not None:
                    exchange.abandon()
                return
        if waiting.reply is not None:
            await _send(send, self.dispatcher.finish(arrival, waiting.reply))

    async def _connected(
        self, arrival: Arrival, waiting: _WaitingResponder, receive: Receive, send: Send
    ) -> bool:
        """Wait for the reply, or send a stream to its end; False if the client left before that."""
        if waiting.reply is not None:
            return True
        stayed = False
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                tasks.cancel_scope.cancel()

            async def cut_off(stream: _AsgiOutlet) -> None:
                await stream.too_slow.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            await waiting.answered.wait()
            if waiting.stream is not None:
                headers = (*EVENT_STREAM, *waiting.headers)
                head = self.dispatcher.finish(arrival, Reply(200, headers=headers))
                await _start(send, head.status, list(head.headers))
                tasks.start_soon(cut_off, waiting.stream)
                await waiting.stream.relay(send)
            stayed = True
            tasks.cancel_scope.cancel()
        return stayed

    async def _body(self, admitted: Admitted, receive: Receive) -> bytes | None:
        """The whole body, None if the client left. Raises TooLarge as soon as it is over."""
        body = bytearray()
        dispatcher, most_bytes = self.dispatcher, admitted.most_bytes
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            body += chunk
            if len(body) > min(dispatcher.max_body_bytes, most_bytes):
                raise dispatcher.too_large(most_bytes)
            if not message.get("more_body", False):
                return bytes(body)


class _WaitingResponder:
    """Keeps the reply, or the stream, until the application can await it."""

    def __init__(self) -> None:
        self.reply: Reply | None = None
        self.stream: _AsgiOutlet | None = None
        self.headers: Headers = ()
        self.answered = anyio.Event()

    def respond(self, reply: Reply) -> None:
        if self.stream is None:
            self.reply = reply
            self.answered.set()

    def open_stream(self, headers: Headers = ()) -> _AsgiOutlet:
        """See ``Responder``."""
        self.stream = _AsgiOutlet()
        self.headers = headers
        self.answered.set()
        return self.stream


class _AsgiOutlet:
    """Keeps events until the application has sent them."""

    def __init__(self) -> None:
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._more = anyio.Event()
        self._closed = False
        self.too_slow = anyio.Event()
        """The client does not take its events: they are not kept for it, nor is the rest sent."""

    def send(self, chunk: bytes) -> bool:
        """See ``Outlet``."""
        if self._unsent_bytes > MAX_UNSENT_BYTES:
            self._unsent.clear()
            self._closed = True
            self.too_slow.set()
        if self._closed:
            return False
        self._unsent.append(chunk)
        self._unsent_bytes += len(chunk)
        self._more.set()
        return True

    def close(self) -> None:
        """See ``Outlet``."""
        self._closed = True
        self._more.set()

    async def relay(self, send: Send) -> None:
        """Send everything until the stream is closed, with a comment now and then."""
        while True:
            with anyio.move_on_after(COMMENT_S) as silence:
                await self._more.wait()
            if silence.cancelled_caught:
                await _chunk(send, b":\n\n", more=True)
            self._more = anyio.Event()
            while self._unsent:
                chunk = self._unsent.popleft()
                await _chunk(send, chunk, more=True)
                self._unsent_bytes -= len(chunk)
            if self._closed:
                await _chunk(send, b"", more=False)
                return


async def _start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _chunk(send: Send, body: bytes, *, more: bool) -> None:
    message: dict[str, object] = {"type": "http.response.body", "body": body}
    await send(message | {"more_body": True} if more else message)


async def _send(send: Send, reply: Reply) -> None:
    headers = list(reply.headers)
    if reply.body:
        headers.append((b"content-type", b"application/json"))
    if reply.status != 204:
        headers.append((b"content-length", b"%d" % len(reply.body)))
    await _start(send, reply.status, headers)
    await _chunk(send, reply.body, more=False)


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing to do: whoever builds the application also runs its task groups."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
