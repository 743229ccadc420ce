"""One call between its caller and its server, and everything that can come between them."""

from __future__ import annotations

import json
import logging

import anyio
import pytest
from msgspec import Raw

from open_mcp_gateway.errors import (
    Busy,
    UpstreamBroken,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from open_mcp_gateway.outbound.peer import ANY_MANNER, Handshake
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.faults import INVALID_PARAMS, METHOD_NOT_FOUND
from open_mcp_gateway.protocol.jsonrpc import Call, decode_incoming
from tests.unit.pipeline.exchanges import Caller, HandLease, HandPeer, HandQuestion, counter
from tests.unit.supervisor.memory import snapshot_of, spec

pytestmark = pytest.mark.anyio

ANSWER = b'{"jsonrpc":"2.0","id":7,"result":{"x":1.0}}'
NOTE = Call("notifications/custom", None, {})
PROGRESS = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}'


# To a server that runs


async def test_an_answer_comes_back_under_the_callers_id() -> None:
    lease = HandLease()
    async with counter(lease) as place:
        caller, exchange = place.send()
        assert exchange is not None
        assert (lease.begun, lease.failures, caller.replies) == (1, [], [])
        lease.peer.waiters[0].answered(ANSWER, 7)
        assert caller.reply.status == 200
        assert caller.reply.body == b'{"jsonrpc":"2.0","id":"i","result":{"x":1.0}}'
        assert lease.failures == [False]
        assert place.desk.asked == 0
        assert place.desk.manners == [ANY_MANNER]


async def test_a_failure_comes_back_as_one() -> None:
    lease = HandLease()
    async with counter(lease) as place:
        caller, _ = place.send()
        lease.peer.waiters[0].failed(UpstreamBroken("exit code 1"))
        assert caller.reply.status == 502
        assert caller.error["id"] == "i"
        assert caller.error["message"] == "exit code 1"
        assert lease.failures == [True]


async def test_what_is_sent_is_what_was_authorized_without_the_connections_own() -> None:
    lease = HandLease()
    params = {"name": Raw(b'"t"'), "_meta": Raw(b'{"progressToken":1,"a":2}')}
    async with counter(lease) as place:
        place.send(Call("tools/call", b"1", params))
        ((permit, sent),) = lease.peer.calls
        assert permit.entry is place.forwarder.snapshot.entries[permit.entry.spec.id]
        assert sent.params is not None
        assert {name: json.loads(bytes(raw)) for name, raw in sent.params.items()} == {
            "name": "t",
            "_meta": {"a": 2},
        }
        lease.peer.waiters[0].answered(ANSWER, 7)


async def test_no_room_at_the_peer() -> None:
    lease = HandLease()
    lease.peer.refusal = Busy("does not read", retry_after_s=2)
    async with counter(lease) as place:
        caller, exchange = place.send()
        assert exchange is None
        assert caller.reply.status == 503
        assert caller.reply.headers == ((b"retry-after", b"2"),)
        assert caller.error["id"] == "i"
        assert (lease.begun, lease.failures) == (1, [True])


async def test_an_unknown_server() -> None:
    async with counter(HandLease()) as place:
        caller, exchange = place.send(server_id="nobody")
        assert exchange is None
        assert caller.reply.status == 404
        assert caller.error["id"] == "i"


async def test_params_that_cannot_be_read() -> None:
    lease = HandLease()
    async with counter(lease) as place:
        caller, exchange = place.send(Call("tools/call", b"1", {"_meta": Raw(b"[]")}))
        assert exchange is None
        assert caller.reply.status == 400
        assert caller.error["id"] == 1
        assert lease.peer.calls == []


@pytest.mark.parametrize(
    ("own_s", "gateway_s", "ceiling_s", "deadline_s"),
    [(None, 30, 600, 30), (5, 30, 600, 5), (900, 30, 600, 600), (None, 30, 10, 10)],
)
async def test_deadlines(
    own_s: int | None, gateway_s: float, ceiling_s: float, deadline_s: float
) -> None:
    lease = HandLease()
    snapshot = snapshot_of(spec("a", request_timeout_seconds=own_s))
    async with counter(lease, snapshot) as place:
        place.means.request_timeout_s = gateway_s
        place.means.max_request_s = ceiling_s
        place.send()
        assert lease.peer.deadlines == [anyio.current_time() + deadline_s]
        lease.peer.waiters[0].answered(ANSWER, 7)


# What comes before the answer


async def test_progress_moves_the_deadline_and_is_not_passed_on() -> None:
    """The idle limit begins anew each time; the absolute one stays where it was."""
    lease = HandLease()
    async with counter(lease) as place:
        place.means.max_request_s = 50
        begins_s = anyio.current_time()
        caller, _ = place.send()
        (waiter,) = lease.peer.waiters
        for _ in range(3):
            await anyio.sleep(15)
            waiter.related(b"{}", decode_incoming(PROGRESS))
        assert [one - begins_s for one in lease.peer.extended] == [45, 50, 50]
        assert caller.replies == []
        waiter.answered(ANSWER, 7)
        waiter.related(b"{}", decode_incoming(PROGRESS))
        assert len(lease.peer.extended) == 3
    assert caller.reply.status == 200


async def test_whoever_sends_envelopes_cannot_be_asked() -> None:
    lease = HandLease()
    question = HandQuestion()
    async with counter(lease) as place:
        caller, _ = place.send()
        (waiter,) = lease.peer.waiters
        waiter.asked(question)
        assert [code for code, _ in question.refusals] == [METHOD_NOT_FOUND]
        assert (caller.replies, lease.failures) == ([], [])
        waiter.answered(ANSWER, 7)
    assert caller.reply.status == 200


async def test_a_cursor_of_nobody_is_refused_before_anything_is_sent() -> None:
    lease = HandLease()
    async with counter(lease) as place:
        caller, exchange = place.send(Call("tools/list", b"1", {"cursor": Raw(b'"c"')}))
        assert exchange is None
        assert caller.error["id"] == 1
        assert caller.error["code"] == INVALID_PARAMS
    assert (lease.begun, lease.peer.calls) == (0, [])


@pytest.mark.parametrize("member", ["requestState", "RequestState", "request_state"])
async def test_a_state_that_was_given_to_nobody_here_is_refused(member: str) -> None:
    lease = HandLease()
    async with counter(lease) as place:
        caller, exchange = place.send(Call("tools/call", b"1", {member: Raw(b'"of another"')}))
        assert exchange is None
        assert caller.error["code"] == INVALID_PARAMS
    assert (lease.begun, lease.peer.calls) == (0, [])


# Without a call upstream


@pytest.mark.parametrize("what", ["initialized", "cancelled", "progress", "roots/list_changed"])
async def test_notifications_about_the_connection_end_here(what: str) -> None:
    async with counter() as place:
        caller, exchange = place.send(Call(f"notifications/{what}", None))
        assert exchange is None
        assert (caller.reply.status, caller.reply.body) == (202, b"")
        assert place.desk.asked == 0


async def test_a_notification_is_passed_on_and_over() -> None:
    lease = HandLease()
    async with counter(lease) as place:
        caller, exchange = place.send(NOTE)
        assert exchange is None
        assert caller.reply.status == 202
        assert [call.method for _, call in lease.peer.calls] == ["notifications/custom"]
        assert (lease.begun, lease.failures) == (1, [False])


@pytest.mark.parametrize(
    "method", ["logging/setLevel", "resources/subscribe", "resources/unsubscribe"]
)
async def test_what_a_server_remembers_needs_a_session(method: str) -> None:
    async with counter() as place:  # nothing is started for it either
        caller, exchange = place.send(Call(method, b"1", {"uri": Raw(b'"u"')}))
        assert exchange is None
        assert (caller.reply.status, caller.error["code"]) == (404, METHOD_NOT_FOUND)
        assert caller.error["message"] == (
            f"'{method}' needs a session: open one with 'initialize' (over HTTP at /servers/a/mcp)"
        )
        assert place.desk.manners == []


async def test_initialize_is_answered_from_the_handshake() -> None:
    async with counter(HandLease()) as place:
        caller, exchange = place.send(Call("initialize", b"1", {}))
        assert exchange is None
        assert caller.reply.body == b'{"jsonrpc":"2.0","id":1,"result":{}}'


async def test_a_ping_for_those_who_do_not_know_it_any_more() -> None:
    modern = Handshake(era=Era.MODERN, version="2026-07-28", result=b"{}")
    for lease, asked in ((HandLease(HandPeer(modern)), 0), (HandLease(), 1)):
        async with counter(lease) as place:
            caller, _ = place.send(Call("ping", b"1"))
            assert lease.peer.inflight == asked
            for waiter in lease.peer.waiters:
                waiter.answered(b'{"jsonrpc":"2.0","id":9,"result":{}}', 9)
            assert caller.reply.body == b'{"jsonrpc":"2.0","id":1,"result":{}}'


# To a server that has to start first


@pytest.mark.parametrize("call", [None, NOTE, Call("initialize", b"1", {})], ids=repr)
async def test_it_is_waited_for(call: Call | None) -> None:
    lease = HandLease()
    async with counter() as place:
        caller, exchange = place.send(call)
        assert exchange is not None
        await anyio.wait_all_tasks_blocked()
        assert (place.desk.asked, caller.replies, lease.peer.calls) == (1, [], [])
        place.desk.coming.append(lease)
        place.desk.go_on.set()
        await anyio.wait_all_tasks_blocked()
        for waiter in lease.peer.waiters:
            waiter.answered(ANSWER, 7)
        assert len(caller.replies) == 1
        assert caller.reply.status in (200, 202)
        assert lease.begun == len(lease.failures)


async def test_it_is_not_waited_for_beyond_the_deadline() -> None:
    async with counter() as place:
        begins_s = anyio.current_time()
        caller, _ = place.send()
        await caller.told.wait()
        assert anyio.current_time() == begins_s + 30
        assert caller.reply.status == 504
        assert caller.error["id"] == "i"
        assert caller.error["data"]["code"] == "upstream_timeout"


async def test_it_does_not_start() -> None:
    async with counter() as place:
        place.desk.coming.append(UpstreamUnavailable("exit code 3", retry_after_s=4))
        place.desk.go_on.set()
        caller, _ = place.send()
        await caller.told.wait()
        assert caller.reply.status == 502
        assert caller.reply.headers == ((b"retry-after", b"4"),)
        assert (caller.error["id"], caller.error["message"]) == ("i", "exit code 3")


async def test_a_defect_while_it_starts(caplog: pytest.LogCaptureFixture) -> None:
    async with counter() as place:
        place.desk.coming.append(ZeroDivisionError("ours"))
        place.desk.go_on.set()
        caller, _ = place.send()
        await caller.told.wait()
        assert caller.reply.status == 500
        assert b"ours" not in caller.reply.body
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert record.__dict__["request_id"] == "r-1"
    assert record.exc_info is not None


async def test_the_gateway_stops_while_it_starts() -> None:
    async with counter() as place:
        caller, _ = place.send()
        await anyio.wait_all_tasks_blocked()
        place.tasks.cancel_scope.cancel()
    assert caller.reply.status == 503
    assert caller.error["id"] == "i"
    assert caller.error["data"]["code"] == "draining"


async def test_the_gateway_stops_before_it_is_even_asked() -> None:
    """The task group is cancelled in the same step in which the call arrives."""
    async with counter() as place:
        caller, exchange = place.send()
        place.tasks.cancel_scope.cancel()
    assert exchange is not None
    assert caller.reply.status == 503
    assert place.desk.asked <= 1


# Peers that die between being found and being used


async def test_a_peer_gone_before_the_call_is_replaced() -> None:
    gone, fresh = HandLease(), HandLease()
    gone.peer.refusal = UpstreamUnavailable("gone")
    async with counter(gone) as place:
        place.desk.coming.extend([gone, fresh])
        place.desk.go_on.set()
        caller, exchange = place.send()
        assert exchange is not None
        await anyio.wait_all_tasks_blocked()
        fresh.peer.waiters[0].answered(ANSWER, 7)
        assert caller.reply.status == 200
    assert (gone.begun, gone.failures) == (0, [])
    assert (fresh.begun, fresh.failures) == (1, [False])


async def test_peers_that_are_always_gone() -> None:
    gone = HandLease()
    gone.peer.refusal = UpstreamUnavailable("gone")
    async with counter(gone) as place:
        place.desk.coming.extend([gone] * 10)
        place.desk.go_on.set()
        caller, _ = place.send()
        await caller.told.wait()
        assert caller.reply.status == 502
        assert "went away as soon as it was up" in caller.error["message"]
        assert place.desk.asked == 3
    assert (gone.begun, gone.failures) == (0, [])


@pytest.mark.parametrize("call", [None, NOTE], ids=repr)
async def test_a_defect_of_the_peer_leaves_no_lease_in_use(call: Call | None) -> None:
    lease = HandLease()
    lease.peer.refusal = ZeroDivisionError("ours")
    async with counter(lease) as place:
        caller, _ = place.send(call)
        assert caller.reply.status == 500
        assert caller.error["data"]["code"] == "internal"
    assert (lease.begun, lease.failures) == (0, [])


# Callers that are gone


async def test_gone_before_it_is_even_asked() -> None:
    async with counter() as place:
        caller, exchange = place.send()
        assert exchange is not None
        exchange.abandon()
        await anyio.wait_all_tasks_blocked()
        assert place.desk.asked == 0
    assert caller.replies == []


async def test_gone_while_it_starts() -> None:
    lease = HandLease()
    async with counter() as place:
        caller, exchange = place.send()
        assert exchange is not None
        await anyio.wait_all_tasks_blocked()
        place.desk.coming.append(lease)
        exchange.abandon()
        place.desk.go_on.set()
        await anyio.wait_all_tasks_blocked()
    assert caller.replies == []
    assert (lease.begun, lease.peer.calls) == (0, [])


async def test_who_is_gone_waits_no_longer() -> None:
    begins_s = anyio.current_time()
    async with counter() as place:
        _, exchange = place.send()
        assert exchange is not None
        await anyio.wait_all_tasks_blocked()
        exchange.abandon()
    assert anyio.current_time() == begins_s


async def test_gone_in_the_very_step_in_which_it_is_up() -> None:
    lease = HandLease()
    async with counter() as place:
        caller, exchange = place.send()
        assert exchange is not None
        await anyio.wait_all_tasks_blocked()
        place.desk.coming.append(lease)
        place.desk.go_on.set()
        exchange.abandon()
        await anyio.wait_all_tasks_blocked()
    assert caller.replies == []
    assert (lease.begun, lease.peer.calls) == (0, [])


async def test_gone_in_the_middle_of_the_call() -> None:
    lease = HandLease()
    async with counter(lease) as place:
        caller, exchange = place.send()
        assert exchange is not None
        exchange.abandon()
        assert lease.peer.cancelled == ["client disconnected"]
        assert lease.failures == [True], "not a sign of life of the server"
        exchange.abandon()
        assert lease.peer.cancelled == ["client disconnected"]
        # A peer that answers all the same changes nothing any more.
        lease.peer.waiters[0].answered(ANSWER, 7)
        lease.peer.waiters[0].failed(UpstreamTimeout("late"))
    assert caller.replies == []
    assert lease.failures == [True]


async def test_gone_after_the_answer() -> None:
    lease = HandLease()
    async with counter(lease) as place:
        caller, exchange = place.send()
        assert exchange is not None
        lease.peer.waiters[0].answered(ANSWER, 7)
        exchange.abandon()
    assert len(caller.replies) == 1
    assert (lease.peer.cancelled, lease.failures) == ([], [False])


async def test_a_peer_that_answers_twice_is_heard_once() -> None:
    lease = HandLease()
    async with counter(lease) as place:
        caller, _ = place.send()
        waiter = lease.peer.waiters[0]
        waiter.answered(ANSWER, 7)
        waiter.answered(ANSWER, 7)
        waiter.failed(UpstreamBroken("and then"))
    assert caller.reply.status == 200
    assert lease.failures == [False]


async def test_one_failure_of_a_peer_told_to_many() -> None:
    """They share the error; each is told under its own id."""
    lease = HandLease()
    callers: list[Caller] = []
    async with counter(lease) as place:
        for number in range(3):
            caller, _ = place.send(Call("tools/call", b"%d" % number, {}))
            callers.append(caller)
        error = UpstreamBroken("exit code 1")
        for waiter in lease.peer.waiters:
            waiter.failed(error)
    assert [caller.error["id"] for caller in callers] == [0, 1, 2]
