"""Stateless requests with servers and clients moved by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from msgspec import Raw

from open_mcp_gateway.access.authorize import authorize_by_id
from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.errors import (
    EraNotSpoken,
    HeaderMismatch,
    InvalidParams,
    MissingCapability,
    UnsupportedVersion,
    WrongKey,
)
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.modern import HttpSink, ModernFace, declares_tasks, era_refusal
from open_mcp_gateway.pipeline.reply import Headers
from open_mcp_gateway.pipeline.states import StateSeal
from open_mcp_gateway.protocol.mirrored import NOTHING, Fields, Invalid, mirrored_fields
from open_mcp_gateway.protocol.routing import routing_of
from tests.unit.pipeline.clients import HandSink, OwnerDesk, ToolPeer, call
from tests.unit.pipeline.exchanges import HANDSHAKE, Caller, HandLease
from tests.unit.supervisor.memory import principal, snapshot_of, spec
from tests.unit.supervisor.virtual_time import LoopClock

pytestmark = pytest.mark.anyio

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
LISTEN = "subscriptions/listen"
SCHEMA = json.dumps(
    {"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "A"}}}
).encode()


@dataclass
class Place:
    desk: OwnerDesk
    face: ModernFace
    sinks: list[HandSink] = field(default_factory=list)

    @property
    def peer(self) -> ToolPeer:
        assert self.desk.running is not None
        assert isinstance(self.desk.running.peer, ToolPeer)
        return self.desk.running.peer

    def ask(self, method: str, *, headers: Headers | None = None, **params: Any) -> HandSink:
        permit = authorize_by_id(principal(), Permission.MCP_CALL, snapshot_of(spec("a")), "a")
        sink = HandSink()
        sent = None if headers is None else routing_of(headers)
        self.face.take(permit, call(method, **params, _meta=META), sent, sink, "r")
        return sink


def ended(permit: Permit) -> WrongKey | None:
    """The caller of these tests may not hear of anything any more."""
    return WrongKey("gone") if permit.principal == principal() else None


@asynccontextmanager
async def place(peer: ToolPeer | None = None) -> AsyncIterator[Place]:
    async with anyio.create_task_group() as tasks:
        desk, clock = OwnerDesk(HandLease(peer or ToolPeer())), LoopClock()
        means = Means(desk, tasks, clock, request_timeout_s=30, max_request_s=600)
        yield Place(desk, ModernFace(means, StateSeal(clock)))
        tasks.cancel_scope.cancel()


async def test_callers_that_may_not_hear_of_it_any_more() -> None:
    async with place() as here:
        sinks = [here.ask("tools/list"), here.ask(LISTEN)]
        here.face.end_if(lambda _: None)
        assert [sink.outcomes for sink in sinks] == [0, 0]
        here.face.end_if(ended)
        here.face.end_if(ended)
        assert [type(sink.errors[0]) for sink in sinks] == [WrongKey, WrongKey]
        assert len(here.peer.cancelled) == 2


async def test_subscriptions_end_in_order() -> None:
    async with place() as here:
        listening, other = here.ask(LISTEN), here.ask("tools/list")
        here.face.end_listening()
        here.face.end_listening()
        (answer,) = listening.answers
        assert answer["result"] == {
            "resultType": "complete",
            "_meta": {"io.modelcontextprotocol/subscriptionId": 1},
        }
        assert other.outcomes == 0
        assert here.peer.deadlines[0] == float("inf")


async def test_what_waits_for_long_is_held_open() -> None:
    async with place() as here:
        old = here.ask("tools/list")
        await anyio.sleep(60)
        new = here.ask("tools/list")
        here.face.sweep()
        assert (old.held, new.held) == (1, 0)


async def test_a_server_of_the_other_era() -> None:
    async with place(ToolPeer(HANDSHAKE)) as here:
        sink = here.ask("tools/list")
        assert isinstance(sink.errors[0], EraNotSpoken)
        refusal = era_refusal(sink.errors[0])
        assert isinstance(refusal, UnsupportedVersion)
        assert refusal.data == {"supported": ["2025-11-25"], "requested": "2026-07-28"}
        assert refusal.request_id == b"1"
        other = HeaderMismatch("no")
        assert era_refusal(other) is other


@pytest.mark.parametrize(
    ("schema", "params", "fits"),
    [
        (SCHEMA, {"name": "t", "arguments": {"a": "x"}}, True),
        (SCHEMA, {"name": "t", "arguments": {"a": "y"}}, False),
        (SCHEMA, {"name": 7, "arguments": {"a": "y"}}, True),
        (SCHEMA, {"name": "other", "arguments": {"a": "y"}}, True),
        (SCHEMA.replace(b'"A"', b'"A B"'), {"name": "t", "arguments": {"a": "y"}}, True),
        (b"{}", {"name": "t"}, True),
    ],
)
async def test_mirrored_arguments(schema: bytes, params: dict[str, Any], fits: bool) -> None:
    async with place() as here:
        here.peer.fields["t"] = fields_of(schema)
        name = params["name"] if isinstance(params["name"], str) else "t"
        headers = (
            (b"mcp-protocol-version", b"2026-07-28"),
            (b"mcp-method", b"tools/call"),
            (b"mcp-name", name.encode()),
            (b"mcp-param-a", b"x"),
        )
        if params["name"] == 7:
            sink = here.ask("tools/call", **params)  # without headers there is nothing to fit
        else:
            sink = here.ask("tools/call", headers=headers, **params)
        assert [type(error) for error in sink.errors] == ([] if fits else [HeaderMismatch])
        assert len(here.peer.calls) == fits


def fields_of(schema: bytes) -> Fields:
    """What calls of a tool with this schema repeat."""
    fields = mirrored_fields(schema)
    return NOTHING if isinstance(fields, Invalid) else fields


CALLED: dict[str, Any] = {"name": "t", "arguments": {"a": "y"}}
NAMED = (
    (b"mcp-protocol-version", b"2026-07-28"),
    (b"mcp-method", b"tools/call"),
    (b"mcp-name", b"t"),
)


async def test_a_call_waits_until_the_schemas_are_known() -> None:
    async with place() as here:
        curious = here.peer.curious = []
        sinks = {
            value: here.ask("tools/call", headers=(*NAMED, (b"mcp-param-a", value)), **CALLED)
            for value in (b"x", b"y")
        }
        missing = here.ask("tools/call", headers=NAMED, **CALLED)
        here.ask("tools/call", **CALLED)  # without headers there is nothing to compare
        assert len(here.peer.calls) == 1
        here.face.end_if(lambda _: None)
        here.peer.fields["t"] = fields_of(SCHEMA)
        here.peer.curious = None
        for then in curious:
            then()
        assert [type(error) for error in sinks[b"x"].errors] == [HeaderMismatch]
        assert [type(error) for error in missing.errors] == [HeaderMismatch]
        assert sinks[b"y"].outcomes == 0
        assert len(here.peer.calls) == 2


async def test_who_leaves_while_the_schemas_are_asked_for_is_not_served() -> None:
    async with place() as here:
        curious = here.peer.curious = []
        sink = here.ask("tools/call", headers=NAMED, **CALLED)
        here.face.end_if(ended)
        here.peer.curious = None
        curious[0]()
        assert [type(error) for error in sink.errors] == [WrongKey]
        assert here.peer.calls == []


async def test_the_server_goes_away_while_it_is_asked_for_its_schemas() -> None:
    async with place() as here:
        gone = here.peer
        curious = gone.curious = []
        sink = here.ask("tools/call", headers=NAMED, **CALLED)
        here.desk.running = None
        curious[0]()
        here.desk.coming.append(HandLease(ToolPeer()))
        here.desk.go_on.set()
        await anyio.wait_all_tasks_blocked()
        assert sink.outcomes == 0
        assert gone.calls == []
        assert here.desk.asked == 1


@pytest.mark.parametrize(
    ("capabilities", "declared"),
    [
        (None, False),
        (b"{}", False),
        (b'{"extensions":{"io.modelcontextprotocol/tasks":{}}}', True),
        (b'{"extensions":7}', False),
    ],
)
async def test_the_tasks_extension(capabilities: bytes | None, declared: bool) -> None:
    assert declares_tasks(None if capabilities is None else Raw(capabilities)) is declared
    async with place() as here:
        with pytest.raises(MissingCapability):
            here.ask("tasks/get", taskId="t")
        for ids in (["t"], [], 7):
            with pytest.raises(MissingCapability) as refused:
                here.ask(LISTEN, notifications={"taskIds": ids})
            assert refused.value.data == {
                "requiredCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}
            }
        assert here.ask(LISTEN, notifications={"toolsListChanged": True}).errors == []
        assert here.ask(LISTEN).errors == []
        with pytest.raises(InvalidParams):
            here.ask(LISTEN, notifications=7)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": -32021, "message": ""}, 400),
        ({"code": -32601, "message": ""}, 404),
        ({"code": -32602, "message": ""}, 200),
        ({"code": "x"}, 200),
        (None, 200),
    ],
)
async def test_errors_of_the_server_have_a_status(error: Any, status: int) -> None:
    async with place() as here:
        permit = authorize_by_id(principal(), Permission.MCP_CALL, snapshot_of(spec("a")), "a")
        caller = Caller()
        headers = ((b"mcp-protocol-version", b"2026-07-28"), (b"mcp-method", b"x/y"))
        sink = HttpSink(caller, "r")
        here.face.take(permit, call("x/y", _meta=META), routing_of(headers), sink, "r")
        here.peer.answer({"error": error})
        assert caller.reply.status == status
