"""Several messages in one, as revision 2025-03-26 has them.

Spec: 2025-03-26 basic#batching: a server must accept them; the responses come in one array, or one
by one where there is a stream anyway.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import UNSET, Raw

from open_mcp_gateway.errors import GatewayError, InvalidRequest, MalformedMessage
from open_mcp_gateway.inbound.session_sink import SessionSink
from open_mcp_gateway.outbound.peer import Question
from open_mcp_gateway.pipeline.reply import ACCEPTED, Responder, failure_of
from open_mcp_gateway.pipeline.sessions import HttpSession
from open_mcp_gateway.pipeline.sink import Waiting
from open_mcp_gateway.protocol.classify import claims_modern
from open_mcp_gateway.protocol.faults import rpc_body
from open_mcp_gateway.protocol.jsonrpc import Call, decode_incoming
from open_mcp_gateway.protocol.messages import Message, call_of, decode_message, raw_id_of
from open_mcp_gateway.protocol.surrogates import Lenient

REVISION: Final = "2025-03-26"
"""The one revision with JSON-RPC batches."""

MAX_MESSAGES: Final = 1000
"""In one batch."""

_elements = Lenient(list[Raw])


def is_batch(body: bytes) -> bool:
    """Whether this is an array, whatever is in it."""
    return body.lstrip()[:1] == b"["


def elements_of(body: bytes) -> list[tuple[Message, bytes]]:
    """The messages of a batch, each with its own text; an empty one for what is no object, which is
    refused by itself (JSON-RPC 2.0, section 6).

    Raises:
        MalformedMessage, InvalidRequest: it is no batch of messages.
    """
    try:
        if not body.isascii():
            body.decode()  # msgspec skips over strings without checking their UTF-8
        raws = _elements.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(f"the body is not valid JSON: {error}") from error
    if len(raws) > MAX_MESSAGES:
        raise InvalidRequest(f"a batch may hold {MAX_MESSAGES} messages at most")
    try:
        return [(_element(text), text) for text in map(bytes, raws)]
    except InvalidRequest as error:
        error.request_id = None  # it is an answer to all of them
        raise


def _element(text: bytes) -> Message:
    return decode_message(text) if text.lstrip()[:1] == b"{" else Message()


def check_batch(elements: list[tuple[Message, bytes]], version: str | None) -> None:
    """Refuse a batch in a session of another revision; ``version`` None: there is no session.

    Raises:
        InvalidRequest: says why.
    """
    if version != REVISION:
        raise InvalidRequest(f"batches exist in revision {REVISION} only; send one message")
    if not elements:
        raise InvalidRequest("a batch must not be empty")


def is_response(message: Message) -> bool:
    """Whether it answers something that the client was asked."""
    answers = message.result is not UNSET or message.error is not UNSET
    return message.method is UNSET and message.id is not UNSET and answers


def batched(message: Message) -> Call:
    """The request or notification that one element of a batch is.

    Raises:
        InvalidRequest: it is none, or none for a batch.
    """
    call = call_of(message)
    if call.method == "initialize":
        raise InvalidRequest("'initialize' must not be part of a batch")
    if claims_modern(call.params):
        raise InvalidRequest("a request that names its own protocol version must stand alone")
    return call if message.id is not UNSET else Call(call.method, None, call.params)


def array_of(answers: list[bytes]) -> bytes:
    """Responses as one message."""
    return b"[" + b",".join(answers) + b"]"


class Answers:
    """The responses to one batch; ``finish`` gets them when the last one is in, maybe none."""

    def __init__(self, finish: Callable[[list[bytes]], None]) -> None:
        self._finish = finish
        self._answers: list[bytes] = []
        self._open = 1  # the batch itself, while it is being taken

    def expect(self) -> None:
        """One more is to come."""
        self._open += 1

    def add(self, data: bytes | None) -> None:
        """One that was expected; None: there is no response to that message."""
        if data is not None:
            self._answers.append(data)
        self._open -= 1
        if not self._open:
            self._finish(self._answers)

    def complete(self) -> None:
        """Everything in the batch was taken."""
        self.add(None)


class Batch:
    """Serves the messages of one POST side by side; answers when the last one is answered."""

    def __init__(self, session: HttpSession, responder: Responder, request_id: str) -> None:
        self._session = session
        self._responder = responder
        self._request_id = request_id
        self._answers = Answers(self._finish)
        self._stream = SessionSink(session, responder, request_id)
        self._asked = False
        """There was a request in it, which is owed something."""

    def take(self, elements: list[tuple[Message, bytes]]) -> Batch:
        """Serve every message; never raises for one of them."""
        for message, body in elements:
            if is_response(message):
                self._answered(body)
            else:
                self._take(message)
        self._answers.complete()
        return self

    def _answered(self, body: bytes) -> None:
        """The answer to a question, or to nothing that was asked."""
        with contextlib.suppress(MalformedMessage):
            self._session.core.answer(decode_incoming(body))

    def _take(self, message: Message) -> None:
        sink = _Part(self)
        self._answers.expect()
        try:
            call = batched(message)
            if call.id is None:
                self._session.core.notification(call)
                self._answers.add(None)
            else:
                self._asked = True
                self._session.core.take(call, sink, self._request_id)
        except Exception as error:  # noqa: BLE001 - a boundary: the others are still to be served
            sink.fail(failure_of(error, raw_id_of(message), self._request_id))

    def message(self, data: bytes) -> None:
        """Something before the answers: from here on it is a stream."""
        self._stream.message(data)

    def hold_open(self) -> None:
        """See ``Waiting``."""
        self._stream.hold_open()

    def pose(self, question: Question) -> None:
        self._session.core.pose_through(question, self.message)

    def part(self, data: bytes | None) -> None:
        """The answer to one of the requests; None: it was called off."""
        self._answers.add(data)

    def failed(self, error: GatewayError) -> None:
        self.part(rpc_body(error, self._request_id))

    def _finish(self, answers: list[bytes]) -> None:
        if answers:
            self._stream.answer_all(answers)
        elif self._asked:
            self._stream.dropped()
        else:
            self._responder.respond(ACCEPTED)

    def abandon(self) -> None:
        """The connection is gone; the calls go on, as for a single message."""
        self._stream.abandon()


class _Part(Waiting):
    """The sink of one request of a batch."""

    __slots__ = ("_batch",)

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def message(self, data: bytes) -> None:
        self._batch.message(data)

    def asked(self, question: Question) -> None:
        self._batch.pose(question)

    def answer(self, data: bytes) -> None:
        self._batch.part(data)

    def fail(self, error: GatewayError) -> None:
        self._batch.failed(error)

    def dropped(self) -> None:
        self._batch.part(None)

    def hold_open(self) -> None:
        self._batch.hold_open()
