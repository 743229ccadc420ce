"""Requests from a server that wait for its client's answer.

Spec: 2025-11-25 basic#requests, client/elicitation, client/sampling, client/roots. Stateless
servers have none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from msgspec import UNSET, Raw, UnsetType

from open_mcp_gateway.protocol.faults import INTERNAL_ERROR
from open_mcp_gateway.protocol.jsonrpc import Incoming, encode, error_response, response

MAX_OPEN: Final = 256
"""Questions one server may have open at a time."""

_log = logging.getLogger(__name__)


class ServerQuestion:
    """One of them; see ``Question``. Nothing is sent once it is answered or called off."""

    __slots__ = ("_open", "key", "method", "params", "raw_id")

    def __init__(
        self, questions: OpenQuestions, key: int | str, method: str, params: Raw | UnsetType
    ) -> None:
        self._open = questions
        self.key = key
        self.raw_id: bytes = encode(key)
        self.method = method
        self.params = params

    def answer(self, incoming: Incoming) -> None:
        """See ``Question``."""
        result, error = incoming.result, incoming.error
        if result is not UNSET and error is UNSET:
            self._open.settle(self, response(self.raw_id, bytes(result)))
        elif error is not UNSET and result is UNSET:
            answer = b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (self.raw_id, bytes(error))
            self._open.settle(self, answer)
        else:
            self.refuse(INTERNAL_ERROR, "the client gave no valid answer")

    def refuse(self, code: int, text: str) -> None:
        """See ``Question``."""
        self._open.settle(self, error_response(self.raw_id, code, text))


class OpenQuestions:
    """Those of one server that have no answer yet; answers leave through ``send``."""

    __slots__ = ("_questions", "_send")

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._questions: dict[int | str, ServerQuestion] = {}

    def __len__(self) -> int:
        return len(self._questions)

    def admit(self, incoming: Incoming) -> ServerQuestion | None:
        """The question in a server's request; None where it cannot be one, which is seen to."""
        key, method = incoming.id, incoming.method
        if isinstance(key, UnsetType) or isinstance(method, UnsetType) or key is None:
            _log.debug("request of a server without a usable id dropped")
            return None
        if key in self._questions:
            # Any answer would be taken for the first one's.
            _log.debug("request of a server with the id of an open one dropped")
            return None
        question = ServerQuestion(self, key, method, incoming.params)
        if len(self._questions) >= MAX_OPEN:
            self._send(error_response(question.raw_id, INTERNAL_ERROR, "too many open requests"))
            return None
        self._questions[key] = question
        return question

    def settle(self, question: ServerQuestion, message: bytes) -> None:
        """Send its answer, unless it has had one or needs none any more."""
        if self._questions.get(question.key) is question:
            del self._questions[question.key]
            self._send(message)

    def withdraw(self, key: int | str | None) -> bool:
        """The server called it off; False when there is no such question."""
        return key is not None and self._questions.pop(key, None) is not None

    def void(self) -> None:
        """Nobody is there any more to take an answer."""
        self._questions.clear()
