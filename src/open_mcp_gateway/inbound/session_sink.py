"""The answer to one POST of a session: a body, or a stream that survives its connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from open_mcp_gateway.errors import GatewayError, NotFound
from open_mcp_gateway.outbound.peer import Question
from open_mcp_gateway.pipeline.reply import Headers, Outlet, Reply, Responder, rpc_failure
from open_mcp_gateway.pipeline.sessions import HttpSession
from open_mcp_gateway.pipeline.sink import Waiting
from open_mcp_gateway.pipeline.streamlog import StreamLog
from open_mcp_gateway.protocol.faults import rpc_body

PRIMED_SINCE: Final = "2025-11-25"
"""Older clients do not understand an event without data."""


class SessionSink(Waiting):
    """Gives the answer as JSON if nothing came before it, else as the end of an event stream.

    A request that was taken is answered with status 200, whatever became of it, as servers of this
    era do: clients take another status for the end of their connection, and 404 for that of the
    session.
    """

    __slots__ = (
        "_gone",
        "_headers",
        "_log",
        "_on_outcome",
        "_outlet",
        "_request_id",
        "_responder",
        "_session",
    )

    def __init__(
        self,
        session: HttpSession,
        responder: Responder,
        request_id: str,
        *,
        on_outcome: Callable[[HttpSession], None] | None = None,
        headers: Headers = (),
    ) -> None:
        self._session = session
        self._headers = headers
        self._responder = responder
        self._request_id = request_id
        self._on_outcome = on_outcome
        self._log: StreamLog | None = None
        self._outlet: Outlet | None = None
        self._gone = False

    def message(self, data: bytes) -> None:
        log = self._stream()
        if log is None:
            self._session.core.leave_word(data)
        else:
            log.send(data)

    def hold_open(self) -> None:
        self._stream()

    def _stream(self) -> StreamLog | None:
        """The stream of the answer; None where the client left before it heard of one."""
        if self._log is None and not self._gone:
            self._log = self._session.new_stream()
            self._outlet = self._responder.open_stream(self._headers)
            primed = self._session.core.version >= PRIMED_SINCE
            self._log.attach(self._outlet, primed=primed)
        return self._log

    def asked(self, question: Question) -> None:
        self._session.core.pose_through(question, self.message)

    def answer(self, data: bytes) -> None:
        if self._on_outcome is not None:
            self._on_outcome(self._session)
        if self._log is None:
            self._responder.respond(Reply(200, data, self._headers))
        else:
            self._end(Reply(200, data))

    def answer_all(self, answers: list[bytes]) -> None:
        """The answers to a batch: one array, or one by one where there is a stream anyway."""
        if self._log is None:
            whole = b"[" + b",".join(answers) + b"]"
            self._responder.respond(Reply(200, whole))
            return
        for answer in answers:
            self._log.send(answer)
        self._log.end()

    def fail(self, error: GatewayError) -> None:
        if self._on_outcome is not None:
            self._on_outcome(self._session)
        if isinstance(error, NotFound):
            self._end(rpc_failure(error, self._request_id))
        else:
            self._end(Reply(200, rpc_body(error, self._request_id)))

    def dropped(self) -> None:
        """There is no such thing as no answer in HTTP; a stream without events comes closest."""
        log = self._stream()
        if log is not None:
            log.end()

    def _end(self, reply: Reply) -> None:
        if self._log is None:
            self._responder.respond(reply)
        else:
            self._log.send(reply.body)
            self._log.end()

    def abandon(self) -> None:
        """The connection is gone: keep what still comes, for a client that picks it up again."""
        self._gone = True
        if self._log is not None:
            self._log.detach(self._outlet)
