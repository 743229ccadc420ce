"""Where the outcome of one request goes, and what comes before it."""

from __future__ import annotations

from typing import Final, Protocol

from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.outbound.peer import Question
from open_mcp_gateway.pipeline.reply import Headers, Outlet, Reply, Responder, rpc_failure
from open_mcp_gateway.protocol.faults import METHOD_NOT_FOUND
from open_mcp_gateway.protocol.sse import encode_event

HOLD_OPEN_S: Final = 45.0
"""A request without an answer for this long becomes a stream, whose comments keep the connection
alive. Longer than most requests may take, so that their failures keep their status; shorter than
the usual 60 s that a proxy waits for a first byte."""


class Sink(Protocol):
    """Whoever is owed the answer to one request: ``answer`` or ``fail`` comes once, and last."""

    def message(self, data: bytes) -> None:
        """A notification or request for the client that belongs to this request."""

    def asked(self, question: Question) -> None:
        """The server wants something of the client while it works on this request."""

    def answer(self, data: bytes) -> None:
        """The response, under the client's own id."""

    def fail(self, error: GatewayError) -> None:
        """There is none; ``error.request_id`` is the client's id."""


class Waiting:
    """A sink with an HTTP request behind it, which must not wait for ever."""

    __slots__ = ()

    def dropped(self) -> None:
        """In place of ``answer`` and ``fail``: the client itself has called the request off."""
        raise NotImplementedError

    def hold_open(self) -> None:
        """There is no answer for long: from here on comments keep the connection alive."""
        raise NotImplementedError


class ReplySink:
    """One JSON body and nothing before it: the envelope. Progress is dropped, questions refused."""

    __slots__ = ("_request_id", "_responder")

    def __init__(self, responder: Responder, request_id: str) -> None:
        self._responder = responder
        self._request_id = request_id

    def message(self, data: bytes) -> None:
        """Nobody is listening."""

    def asked(self, question: Question) -> None:
        question.refuse(METHOD_NOT_FOUND, "this client cannot be asked anything")

    def answer(self, data: bytes) -> None:
        self._responder.respond(Reply(200, data))

    def fail(self, error: GatewayError) -> None:
        self._responder.respond(rpc_failure(error, self._request_id))


class DeferredSink(Waiting):
    """One JSON body if the answer comes first, else an event stream that ends with the answer.

    Deciding late keeps the HTTP status of errors that come first (2026-07-28 basic/transports).
    """

    __slots__ = ("_headers", "_outlet", "_request_id", "_responder", "status")

    def __init__(self, responder: Responder, request_id: str, headers: Headers = ()) -> None:
        self._responder = responder
        self._request_id = request_id
        self._headers = headers
        self._outlet: Outlet | None = None
        self.status = 200
        """With what the answer comes, as long as that can still be said."""

    def message(self, data: bytes) -> None:
        self._stream().send(encode_event(data))

    def dropped(self) -> None:
        self._stream().close()

    def hold_open(self) -> None:
        self._stream()

    def _stream(self) -> Outlet:
        if self._outlet is None:
            self._outlet = self._responder.open_stream(self._headers)
        return self._outlet

    def asked(self, question: Question) -> None:
        """Nothing is ever asked of a stateless client but in results."""
        question.refuse(METHOD_NOT_FOUND, "requests to the client do not exist in this revision")

    def answer(self, data: bytes) -> None:
        if self._outlet is None:
            self._responder.respond(Reply(self.status, data, self._headers))
        else:
            self._outlet.send(encode_event(data))
            self._outlet.close()

    def fail(self, error: GatewayError) -> None:
        reply = rpc_failure(error, self._request_id)
        if self._outlet is None:
            self._responder.respond(reply)
        else:
            self._outlet.send(encode_event(reply.body))
            self._outlet.close()
