"""What a defect of ours on the MCP endpoints costs: one answer, and nothing that stays."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from open_mcp_gateway.access.authorize import authorize_by_id
from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.catalog.model import Isolation
from open_mcp_gateway.errors import GatewayError, InternalError, UpstreamUnavailable
from open_mcp_gateway.inbound.arrival import Arrival
from open_mcp_gateway.inbound.batch import Batch, elements_of
from open_mcp_gateway.inbound.mcp import McpEndpoint
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.modern import ModernFace
from open_mcp_gateway.pipeline.reply import Reply
from open_mcp_gateway.pipeline.sessions import Sessions
from open_mcp_gateway.pipeline.states import StateSeal
from tests.unit.pipeline.clients import HandSink, OwnerDesk, ToolPeer, call, initialize
from tests.unit.pipeline.exchanges import HANDSHAKE, Caller, HandLease
from tests.unit.supervisor.memory import principal, snapshot_of, spec
from tests.unit.supervisor.virtual_time import LoopClock

pytestmark = pytest.mark.anyio

SESSIONS = {"protocolVersion": "2025-03-26", "capabilities": {}}
STATELESS = {
    "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
}


class BrokenDesk(OwnerDesk):
    """Has defects of its own while ``error`` is set."""

    def __init__(self) -> None:
        super().__init__(HandLease(ToolPeer(HANDSHAKE)))
        self.error: Exception | None = None
        self.early = False
        """Before anything is begun."""

    def isolation(self, permit: Permit) -> Isolation:
        if self.error is not None and self.early:
            raise self.error
        return super().isolation(permit)

    def lease(self, permit: Permit, manner: Manner = ANY_MANNER) -> HandLease | None:
        if self.error is not None:
            raise self.error
        return super().lease(permit, manner)


class Place:
    """An endpoint in front of that desk."""

    def __init__(self, means: Means, desk: BrokenDesk) -> None:
        self.desk = desk
        self.sessions = Sessions(means)
        self.modern = ModernFace(means, StateSeal(means.clock))
        self.endpoint = McpEndpoint(self.sessions, self.modern)
        self.permit = authorize_by_id(principal(), Permission.MCP_CALL, snapshot_of(spec("a")), "a")

    def post(self, body: bytes, *headers: tuple[bytes, bytes]) -> Caller:
        caller = Caller()
        arrival = Arrival(b"POST", b"/servers/a/mcp", list(headers), "somebody")
        self.endpoint.post(arrival, self.permit).serve(arrival, body, caller)
        return caller

    def ask(self, method: str, params: dict[str, Any], *headers: tuple[bytes, bytes]) -> Caller:
        message = {"jsonrpc": "2.0", "id": "i", "method": method, "params": params}
        return self.post(json.dumps(message).encode(), *headers)


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    async with anyio.create_task_group() as tasks:
        desk = BrokenDesk()
        means = Means(desk, tasks, LoopClock(), request_timeout_s=30, max_request_s=600)
        yield Place(means, desk)
        tasks.cancel_scope.cancel()


DEFECTS: list[tuple[Exception, int]] = [
    (ZeroDivisionError("ours"), -32603),
    (RecursionError("ours"), -32603),
    (UpstreamUnavailable("gone"), -32002),
]


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(("error", "code"), DEFECTS, ids=range(len(DEFECTS)))
async def test_an_opening_that_fails_gives_its_place_back(
    error: Exception, code: int, *, early: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with place() as here:
        here.desk.error, here.desk.early = error, early
        for _ in range(3):
            told = here.ask("initialize", SESSIONS).error
            assert (told["id"], told["code"]) == ("i", code)
            assert "ours" not in told["message"]
        assert here.sessions.count() == 0
        logged = [record for record in caplog.records if record.exc_info]
        assert len(logged) == (0 if isinstance(error, GatewayError) else 3)

        here.desk.error = None
        assert here.ask("initialize", SESSIONS).reply.status == 200
        assert here.sessions.count() == 1


@pytest.mark.parametrize(("error", "code"), DEFECTS, ids=range(len(DEFECTS)))
async def test_a_call_that_fails_leaves_its_id_free(error: Exception, code: int) -> None:
    async with place() as here:
        opened = here.ask("initialize", SESSIONS).reply
        session_id = dict(opened.headers)[b"mcp-session-id"]
        own = (b"mcp-session-id", session_id)
        session = here.sessions.find(here.permit, session_id.decode())
        here.desk.error = error
        here.desk.running = None  # so that the session has to ask the desk
        for _ in range(3):
            told = here.ask("tools/call", {"name": "x"}, own).error
            assert (told["id"], told["code"]) == ("i", code)
            assert session.core.inflight == 0
        batch = Caller()
        two_calls = [
            {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
            {"jsonrpc": "2.0", "id": 2, "method": "ping"},
        ]
        Batch(session, batch, "r").take(elements_of(json.dumps(two_calls).encode()))
        one, two = json.loads(batch.reply.body)
        assert (one["id"], one["error"]["code"]) == (1, code)
        assert (two["id"], two["result"]) == (2, {})


@pytest.mark.parametrize(("error", "code"), DEFECTS, ids=range(len(DEFECTS)))
async def test_a_stateless_call_that_fails_is_over(error: Exception, code: int) -> None:
    async with place() as here:
        here.desk.error = error
        headers = ((b"mcp-protocol-version", b"2026-07-28"), (b"mcp-method", b"tools/list"))
        caller = here.ask("tools/list", STATELESS, *headers)
        assert (caller.error["id"], caller.error["code"]) == ("i", code)
        assert not here.modern._running


async def test_a_defect_of_a_connection_ends_the_one_call() -> None:
    async with place() as here:
        session = here.sessions.open(here.permit).core
        session.take(initialize(), HandSink(), "r")
        lease = here.desk.running
        assert lease is not None
        lease.peer.refusal = ZeroDivisionError("ours")
        for _ in range(2):
            sink = HandSink()
            session.take(call("tools/list"), sink, "r")
            assert [type(error) for error in sink.errors] == [InternalError]
        assert session.inflight == 0
        assert len(lease.failures) == lease.begun


async def test_a_session_has_the_permit_of_the_request() -> None:
    """Also where one of its clients still goes by an older one."""
    async with place() as here:
        opened = here.ask("initialize", SESSIONS).reply
        session_id = dict(opened.headers)[b"mcp-session-id"]
        session = here.sessions.find(here.permit, session_id.decode())
        arrival = Arrival(b"POST", b"/servers/a/mcp", [(b"mcp-session-id", session_id)], "x")
        older, newer = here.permit, replace(here.permit)
        ping = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
        posts = [here.endpoint.post(arrival, permit) for permit in (older, newer)]
        for one, permit in zip(posts * 2, (older, newer) * 2, strict=True):
            caller = Caller()
            one.serve(arrival, ping, caller)
            assert caller.reply.status == 200
            assert session.core.permit is permit
        here.sessions.end(session)
        notice = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
        for one, message in zip(posts * 2, (ping, ping, notice, notice), strict=True):
            caller = Caller()
            one.serve(arrival, message, caller)
            assert caller.reply.status == 404
            assert caller.error["message"] == "Session not found"


async def test_stateless_notifications_are_taken_for_what_they_are() -> None:
    async with place() as here:
        message = b'{"jsonrpc":"2.0","method":"notifications/x"}'
        told = here.post(message, (b"mcp-protocol-version", b"2026-07-28"))
        assert told.reply == Reply(202)
        assert here.desk.manners == []
