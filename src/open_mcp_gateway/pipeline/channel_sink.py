"""Answers on the one channel of a session: HTTP+SSE of 2024-11-05, and stdio."""

from __future__ import annotations

from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.outbound.peer import Question
from open_mcp_gateway.pipeline.questions import Channel
from open_mcp_gateway.pipeline.session import ClientSession
from open_mcp_gateway.pipeline.sink import Waiting
from open_mcp_gateway.protocol.faults import rpc_body


class ChannelSink(Waiting):
    """Everything that comes of a request goes where everything else goes, in order."""

    __slots__ = ("_channel", "_request_id", "_session")

    def __init__(self, session: ClientSession, channel: Channel, request_id: str) -> None:
        self._session = session
        self._channel = channel
        self._request_id = request_id

    def message(self, data: bytes) -> None:
        self._channel(data)

    def asked(self, question: Question) -> None:
        self._session.pose_through(question, self._channel)

    def answer(self, data: bytes) -> None:
        self._channel(data)
        self._session.settled()

    def fail(self, error: GatewayError) -> None:
        self._channel(rpc_body(error, self._request_id))
        self._session.settled()

    def dropped(self) -> None:
        self._session.settled()

    def hold_open(self) -> None:
        """The channel is kept alive whatever goes over it."""
