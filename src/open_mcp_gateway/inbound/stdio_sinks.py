"""Where the outcome of a stdio client's request goes, by how the request was served."""

from __future__ import annotations

from typing import Final, Protocol

from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.inbound.outbox import Outbox
from open_mcp_gateway.inbound.stdio_era import ConnectionEra
from open_mcp_gateway.inbound.stdio_words import StdioWords
from open_mcp_gateway.outbound.peer import Question
from open_mcp_gateway.outbound.relation import CANCELLED, LISTEN
from open_mcp_gateway.pipeline.reply import Headers, Outlet, Reply
from open_mcp_gateway.pipeline.session import ClientSession
from open_mcp_gateway.protocol.faults import METHOD_NOT_FOUND
from open_mcp_gateway.protocol.jsonrpc import notification

_OK: Final = 200


class Face(Protocol):
    """The client's connection, as far as one request needs it."""

    era: ConnectionEra
    outbox: Outbox
    words: StdioWords

    def finish(self, raw_id: bytes, data: bytes | None) -> None:
        """The request is over, with that answer if there is one."""


class ModernSink:
    """The outcome of a stateless request."""

    __slots__ = ("_face", "_method", "_raw_id")

    def __init__(self, face: Face, raw_id: bytes, method: str) -> None:
        self._face = face
        self._raw_id = raw_id
        self._method = method

    def message(self, data: bytes) -> None:
        self._face.era.spoke_modern()
        self._face.outbox.send(data)

    def asked(self, question: Question) -> None:
        question.refuse(METHOD_NOT_FOUND, "requests to the client do not exist in this revision")

    def answer(self, data: bytes) -> None:
        self._face.era.spoke_modern()
        self._face.finish(self._raw_id, self._face.words.answer(data, modern=True))
        if self._method == LISTEN:
            # The end of a subscription is told in both ways (basic/utilities/cancellation).
            params = b'{"requestId":%b}' % self._raw_id
            self._face.outbox.send(notification(CANCELLED, params))

    def fail(self, error: GatewayError) -> None:
        self._face.finish(self._raw_id, self._face.words.failure(error, modern=True))


class SessionSink:
    """The outcome of a request of the client's session; everything else goes the same way."""

    __slots__ = ("_face", "_raw_id", "_session")

    def __init__(self, face: Face, raw_id: bytes, session: ClientSession) -> None:
        self._face = face
        self._raw_id = raw_id
        self._session = session

    def message(self, data: bytes) -> None:
        self._face.outbox.send(data)

    def asked(self, question: Question) -> None:
        self._session.pose_through(question, self._face.outbox.send)

    def answer(self, data: bytes) -> None:
        self._face.finish(self._raw_id, self._face.words.answer(data, modern=False))

    def fail(self, error: GatewayError) -> None:
        self._face.finish(self._raw_id, self._face.words.failure(error, modern=False))


class PlainSink:
    """The responder for a request before any opening."""

    __slots__ = ("_face", "_raw_id")

    def __init__(self, face: Face, raw_id: bytes) -> None:
        self._face = face
        self._raw_id = raw_id

    def respond(self, reply: Reply) -> None:
        words = self._face.words
        say = words.answer if reply.status == _OK else words.reworded
        self._face.finish(self._raw_id, say(reply.body, modern=False))

    def open_stream(self, headers: Headers = ()) -> Outlet:
        raise NotImplementedError("the envelope has one answer and nothing before it")
