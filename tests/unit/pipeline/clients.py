"""The client's side of sessions, moved by hand: sinks, questions, streams."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from msgspec import UNSET, Raw, UnsetType

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.outbound.peer import ANY_MANNER, Audience, Handshake, Manner, Question
from open_mcp_gateway.pipeline.session import ClientSession
from open_mcp_gateway.pipeline.sink import Waiting
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming, decode_incoming
from open_mcp_gateway.protocol.messages import call_of, decode_message
from open_mcp_gateway.protocol.mirrored import Fields
from tests.unit.pipeline.exchanges import Desk, HandLease, HandPeer

MODERN_HANDSHAKE = Handshake(era=Era.MODERN, version="2026-07-28", result=b"{}")


def call(method: str, id: object = 1, **params: Any) -> Call:
    """A request; without an id, a notification."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    if id is not None:
        message["id"] = id
    return call_of(decode_message(json.dumps(message).encode()))


def initialize(version: str = "2025-11-25", **capabilities: Any) -> Call:
    return call("initialize", 0, protocolVersion=version, capabilities=capabilities)


def note(method: str, **params: Any) -> tuple[bytes, Incoming]:
    """A notification of a server."""
    message = json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode()
    return message, decode_incoming(message)


class HandSink(Waiting):
    """Keeps what a request comes to."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.questions: list[Question] = []
        self.answers: list[dict[str, Any]] = []
        self.errors: list[GatewayError] = []
        self.drops = 0
        self.held = 0

    def message(self, data: bytes) -> None:
        self.messages.append(data)

    def asked(self, question: Question) -> None:
        self.questions.append(question)

    def answer(self, data: bytes) -> None:
        self.answers.append(json.loads(data))

    def fail(self, error: GatewayError) -> None:
        self.errors.append(error)

    def dropped(self) -> None:
        self.drops += 1

    def hold_open(self) -> None:
        self.held += 1

    @property
    def outcomes(self) -> int:
        return len(self.answers) + len(self.errors) + self.drops


class Asked:
    """A question of a server, and what it was told."""

    def __init__(self, raw_id: bytes = b'"s"', params: Raw | UnsetType = UNSET) -> None:
        self.raw_id = raw_id
        self.method = "elicitation/create"
        self.params = params
        self.answers: list[Incoming] = []
        self.refusals: list[str] = []

    def answer(self, incoming: Incoming) -> None:
        self.answers.append(incoming)

    def refuse(self, code: int, text: str) -> None:
        assert code < 0
        self.refusals.append(text)


class ToolPeer(HandPeer):
    """Knows what its tools want repeated in headers."""

    def __init__(self, handshake: Handshake = MODERN_HANDSHAKE) -> None:
        super().__init__(handshake)
        self.fields: dict[str, Fields] = {}
        self.curious: list[Callable[[], None]] | None = None
        """Who waits for what the tools want; None: it is all there."""

    def mirrored(self, tool: str) -> Fields | None:
        return self.fields.get(tool)

    def wait_for_tools(self, then: Callable[[], None]) -> bool:
        if self.curious is not None:
            self.curious.append(then)
        return self.curious is not None

    def answer(self, message: dict[str, Any]) -> None:
        """The answer to the earliest call in flight."""
        waiter = self.waiters.pop(0)
        whole = {"jsonrpc": "2.0", "id": 7} | message
        waiter.answered(json.dumps(whole, separators=(",", ":")).encode(), 7)


class OwnerDesk(Desk):
    """Takes servers back, too."""

    def __init__(self, running: HandLease | None = None) -> None:
        super().__init__(running)
        self.released: list[Manner] = []

    def release(self, permit: Permit, manner: Manner = ANY_MANNER) -> None:  # noqa: ARG002
        self.released.append(manner)


def audience_of(peer: HandPeer) -> Audience:
    assert peer.audience is not None
    return peer.audience


def channel_of(session: ClientSession) -> list[Any]:
    """What comes on the channel that this opens."""
    came: list[Any] = []
    session.open_channel(lambda data: came.append(json.loads(data)))
    return came
