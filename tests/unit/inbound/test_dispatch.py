"""What the dispatcher answers when a handler, or the table of routes, has a defect."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from open_mcp_gateway.access.permit import Clearance, Permit
from open_mcp_gateway.auth.identify import NoAuthentication
from open_mcp_gateway.auth.principal import Permission, Principal
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.clock import SystemClock
from open_mcp_gateway.errors import GatewayError, NotFound
from open_mcp_gateway.inbound.access_log import AccessLog
from open_mcp_gateway.inbound.admission import Admitted
from open_mcp_gateway.inbound.arrival import Arrival
from open_mcp_gateway.inbound.dispatch import Dispatcher
from open_mcp_gateway.inbound.handlers import Handler, McpPoint, McpVisits, OnGateway, Probe
from open_mcp_gateway.inbound.origin import OriginPolicy
from open_mcp_gateway.inbound.routes import OPEN, Open, Route, Router
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.forward import Forwarder
from open_mcp_gateway.pipeline.reply import Reply, Responder
from open_mcp_gateway.protocol.messages import Message
from tests.unit.pipeline.exchanges import Caller, Desk
from tests.unit.supervisor.memory import principal, snapshot_of, spec

pytestmark = pytest.mark.anyio

HEADERS = [(b"host", b"localhost")]


def route(path: str, handler: Handler, needs: Permission | Open) -> Route[Handler]:
    method = "POST" if isinstance(handler, McpPoint) else "GET"
    return Route(methods=(method,), path=path, permission=needs, handler=handler)


async def _defect(_: Clearance, _query: bytes) -> Reply:
    raise ZeroDivisionError("ours")


async def _not_there(_: Clearance, _query: bytes) -> Reply:
    raise NotFound("no such thing")


async def _query(_: Clearance, query: bytes) -> Reply:
    return Reply(200, query)


def _no_server(_: Arrival, _message: Message) -> str:
    raise ZeroDivisionError("ours")


ROUTES = [
    route("/open", Probe(lambda: Reply(200, b"open")), OPEN),
    route("/defect", OnGateway(_defect), Permission.STATS_READ),
    route("/gone", OnGateway(_not_there), Permission.STATS_READ),
    route("/query", OnGateway(_query), Permission.STATS_READ),
    route("/point", McpPoint(_no_server), Permission.MCP_CALL),
    route("/miswired", Probe(lambda: Reply(200)), Permission.STATS_READ),
]


@asynccontextmanager
async def dispatching() -> AsyncIterator[Dispatcher]:
    async with anyio.create_task_group() as tasks:
        means = Means(Desk(), tasks, SystemClock(), request_timeout_s=30, max_request_s=600)
        forwarder = Forwarder(means, Snapshot())
        origin = OriginPolicy(
            cors_enabled=True,
            cors_origins=None,
            allowed_hosts=None,
            auth_enabled=False,
            public_url=None,
        )
        yield Dispatcher(
            Router(ROUTES),
            forwarder,
            tasks,
            origin=origin,
            authenticator=NoAuthentication(),
            max_body_bytes=100,
            access_log=AccessLog.OFF,
            now=SystemClock().wall,
        )


async def answer(method: bytes, target: bytes, body: bytes = b"") -> Reply:
    caller = Caller()
    async with dispatching() as dispatcher:
        admitted = dispatcher.admit(Arrival(method, target, HEADERS, "somebody"))
        dispatcher.handle(admitted, body, caller)
    return caller.reply


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        (b"GET", b"/defect", b""),
        (b"POST", b"/point", b'{"id":7,"method":"ping"}'),
        (b"GET", b"/miswired", b""),
    ],
)
async def test_our_own_defects(
    method: bytes, target: bytes, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await answer(method, target, body)
    assert reply.status == 500
    told = json.loads(reply.body)
    if target == b"/point":
        assert (told["id"], told["error"]["code"]) == (7, -32603)
        told = told["error"] | told["error"]["data"]
    else:
        assert told["error"] == "Internal Server Error"
    assert told["code"] == "internal"
    assert "ours" not in told["message"]
    if target != b"/miswired":
        (record,) = [one for one in caplog.records if one.exc_info]
        assert record.__dict__["request_id"] == told["request_id"]


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        (b"GET", b"/open", 200),
        (b"HEAD", b"/open?x=y", 200),
        (b"POST", b"/open", 405),
        (b"GET", b"/gone", 404),
        (b"GET", b"/query?a=b", 200),
        (b"GET", b"/point", 405),
        (b"GET", b"/elsewhere", 404),
    ],
)
async def test_everything_else(method: bytes, target: bytes, status: int) -> None:
    reply = await answer(method, target)
    assert reply.status == status
    if target == b"/query?a=b":
        assert reply.body == b"a=b"
    if status == 405:
        assert dict(reply.headers)[b"allow"] == (b"POST" if target == b"/point" else b"GET, HEAD")


async def test_nobody_is_served_without_having_been_identified() -> None:
    """However a request came to be admitted, without a principal it is refused."""
    async with dispatching() as dispatcher:
        for target in (b"/query", b"/open", b"/elsewhere"):
            caller = Caller()
            arrival = Arrival(b"GET", target, HEADERS, "")
            assert dispatcher.handle(Admitted(arrival), b"", caller) is None
            assert caller.reply.status == 401


@pytest.mark.parametrize("length", [b"100", b"101", b"9" * 19, b"9" * 30])
async def test_what_a_body_may_measure(length: bytes) -> None:
    async with dispatching() as dispatcher:
        arrival = Arrival(b"POST", b"/point", [*HEADERS, (b"content-length", length)], "")
        if length == b"100":
            assert dispatcher.admit(arrival).principal is not None
            return
        with pytest.raises(GatewayError) as refused:
            dispatcher.admit(arrival)
        assert refused.value.code == "too_large"


@pytest.mark.parametrize(
    ("version", "expect", "framing", "invited"),
    [
        ("1.1", b"100-continue", (b"content-length", b"5"), True),
        ("1.1", b"100-Continue", (b"transfer-encoding", b"chunked"), True),
        ("1.0", b"100-continue", (b"content-length", b"5"), False),
        ("1.1", b"100-continue", (b"content-length", b"0"), False),
        ("1.1", b"100-continue", (b"x", b"y"), False),
        ("1.1", b"something", (b"content-length", b"5"), False),
    ],
)
async def test_who_is_asked_for_a_body(
    version: str, expect: bytes, framing: tuple[bytes, bytes], invited: bool
) -> None:
    async with dispatching() as dispatcher:
        arrival = Arrival(b"POST", b"/point", [*HEADERS, (b"expect", expect), framing], "")
        assert dispatcher.admit(arrival, http_version=version).expects_continue is invited


class Visit:
    """Tells who entered."""

    def __init__(self, permit: Permit, entered: int) -> None:
        self.said = f"{permit.principal.key_id} {entered}".encode()

    def serve(self, _arrival: Arrival, _body: bytes, responder: Responder) -> None:
        responder.respond(Reply(200, self.said))


async def test_where_a_head_leads_is_found_once_for_each_caller_and_catalog() -> None:
    entered: list[Permit] = []

    def enter(_: Arrival, permit: Permit) -> Visit:
        entered.append(permit)
        return Visit(permit, len(entered))

    path = "/servers/{id}/visits"
    visits = Route[Handler](
        methods=("POST",), path=path, permission=Permission.MCP_CALL, handler=McpVisits(enter)
    )
    async with dispatching() as dispatcher:
        dispatcher.router = Router([visits])
        dispatcher.forwarder.snapshot = snapshot_of(spec("a"))
        arrival = Arrival(b"POST", b"/servers/a/visits", HEADERS, "")
        one, other = principal("one"), principal("other")

        def ask(who: Principal) -> bytes:
            caller = Caller()
            admitted = Admitted(arrival.again(b""), principal=who, by=dispatcher.authenticator)
            dispatcher.handle(admitted, b"", caller)
            return caller.reply.body

        assert [ask(one), ask(one)] == [b"one 1", b"one 1"]
        assert [ask(other), ask(other)] == [b"other 2", b"other 2"]
        assert ask(one) == b"one 3"
        dispatcher.forwarder.snapshot = snapshot_of(spec("a"))
        assert [ask(one), ask(one)] == [b"one 4", b"one 4"]
        dispatcher.forwarder.snapshot = Snapshot()
        assert b"not found" in ask(one)
        assert len(entered) == 4
