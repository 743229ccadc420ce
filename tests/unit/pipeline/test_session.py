"""A session with servers and clients moved by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from msgspec import Raw

from open_mcp_gateway.access.authorize import authorize_by_id
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.catalog.model import Isolation
from open_mcp_gateway.errors import (
    Busy,
    EraNotSpoken,
    InvalidParams,
    InvalidRequest,
    NotFound,
    UpstreamBroken,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from open_mcp_gateway.outbound.peer import ANY_MANNER
from open_mcp_gateway.pipeline import attachment, questions
from open_mcp_gateway.pipeline import session as module
from open_mcp_gateway.pipeline.channel_sink import ChannelSink
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.hub import Hub
from open_mcp_gateway.pipeline.session import ClientSession
from open_mcp_gateway.pipeline.sink import ReplySink
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.jsonrpc import Call, decode_incoming
from tests.unit.pipeline.clients import (
    MODERN_HANDSHAKE,
    Asked,
    HandSink,
    OwnerDesk,
    ToolPeer,
    audience_of,
    call,
    channel_of,
    initialize,
    note,
)
from tests.unit.pipeline.exchanges import HANDSHAKE, Caller, HandLease
from tests.unit.supervisor.memory import principal, snapshot_of, spec
from tests.unit.supervisor.virtual_time import LoopClock

pytestmark = pytest.mark.anyio


@dataclass
class Place:
    """A server that runs, or does not yet, and sessions with it."""

    desk: OwnerDesk
    means: Means
    made: int = 0

    @property
    def peer(self) -> ToolPeer:
        assert self.desk.running is not None
        assert isinstance(self.desk.running.peer, ToolPeer)
        return self.desk.running.peer

    def session(self, **settings: Any) -> ClientSession:
        self.made += 1
        snapshot = snapshot_of(spec("a", **settings))
        permit = authorize_by_id(principal(), Permission.MCP_CALL, snapshot, "a")
        return ClientSession(self.means, permit, f"session-{self.made}")

    def opened(self, **capabilities: Any) -> ClientSession:
        session, sink = self.session(), HandSink()
        session.take(initialize(**capabilities), sink, "r")
        assert len(sink.answers) == 1
        return session


def lease() -> HandLease:
    return HandLease(ToolPeer(HANDSHAKE))


@asynccontextmanager
async def place(running: HandLease | None = None) -> AsyncIterator[Place]:
    async with anyio.create_task_group() as tasks:
        desk = OwnerDesk(running)
        clock = LoopClock()
        yield Place(desk, Means(desk, tasks, clock, request_timeout_s=30, max_request_s=600))
        tasks.cancel_scope.cancel()


def asked(session: ClientSession, method: str, id: object = 1, **params: Any) -> HandSink:
    sink = HandSink()
    session.take(call(method, id, **params), sink, "r")
    return sink


# ── opening ──────────────────────────────────────────────────────────────────────────────────────


async def test_the_manner_says_what_the_client_said() -> None:
    async with place(lease()) as here:
        told: list[tuple[dict[str, Any], bool]] = [
            ({}, False),
            ({"experimental": {}}, False),
            ({"roots": {}}, True),
        ]
        for capabilities, alone in told:
            session = here.opened(**capabilities)
            assert session.manner.era is Era.LEGACY
            assert json.loads(session.manner.capabilities) == capabilities
            assert session.manner.owner == (session.session_id if alone else "")
        alone_ = here.session(isolation=Isolation.SESSION)
        alone_.take(initialize(), HandSink(), "r")
        assert alone_.manner.owner == alone_.session_id
        mute = here.session(isolation=Isolation.SESSION, interactive=False)
        mute.take(initialize(roots={}), HandSink(), "r")
        assert mute.manner.owner == mute.session_id
        assert json.loads(mute.manner.capabilities) == {}
        plain = here.session(interactive=False)
        plain.take(initialize(roots={}), HandSink(), "r")
        assert plain.manner is ANY_MANNER


async def test_before_and_after_initialize() -> None:
    async with place() as here:
        session = here.session()
        assert session.version == "2025-03-26"
        assert isinstance(asked(session, "tools/list").errors[0], InvalidRequest)
        assert asked(session, "ping").answers[0]["result"] == {}
        sink = HandSink()
        session.take(Call("tools/list", None), sink, "r")
        assert isinstance(sink.errors[0], InvalidRequest)
        waiting = HandSink()
        session.take(initialize(), waiting, "r")
        again = HandSink()
        session.take(initialize(), again, "r")
        assert isinstance(again.errors[0], InvalidRequest)
        here.desk.coming.append(lease())
        here.desk.go_on.set()
        await anyio.wait_all_tasks_blocked()
        assert waiting.answers == [{"jsonrpc": "2.0", "id": 0, "result": {}}]
        assert session.version == "2025-11-25"
        session.close()
        session.close()
        assert isinstance(asked(session, "tools/list").errors[0], NotFound)


async def test_capabilities_that_are_no_object() -> None:
    async with place(lease()) as here:
        session, sink = here.session(), HandSink()
        session.take(call("initialize", 0, capabilities=7, protocolVersion=7), sink, "r")
        assert isinstance(sink.errors[0], InvalidParams)
        session.take(call("initialize", 0, protocolVersion=7), sink, "r")
        assert len(sink.answers) == 1


@pytest.mark.parametrize("owned", [True, False])
async def test_an_opening_that_fails_can_be_tried_again(owned: bool) -> None:
    async with place() as here:
        session, sink = here.session(), HandSink()
        here.desk.go_on.set()
        refusal = UpstreamUnavailable("no")
        here.desk.coming.extend([refusal, EraNotSpoken("other", spoken=("2026-07-28",)), lease()])
        capabilities: dict[str, Any] = {"roots": {}} if owned else {}
        for _ in range(3):
            session.take(initialize(**capabilities), sink, "r")
            await anyio.wait_all_tasks_blocked()
        assert sink.errors[0] is refusal
        assert sink.errors[1].data == {"supported": ["2026-07-28"], "requested": "2025-11-25"}
        assert len(sink.answers) == 1
        assert len(here.desk.released) == (2 if owned else 0)


async def test_a_stateless_server_has_no_sessions() -> None:
    async with place(HandLease(ToolPeer(MODERN_HANDSHAKE))) as here:
        session, sink = here.session(interactive=False), HandSink()
        session.take(initialize(), sink, "r")
        assert sink.errors[0].data == {"supported": ["2026-07-28"], "requested": "2025-11-25"}


async def test_who_leaves_while_it_opens_leaves_nothing() -> None:
    async with place() as here:
        session, sink = here.session(), HandSink()
        errand = session.take(initialize(roots={}), sink, "r")
        await anyio.wait_all_tasks_blocked()
        assert errand is not None
        errand.abandon()
        errand.abandon()
        await anyio.wait_all_tasks_blocked()
        assert sink.outcomes == 0
        assert [one.owner for one in here.desk.released] == ["session-1"]


async def test_opening_waits_for_a_start_on_top() -> None:
    async with place() as here:
        here.means.start_timeout_s = 60.0
        session, sink = here.session(), HandSink()
        session.take(initialize(), sink, "r")
        await anyio.sleep(89)
        assert sink.outcomes == 0
        await anyio.sleep(2)
        assert isinstance(sink.errors[0], UpstreamTimeout)


# ── calls ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_call_and_its_end() -> None:
    async with place(lease()) as here:
        session = here.opened()
        sink = asked(session, "tools/call", "x", name="t", _meta={"progressToken": 1, "v": 2})
        assert session.inflight == 1
        sent = here.peer.calls[-1][1]
        assert sent.progress_token == Raw(b"1")
        assert sent.params is not None
        assert json.loads(bytes(sent.params["_meta"])) == {"v": 2}
        assert isinstance(asked(session, "tools/call", "x").errors[0], InvalidRequest)
        here.peer.answer({"result": {}})
        assert sink.answers == [{"jsonrpc": "2.0", "id": "x", "result": {}}]
        assert session.inflight == 0


async def test_a_session_has_so_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RUNNING", 1)
    async with place(lease()) as here:
        session = here.opened()
        asked(session, "tools/list", 1)
        assert isinstance(asked(session, "tools/list", 2).errors[0], Busy)


async def test_a_call_that_waits_for_its_server_is_known() -> None:
    async with place(lease()) as here:
        session = here.opened()
        here.desk.running = None
        waiting = asked(session, "tools/list", 1)
        ending = asked(session, "tools/list", 2)
        await anyio.wait_all_tasks_blocked()
        assert session.inflight == 2
        session.deliver(b"1", urgent=True)  # to no call that the server has not seen
        assert channel_of(session) == [1]
        session.notification(call("notifications/cancelled", None, requestId=1))
        assert (waiting.drops, session.inflight) == (1, 1)
        session.close()
        assert isinstance(ending.errors[0], NotFound)
        here.desk.coming.extend([lease(), lease()])
        here.desk.go_on.set()
        await anyio.wait_all_tasks_blocked()
        assert waiting.outcomes == ending.outcomes == 1


async def test_a_peer_that_is_gone_is_waited_for() -> None:
    async with place(lease()) as here:
        session = here.opened()
        here.peer.refusal = UpstreamUnavailable("gone")
        new = lease()
        here.desk.coming.append(new)
        here.desk.go_on.set()
        sink = asked(session, "tools/list")
        await anyio.wait_all_tasks_blocked()
        assert isinstance(new.peer, ToolPeer)
        new.peer.answer({"result": {}})
        assert len(sink.answers) == 1


async def test_failures_and_cancellations_come_once() -> None:
    async with place(lease()) as here:
        session = here.opened()
        sinks = [asked(session, "tools/list", number) for number in range(3)]
        waiters = list(here.peer.waiters)
        waiters[0].failed(UpstreamBroken("no"))
        session.notification(call("notifications/cancelled", None, requestId=1, reason="r"))
        session.notification(call("notifications/cancelled", None, requestId=1))
        assert here.peer.cancelled == ["r"]
        session.close()
        question = Asked()
        waiters[2].asked(question)
        assert question.refusals == ["the call is over"]
        for waiter in waiters[1:]:
            waiter.answered(b'{"jsonrpc":"2.0","id":7,"result":{}}', 7)
            waiter.related(*note("notifications/progress"))
        assert [sink.outcomes for sink in sinks] == [1, 1, 1]
        assert all(not sink.messages for sink in sinks)


@pytest.mark.parametrize("last", ["answered", "failed", "cancelled"])
async def test_rest_comes_after_the_last_word(last: str) -> None:
    async with place(lease()) as here:
        session = here.opened()
        told: list[object] = []
        session.on_rest = lambda: told.append(session.inflight)
        for number in range(3):
            sink = ChannelSink(session, lambda _: told.append("word"), "r")
            session.take(call("tools/list", number), sink, "r")
            session.sweep(here.means.clock.monotonic() + 1)
        ends: list[Callable[[], None]] = [
            lambda: here.peer.waiters[0].answered(b'{"jsonrpc":"2.0","id":7,"result":{}}', 7),
            lambda: here.peer.waiters[1].failed(UpstreamBroken("no")),
            lambda: session.notification(call("notifications/cancelled", None, requestId=2)),
        ]
        ends.append(ends.pop(["answered", "failed", "cancelled"].index(last)))
        for end in ends:
            end()
        assert told == ["word", "word", 0]


async def test_calls_go_by_the_connection_that_serves() -> None:
    async with place(lease()) as here:
        session, old = here.opened(), here.peer
        asked(session, "tools/list", 1)
        looked = len(here.desk.manners)
        asked(session, "tools/list", 2)
        assert len(here.desk.manners) == looked
        new = here.desk.running = lease()
        asked(session, "tools/list", 3)
        assert isinstance(new.peer, ToolPeer)
        assert [call.id for _, call in new.peer.calls] == [b"3"]
        assert len(old.calls) == 2


async def test_sinks_that_wait_for_nothing_are_left_alone() -> None:
    async with place(lease()) as here:
        session, caller = here.opened(), Caller()
        session.take(call("tools/list"), ReplySink(caller, "r"), "r")
        session.sweep(here.means.clock.monotonic() + 1)
        session.notification(call("notifications/cancelled", None, requestId=1))
        assert caller.replies == []
        held = asked(session, "tools/list")
        session.sweep(here.means.clock.monotonic() - 1)
        session.sweep(here.means.clock.monotonic() + 1)
        assert held.held == 1


# ── deadlines ────────────────────────────────────────────────────────────────────────────────────


async def test_a_persons_time_is_not_the_servers() -> None:
    async with place(lease()) as here:
        session = here.opened(elicitation={})
        channel_of(session)
        asked(session, "tools/call", name="x")
        start_s = here.means.clock.monotonic()
        first, second = Asked(b"1"), Asked(b"2")
        audience_of(here.peer).asked(first)
        assert here.peer.extended[-1] == pytest.approx(start_s + questions.ANSWER_S)
        await anyio.sleep(100)
        here.peer.waiters[0].related(*note("notifications/progress"))
        assert here.peer.extended[-1] == pytest.approx(start_s + 600, abs=101)
        assert here.peer.extended[-1] >= start_s + 600
        audience_of(here.peer).asked(second)
        session.answer(decode_incoming(b'{"id":1,"result":{}}'))
        assert here.peer.extended[-1] >= start_s + 600
        session.answer(decode_incoming(b'{"id":2,"result":{}}'))
        assert here.peer.extended[-1] == pytest.approx(start_s + 100 + 30)
        assert [len(one.answers) for one in (first, second)] == [1, 1]


async def test_progress_moves_the_idle_limit_but_not_the_absolute_one() -> None:
    async with place(lease()) as here:
        session = here.opened()
        asked(session, "tools/call", name="x")
        start_s = here.means.clock.monotonic()
        for at_s in (20, 590):
            await anyio.sleep(at_s - (here.means.clock.monotonic() - start_s))
            here.peer.waiters[0].related(*note("notifications/progress"))
        assert here.peer.extended == [pytest.approx(start_s + 50), pytest.approx(start_s + 600)]


async def test_what_it_hears_while_a_call_is_in_flight_is_a_sign_of_life_too() -> None:
    async with place(lease()) as here:
        session = here.opened()
        asked(session, "tools/call", name="x")
        start_s = here.means.clock.monotonic()
        await anyio.sleep(20)
        session.deliver(note("notifications/message")[0], urgent=True)
        assert here.peer.extended == [pytest.approx(start_s + 50)]


# ── questions ────────────────────────────────────────────────────────────────────────────────────


async def test_questions_without_a_channel_wait_for_one() -> None:
    async with place(lease()) as here:
        session = here.opened(elicitation={})
        question = Asked(params=Raw(b'{"a":1.0}'))
        audience_of(here.peer).asked(question)
        (message,) = channel_of(session)
        assert message == {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "elicitation/create",
            "params": {"a": 1.0},
        }
        for foreign in (b'{"id":2,"result":{}}', b'{"id":"1","result":{}}', b'{"result":{}}'):
            session.answer(decode_incoming(foreign))
        assert question.answers == []
        session.answer(decode_incoming(b'{"id":1,"error":{}}'))
        session.answer(decode_incoming(b'{"id":1,"result":{}}'))
        assert len(question.answers) == 1


async def test_questions_that_are_called_off() -> None:
    async with place(lease()) as here:
        session = here.opened(elicitation={})
        came = channel_of(session)
        audience = audience_of(here.peer)
        audience.asked(Asked(b'"s"'))
        for request_id in ("other", "s"):
            audience.notified(*note("notifications/cancelled", requestId=request_id))
        audience.notified(*note("notifications/cancelled"))
        assert [message.get("method") for message in came] == [
            "elicitation/create",
            "notifications/cancelled",
        ]
        assert came[1]["params"] == {"requestId": 1}
        assert not session.asking


async def test_questions_that_nobody_answers() -> None:
    async with place(lease()) as here:
        session = here.opened(elicitation={})
        channel_of(session)
        old, new = Asked(b"1"), Asked(b"2")
        session.pose(old)
        await anyio.sleep(questions.ANSWER_S - 1)
        session.pose(new)
        await anyio.sleep(2)
        session.sweep(0)
        assert (old.refusals, new.refusals) == (["the client did not answer"], [])
        session.hang_up()
        assert new.refusals == ["the client is gone"]
        late = Asked()
        session.pose(late)
        assert late.refusals == ["the client is gone"]


async def test_questions_of_a_closed_session() -> None:
    async with place(lease()) as here:
        session = here.opened(elicitation={})
        channel_of(session)
        open_, late = Asked(), Asked()
        session.pose(open_)
        session.close()
        session.pose(late)
        assert open_.refusals == late.refusals == ["the client is gone"]
        assert [one.owner for one in here.desk.released] == [session.session_id]
        audience_of(here.peer).asked(late)
        assert late.refusals[-1].startswith("no client here")


@pytest.mark.parametrize(
    ("settings", "capabilities", "may"),
    [
        ({}, {"elicitation": {}}, True),
        ({}, {"roots": {}}, False),
        ({}, {}, False),
        ({"interactive": False}, {"elicitation": {}}, False),
        ({"isolation": Isolation.SESSION}, {}, False),
        ({"interactive": False, "isolation": Isolation.SESSION}, {"elicitation": {}}, False),
    ],
)
async def test_a_client_is_asked_only_what_it_said_it_can_be_asked(
    settings: dict[str, Any], capabilities: dict[str, Any], may: bool
) -> None:
    async with place(lease()) as here:
        session = here.session(**settings)
        session.take(initialize(**capabilities), HandSink(), "r")
        came: list[bytes] = []
        session.take(call("tools/call", 1, name="x"), ChannelSink(session, came.append, "r"), "r")
        (waiter,) = here.peer.waiters
        question = Asked()
        waiter.asked(question)  # on the stream of the call, as servers over HTTP ask
        assert (len(came), question.refusals == []) == (may, may)
        assert all("not declared" in text for text in question.refusals)
        session.close()


# ── the channel ──────────────────────────────────────────────────────────────────────────────────


async def test_where_messages_go() -> None:
    async with place(lease()) as here:
        session = here.opened()
        session.deliver(b"1", urgent=False)
        came = channel_of(session)
        session.deliver(b"2", urgent=False)
        first, second = asked(session, "tools/list", 1), asked(session, "tools/list", 2)
        session.deliver(b"3", urgent=True)
        session.deliver(b"4", urgent=False)
        session.close_channel(lambda _: None)
        session.deliver(b"5", urgent=False)
        assert session.channel is not None
        session.close_channel(session.channel)
        session.deliver(b"6", urgent=False)
        assert came == [1, 2, 4, 5]
        assert (first.messages, second.messages) == ([], [b"3", b"6"])


# ── notifications of the client ──────────────────────────────────────────────────────────────────


async def test_which_notifications_are_passed_on() -> None:
    async with place(lease()) as here:
        shared, alone = here.opened(), here.opened(roots={})
        names = ("initialized", "cancelled", "progress", "roots/list_changed", "vendor")
        for session in (shared, alone, here.session()):
            for name in names:
                session.notification(call(f"notifications/{name}", None))
        alone.close()
        alone.notification(call("notifications/vendor", None))
        assert [one.method.removeprefix("notifications/") for _, one in here.peer.calls] == [
            "vendor",
            "progress",
            "roots/list_changed",
            "vendor",
        ]
        here.desk.running = None
        shared.notification(call("notifications/vendor", None))


@pytest.mark.parametrize(
    "method",
    ["tasks/cancel", "resources/unsubscribe", "initialize", "tools/call", "vendor/thing", "ping"],
)
async def test_a_request_without_an_id_is_no_notification(method: str) -> None:
    async with place(lease()) as here:
        for session in (here.opened(), here.opened(roots={})):
            session.notification(Call(method, None, {"taskId": Raw(b'"t"'), "uri": Raw(b'"u"')}))
        assert here.peer.calls == []


# ── what sessions share ──────────────────────────────────────────────────────────────────────────


def sent(here: Place) -> list[tuple[str, Any]]:
    """What the server was asked for, with the one member that matters."""
    return [
        (one.method.rpartition("/")[2], json.loads(bytes(next(iter((one.params or {}).values())))))
        for _, one in here.peer.calls
    ]


def level_of(session: ClientSession) -> str | None:
    return session.level


async def test_levels() -> None:
    async with place(lease()) as here:
        one, two = here.opened(), here.opened()
        asked(one, "logging/setLevel", level="error")
        assert level_of(one) is None
        here.peer.answer({"result": {}})
        assert level_of(one) == "error"
        assert asked(two, "logging/setLevel", level="notice").answers[0]["result"] == {}
        asked(two, "logging/setLevel", level="debug")
        here.peer.answer({"error": {}})
        assert two.level == "notice"
        asked(two, "logging/setLevel", level="debug")
        here.peer.waiters.pop().failed(UpstreamBroken("no"))
        assert two.level == "notice"
        assert sent(here) == [("setLevel", "info"), ("setLevel", "debug"), ("setLevel", "debug")]
        here.desk.running = lease()  # a new process
        asked(one, "tools/list", cursor=None)
        assert sent(here)[0] == ("setLevel", "info")
        assert isinstance(asked(one, "logging/setLevel", 2, level=7).errors[0], InvalidParams)


async def test_subscriptions() -> None:
    async with place(lease()) as here:
        first = here.desk.running
        assert first is not None
        one, two = here.opened(), here.opened()
        for session in (one, two):
            asked(session, "resources/subscribe", uri="u")
            here.peer.answer({"result": {}})
        asked(one, "resources/subscribe", uri="u")
        here.peer.answer({"error": {}})
        assert one.subscriptions == {"u"}  # the second time changes nothing
        asked(one, "resources/subscribe", uri="v")
        assert one.subscriptions == {"u", "v"}
        here.peer.answer({"error": {}})
        assert one.subscriptions == {"u"}
        assert first.begun - len(first.failures) == 2  # held by both
        assert asked(one, "resources/unsubscribe", uri="u").answers
        assert first.begun - len(first.failures) == 1
        two.close()
        assert sent(here)[-1] == ("unsubscribe", "u")
        here.peer.waiters[0].related(*note("x"))
        question = Asked()
        here.peer.waiters[0].asked(question)
        assert question.refusals == ["nobody is there to be asked"]
        here.peer.answer({"result": {}})
        assert first.begun == len(first.failures)


async def test_levels_that_are_asked_for_at_once() -> None:
    async with place(lease()) as here:
        one, two, three = here.opened(), here.opened(), here.opened()
        asked(one, "logging/setLevel", level="debug")
        asked(two, "logging/setLevel", level="error")  # that of the other may be refused
        assert sent(here) == [("setLevel", "debug"), ("setLevel", "debug")]
        here.peer.answer({"error": {}})
        here.peer.answer({"result": {}})
        assert (one.level, two.level) == (None, "error")
        assert asked(three, "logging/setLevel", level="debug").answers
        assert len(sent(here)) == 2


@pytest.mark.parametrize("first", [{"result": {}}, {"error": {}}, UpstreamTimeout("late")])
async def test_levels_that_a_server_takes_in_another_order(first: Any) -> None:
    async with place(lease()) as here:
        one, two = here.opened(), here.opened()
        asked(one, "logging/setLevel", level="error")
        asked(two, "logging/setLevel", level="debug")
        if isinstance(first, UpstreamTimeout):
            here.peer.waiters.pop(0).failed(first)
        else:
            here.peer.answer(first)
        here.peer.answer({"result": {}})
        asked_for = [("setLevel", "info"), ("setLevel", "debug")]
        told = [] if first == {"error": {}} else [("setLevel", "debug")]
        assert sent(here) == asked_for + told
        for _ in told:
            here.peer.answer({"result": {}})
        assert here.peer.waiters == []
        assert len(sent(here)) == 2 + len(told)


async def test_levels_that_come_out_when_the_server_is_another() -> None:
    async with place(lease()) as here:
        session, other, old = here.opened(), here.opened(), here.peer
        asked(session, "logging/setLevel", level="debug")
        here.desk.running = lease()
        session.rejoin()
        other.rejoin()
        old.answer({"result": {}})
        assert session.level == "debug"
        assert sent(here) == [("setLevel", "debug")]
        here.peer.waiters.pop(0).failed(UpstreamTimeout("late"))
        assert len(sent(here)) == 1  # it would go on for ever
        asked(other, "logging/setLevel", level="debug")
        assert len(sent(here)) == 2


async def test_who_set_no_level_hears_what_it_would_hear_alone() -> None:
    async with place(lease()) as here:
        silent, other = here.opened(), here.opened()

        def heard() -> list[str]:
            """Of what the server sends to nobody in particular, and on the stream of a call."""
            sink = asked(silent, "tools/call", 9, name="x")
            waiter = here.peer.waiters[-1]
            for level in ("debug", "info", "odd"):
                audience_of(here.peer).notified(*note("notifications/message", level=level))
                waiter.related(*note("notifications/message", level=level))
            waiter.answered(b'{"jsonrpc":"2.0","id":7,"result":{}}', 7)
            here.peer.waiters.remove(waiter)
            return [json.loads(one)["params"]["level"] for one in sink.messages]

        everything = [level for level in ("debug", "info", "odd") for _ in range(2)]
        assert heard() == everything  # nobody has made the server say that
        asked(other, "logging/setLevel", level="emergency")
        here.peer.answer({"error": {}})
        assert heard() == everything
        asked(other, "logging/setLevel", level="debug")
        here.peer.waiters.pop(0).failed(UpstreamTimeout("late"))
        assert heard() == everything[2:]
        asked(other, "logging/setLevel", level="debug")
        here.peer.answer({"result": {}})
        assert heard() == everything[2:]
        asked(silent, "logging/setLevel", level="debug")
        assert heard() == everything
    async with place(lease()) as here:
        alone = here.opened(roots={})
        asked(alone, "logging/setLevel", level="error")
        sink = asked(alone, "tools/call", 2, name="x")
        here.peer.waiters[-1].related(*note("notifications/message", level="debug"))
        here.peer.answer({"result": {}})
        here.peer.waiters[-1].related(*note("notifications/message", level="warning"))
        assert [json.loads(one)["params"]["level"] for one in sink.messages] == ["debug"]


END_OF = {
    "cancelled": lambda session: session.notification(
        call("notifications/cancelled", None, requestId=1)
    ),
    "closed": lambda session: session.close(),
}


@pytest.mark.parametrize("end", END_OF)
@pytest.mark.parametrize("capabilities", [{}, {"roots": {}}])
async def test_a_subscription_that_nobody_waited_for_is_ended(
    end: str, capabilities: dict[str, Any]
) -> None:
    async with place(lease()) as here:
        session = here.opened(**capabilities)
        sink = asked(session, "resources/subscribe", 1, uri="u")
        END_OF[end](session)
        assert (sink.outcomes, session.subscriptions, here.peer.cancelled) == (1, set(), [])
        assert sent(here) == [("subscribe", "u")]  # there is nothing to end yet
        here.peer.answer({"result": {}})
        assert sent(here) == [("subscribe", "u"), ("unsubscribe", "u")]
        here.peer.answer({"result": {}})
        assert (here.peer.waiters, sink.outcomes, len(sent(here))) == ([], 1, 2)


async def test_a_subscription_that_may_be_there_is_ended_unless_it_is_wanted() -> None:
    async with place(lease()) as here:
        one, two = here.opened(), here.opened()
        for session in (one, two):
            asked(session, "resources/subscribe", 1, uri="u")
        here.peer.waiters.pop(0).failed(UpstreamTimeout("late"))
        assert one.subscriptions == set()
        here.peer.answer({"result": {}})
        assert sent(here) == [("subscribe", "u")] * 2
        asked(one, "resources/subscribe", 2, uri="v")
        here.peer.waiters.pop(0).failed(UpstreamTimeout("late"))
        assert sent(here)[2:] == [("subscribe", "v"), ("unsubscribe", "v")]
        asked(one, "resources/subscribe", 3, uri="w")
        one.notification(call("notifications/cancelled", None, requestId=3))
        here.peer.waiters.pop().answered(b'{"jsonrpc":"2.0","id":7,"error":{}}', 7)
        assert sent(here)[4:] == [("subscribe", "w")]
        here.peer.refusal = Busy("no room")
        assert asked(one, "resources/subscribe", 4, uri="x").errors
        here.peer.refusal = None
        assert (one.subscriptions, len(sent(here))) == (set(), 5)


async def test_subscriptions_that_cross_end_as_it_is_wanted() -> None:
    async with place(lease()) as here:
        one, two = here.opened(), here.opened()
        asked(one, "resources/subscribe", 1, uri="u")
        here.peer.answer({"result": {}})
        asked(one, "resources/unsubscribe", 2, uri="u")
        asked(two, "resources/subscribe", 3, uri="u")
        for _ in range(2):
            here.peer.answer({"result": {}})
        kinds = ["subscribe", "unsubscribe", "subscribe", "subscribe"]
        assert [kind for kind, _ in sent(here)] == kinds
        here.peer.answer({"result": {}})
        assert (here.peer.waiters, len(sent(here))) == ([], 4)


async def test_a_subscription_that_is_called_off_when_the_server_is_another() -> None:
    async with place(lease()) as here:
        session, old = here.opened(), here.peer
        asked(session, "resources/subscribe", 1, uri="u")
        here.desk.running = lease()
        session.rejoin()
        session.notification(call("notifications/cancelled", None, requestId=1))
        assert sent(here) == [("subscribe", "u"), ("unsubscribe", "u")]
        old.answer({"error": {}})
        assert len(sent(here)) == 2


async def test_what_is_remembered_waits_for_a_server_as_all_calls_do() -> None:
    async with place(lease()) as here:
        session, gone = here.opened(), here.peer
        asked(session, "logging/setLevel", 1, level="debug")
        gone.answer({"result": {}})
        gone.refusal = UpstreamUnavailable("gone")
        new = lease()
        here.desk.coming.append(new)
        here.desk.go_on.set()
        sink = asked(session, "resources/subscribe", 2, uri="u")
        assert isinstance(new.peer, ToolPeer)
        await anyio.wait_all_tasks_blocked()
        here.desk.running = new
        whole = [("subscribe", "u"), ("setLevel", "debug"), ("subscribe", "u")]
        assert sent(here) == whole
        for _ in whole:
            here.peer.answer({"result": {}})
        assert len(sink.answers) == 1
        assert (here.peer.waiters, sent(here)) == ([], whole)


async def test_a_refused_request_leaves_nothing_behind() -> None:
    async with place(lease()) as here:
        session = here.opened()
        sink = asked(session, "resources/subscribe", uri="u", _meta=5)
        assert [type(error) for error in sink.errors] == [InvalidRequest]
        assert session.subscriptions == set()
        asked(session, "resources/subscribe", uri="u")
        here.peer.answer({"result": {}})
        assert asked(session, "resources/unsubscribe", uri="u", _meta=5).errors
        assert session.subscriptions == {"u"}
        assert asked(session, "logging/setLevel", level="error", _meta=5).errors
        assert [what for what, _ in sent(here)] == ["subscribe"]
        assert session.inflight == 0
        session.close()


async def test_a_subscription_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment, "MAX_SUBSCRIPTIONS", 1)
    async with place(lease()) as here:
        session = here.opened()
        asked(session, "resources/subscribe", 1, uri="a")
        assert isinstance(asked(session, "resources/subscribe", 2, uri="b").errors[0], Busy)


async def test_a_new_process_is_told_and_held() -> None:
    async with place(lease()) as here:
        old = here.desk.running
        assert old is not None
        assert isinstance(old.peer, ToolPeer)
        session = here.opened()
        asked(session, "resources/subscribe", 1, uri="u")
        old.peer.answer({"result": {}})
        held = asked(session, "tools/call", 2, name="x")
        here.desk.running = lease()
        new = here.desk.running
        asked(session, "tools/list", 3, cursor=None)
        assert sent(here)[0] == ("subscribe", "u")
        assert (old.begun - len(old.failures), new.begun - len(new.failures)) == (1, 2)
        # What the old one still says of the call that it has goes to its session.
        audience_of(old.peer).notified(*note("notifications/message", level="info"))
        # By the latest call of the same session, below; the first is what it may have missed.
        assert [json.loads(one)["params"] for one in held.messages] == [{"uri": "u"}]
        came = channel_of(session)
        old.peer.answer({"result": {}})
        assert old.begun == len(old.failures)
        old_hub = audience_of(old.peer)
        assert isinstance(old_hub, Hub)
        old_hub.notified(*note("notifications/tools/list_changed"))
        assert came == []
        new.peer.refusal = UpstreamUnavailable("gone")
        session.close()  # tells nobody that it no longer subscribes
        assert new.begun - len(new.failures) == 0


@pytest.mark.parametrize("capabilities", [{}, {"roots": {}}])
async def test_who_only_listens_joins_a_new_process(capabilities: dict[str, Any]) -> None:
    async with place(lease()) as here:
        old = here.desk.running
        assert old is not None
        session, fresh, closed = here.opened(**capabilities), here.session(), here.opened()
        asked(session, "resources/subscribe", 1, uri="u")
        here.peer.answer({"result": {}})
        came = channel_of(session)
        closed.close()
        here.desk.running = None
        session.rejoin()  # there is nothing to join yet
        assert old.begun - len(old.failures) == 1
        new = here.desk.running = lease()
        for one in (session, session, fresh, closed):
            one.rejoin()
        assert sent(here) == [("subscribe", "u")]
        assert old.begun == len(old.failures)
        assert new.begun - len(new.failures) == 1
        assert [one["params"] for one in came] == [{"uri": "u"}]  # it may have missed one
        audience_of(new.peer).notified(*note("notifications/resources/updated", uri="u"))
        assert [one["params"] for one in came] == [{"uri": "u"}] * 2
        session.close()
        assert new.begun == len(new.failures)
