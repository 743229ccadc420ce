"""Many calls over one channel, told apart by id; and what servers do wrong."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from msgspec import Raw

from open_mcp_gateway.access.authorize import authorize
from open_mcp_gateway.auth.principal import PLATFORM, Permission, Principal
from open_mcp_gateway.auth.scope import EVERYTHING, UNNARROWED
from open_mcp_gateway.catalog.model import CatalogEntry, LocalProcess, ServerSpec
from open_mcp_gateway.errors import (
    Busy,
    GatewayError,
    InternalError,
    UpstreamBroken,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from open_mcp_gateway.names import KeyId, ServerId
from open_mcp_gateway.outbound.channel import Loss, Receiver
from open_mcp_gateway.outbound.duplex import DuplexPeer
from open_mcp_gateway.outbound.peer import Handshake, Question, Ticket
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming, Params

pytestmark = pytest.mark.anyio

LEGACY = Handshake(era=Era.LEGACY, version="2025-11-25", result=b"{}")
MODERN = Handshake(era=Era.MODERN, version="2026-07-28", result=b"{}")
ADMIN = Principal(
    key_id=KeyId("test"),
    role="admin",
    permissions=frozenset(Permission),
    namespaces=EVERYTHING,
    holder=PLATFORM,
    scope=UNNARROWED,
)


def entry(server_id: str = "x") -> CatalogEntry:
    spec = ServerSpec(id=ServerId(server_id), runtime=LocalProcess(command="x"))
    return CatalogEntry(spec=spec, shown=spec, runtime_type="local-process")


class MemoryChannel:
    """A Channel that keeps what is sent."""

    def __init__(self) -> None:
        self.full = False
        self.sent: list[dict[str, Any]] = []
        self.ids: list[int | None] = []
        self.given_up = False
        self.closed = False

    @property
    def pid(self) -> int | None:
        return 42

    def send(self, message: bytes, upstream_id: int | None, /) -> None:
        self.sent.append(json.loads(message))
        self.ids.append(upstream_id)

    def give_up(self) -> None:
        self.given_up = True

    async def aclose(self) -> None:
        self.closed = True

    @property
    def methods(self) -> list[str | None]:
        return [message.get("method") for message in self.sent]


class Outcome:
    whose = "bob"

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.told: list[tuple[bytes, int] | GatewayError] = []
        self.event = anyio.Event()
        self.then = then

    def answered(self, message: bytes, upstream_id: int) -> None:
        self._tell((message, upstream_id))

    def failed(self, error: GatewayError) -> None:
        self._tell(error)

    def related(self, message: bytes, incoming: Incoming) -> None:
        raise AssertionError(f"{incoming.method}: {message!r}")

    def asked(self, question: Question) -> None:
        raise AssertionError(question.method)

    def _tell(self, what: tuple[bytes, int] | GatewayError) -> None:
        self.told.append(what)
        self.event.set()
        self.then()

    @property
    def error(self) -> GatewayError:
        (told,) = self.told
        assert isinstance(told, GatewayError)
        return told


class Bench:
    """A peer past its handshake over a channel in memory."""

    def __init__(self, handshake: Handshake = LEGACY) -> None:
        self.channel = MemoryChannel()
        self.peer = DuplexPeer(entry(), self.channel)
        self.receiver: Receiver = self.peer
        self.peer.settle(handshake)
        self.permit = authorize(ADMIN, Permission.MCP_CALL, entry())

    def call(
        self,
        method: str = "tools/call",
        params: Params | None = None,
        *,
        outcome: Outcome | None = None,
        within_s: float = 30.0,
    ) -> tuple[Outcome, Ticket]:
        outcome = outcome or Outcome()
        deadline_s = asyncio.get_running_loop().time() + within_s
        call = Call(method, b'"c"', params)
        return outcome, self.peer.call(self.permit, call, outcome, deadline_s=deadline_s)

    def answer(self, upstream_id: object, result: str = "{}") -> bytes:
        raw_id = json.dumps(upstream_id)
        message = f'{{"jsonrpc":"2.0","id":{raw_id},"result":{result}}}'.encode()
        self.receiver.message(message)
        return message


async def test_answers_find_their_calls_in_any_order_byte_for_byte() -> None:
    bench = Bench()
    params = {"name": Raw(b'"t"'), "arguments": Raw(b'{ "a" : 1.0, "b":"\\u00e9" }')}
    first, _ = bench.call(params=params)
    second, _ = bench.call("tools/list")
    assert bench.peer.inflight == 2
    sent = {"name": "t", "arguments": {"a": 1.0, "b": "é"}}
    assert bench.channel.sent == [
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": sent},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
    ]
    assert bench.channel.ids == [1, 2]
    answers = bench.answer(2), bench.answer(1, '{ "x" : "\u00e9\\n" }')
    assert second.told == [(answers[0], 2)]
    assert first.told == [(answers[1], 1)]
    assert bench.peer.inflight == 0


async def test_an_error_of_the_server_is_an_answer() -> None:
    bench = Bench()
    outcome, _ = bench.call()
    message = b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"m","data":[1]}}'
    bench.receiver.message(message)
    assert outcome.told == [(message, 1)]


async def test_in_the_modern_era_every_request_carries_its_meta() -> None:
    bench = Bench(MODERN)
    bench.call(params={"name": Raw(b'"t"'), "_meta": Raw(b'{"vendor/x":1}')})
    meta = bench.channel.sent[0]["params"]["_meta"]
    assert meta["vendor/x"] == 1
    assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert meta["io.modelcontextprotocol/clientCapabilities"] == {}
    assert meta["io.modelcontextprotocol/clientInfo"]["name"] == "open-mcp-gateway"


@pytest.mark.parametrize("wrong", [2, 0, -1, "1", 10**30, None, 1.5])
async def test_an_answer_to_nothing_is_dropped(wrong: object) -> None:
    bench = Bench()
    outcome, _ = bench.call()
    bench.answer(wrong)
    assert outcome.told == []
    bench.answer(1)
    assert len(outcome.told) == 1


async def test_a_second_answer_is_dropped_and_counted() -> None:
    bench = Bench()
    outcome, _ = bench.call()
    bench.answer(1)
    bench.answer(1)
    assert len(outcome.told) == 1
    assert bench.peer.strays == 1


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b'{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}', "both"),
        (b'{"jsonrpc":"2.0","id":1}', "neither"),
        (b'{"jsonrpc":"1.0","id":1,"result":{}}', '"jsonrpc":"2.0"'),
        (b'{"id":1,"result":{}}', '"jsonrpc":"2.0"'),
        (b'{"jsonrpc":2.0,"id":1,"result":{}}', "broke the protocol"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"a":[', "broke the protocol"),
        (b'{"jsonrpc":"2.0","id":1,"result":NaN}', "broke the protocol"),
        (b'{"jsonrpc":"2.0","id":1,"result":"\xff"}', "broke the protocol"),
        (b'{"result":"\xff","jsonrpc":"2.0","id":1}', "broke the protocol"),
        (b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deeply"),
    ],
)
async def test_a_broken_answer_fails_its_call_alone(message: bytes, says: str) -> None:
    bench = Bench()
    broken, _ = bench.call()
    other, _ = bench.call()
    bench.receiver.message(message)
    assert isinstance(broken.error, UpstreamBroken)
    assert "Server 'x'" in broken.error.public
    assert says in broken.error.public
    assert other.told == []
    bench.answer(2)
    assert len(other.told) == 1


async def test_noise_is_skipped_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    outcome, _ = bench.call()
    with caplog.at_level(logging.WARNING):
        for noise in (b"Listening...", b"{", b"42", b"[]", b"null", b'"x"', b"\xff", b"[1,[2]]"):
            bench.receiver.message(noise)
    assert len(caplog.records) == 1
    assert "Listening" not in caplog.text
    bench.answer(1)
    assert len(outcome.told) == 1


@pytest.mark.parametrize("noise", [b"[" * 50_000, b"\xef\xbb\xbf" * 50_000])
async def test_noise_made_to_recurse_does_not(noise: bytes) -> None:
    bench = Bench()
    outcome, _ = bench.call()
    bench.receiver.message(noise)
    bench.answer(1)
    assert len(outcome.told) == 1


async def test_a_byte_order_mark_and_a_batch_are_understood() -> None:
    bench = Bench()
    first, _ = bench.call()
    second, _ = bench.call()
    third, _ = bench.call()
    plain = b'{"jsonrpc":"2.0","id":%d,"result":{}}'
    bench.receiver.message(b"\xef\xbb\xbf" + plain % 1)
    bench.receiver.message(b"[" + plain % 2 + b" , " + plain % 3 + b"]")
    assert [first.told, second.told, third.told] == [[(plain % n, n)] for n in (1, 2, 3)]


async def test_a_message_over_the_limit_fails_the_call_it_answers() -> None:
    bench = Bench()
    big, _ = bench.call()
    other, _ = bench.call()
    bench.receiver.overlong(b'{"jsonrpc":"2.0","id":1,"result":{"', b'"}}')
    assert "size limit" in big.error.public
    assert other.told == []
    assert not bench.channel.given_up


async def test_a_message_over_the_limit_that_answers_who_knows_what_ends_the_peer() -> None:
    bench = Bench()
    outcome, _ = bench.call()
    bench.receiver.overlong(b'{"jsonrpc":"2.0","method":"x"', b'"}}')
    assert "size limit" in outcome.error.public
    assert bench.channel.given_up
    with pytest.raises(UpstreamUnavailable):
        bench.call()


async def test_the_deadline_fails_the_call_and_tells_the_server() -> None:
    bench = Bench()
    late, _ = bench.call(within_s=0.05)
    later, _ = bench.call(within_s=30)
    with anyio.fail_after(20):
        await late.event.wait()
    assert isinstance(late.error, UpstreamTimeout)
    assert later.told == []
    assert bench.channel.sent[-1]["method"] == "notifications/cancelled"
    assert bench.channel.sent[-1]["params"]["requestId"] == 1
    bench.answer(1)
    assert len(late.told) == 1
    assert bench.peer.strays == 1


async def test_deadlines_need_not_come_in_order() -> None:
    bench = Bench()
    order: list[str] = []
    outcomes = [
        bench.call(outcome=Outcome(lambda name=name: order.append(name)), within_s=within_s)[0]  # type: ignore[misc]
        for name, within_s in (("c", 0.15), ("a", 0.01), ("never", 30), ("b", 0.08), ("past", -1))
    ]
    assert order == []
    with anyio.fail_after(20):
        await outcomes[0].event.wait()
    assert order == ["past", "a", "b", "c"]
    assert bench.peer.inflight == 1


async def test_a_waiter_may_call_again_from_its_outcome() -> None:
    bench = Bench()
    again: list[Outcome] = []

    def call_again() -> None:
        again.append(bench.call()[0])

    late, _ = bench.call(outcome=Outcome(call_again), within_s=0.01)
    bench.call(outcome=Outcome(call_again))
    bench.answer(2)
    with anyio.fail_after(20):
        await late.event.wait()
    bench.answer(3)
    bench.answer(4)
    assert [len(outcome.told) for outcome in again] == [1, 1]
    assert bench.peer.inflight == 0


async def test_cancel_tells_the_server_once_and_the_waiter_nothing() -> None:
    bench = Bench()
    outcome, ticket = bench.call()
    ticket.cancel("caller left")
    ticket.cancel("caller left")
    assert bench.channel.methods == ["tools/call", "notifications/cancelled"]
    assert bench.channel.sent[1]["params"] == {"requestId": 1, "reason": "caller left"}
    bench.answer(1)
    assert outcome.told == []


LATE = {
    "well-formed": b'{"jsonrpc":"2.0","id":1,"result":{}}',
    "an error": b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"cancelled"}}',
    "broken": b'{"jsonrpc":"2.0","id":1,"result":NaN}',
    "too long": None,
}


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("end", ["cancel", "deadline", "undelivered"])
async def test_a_call_without_an_answer_counts_until_a_late_one(end: str, late: str) -> None:
    bench = Bench()
    outcome, ticket = bench.call(within_s=0.0 if end == "deadline" else 30.0)
    assert not bench.peer.given_up_by_others("alice")
    if end == "cancel":
        ticket.cancel("enough")
    elif end == "deadline":
        await outcome.event.wait()
    else:
        bench.receiver.undelivered(1, UpstreamUnavailable("no"), doubtful=True)
    assert bench.peer.given_up_by_others("alice")
    assert not bench.peer.given_up_by_others("bob")
    message = LATE[late]
    if message is None:
        bench.receiver.overlong(b'{"jsonrpc":"2.0","id":1,"result":"', b'"}')
    else:
        bench.receiver.message(message)
    assert not bench.peer.given_up_by_others("alice")


async def test_calls_that_have_an_end_do_not_count_any_more() -> None:
    bench = Bench()
    _, ticket = bench.call()
    bench.answer(1)
    ticket.cancel("too late")
    bench.call()
    bench.receiver.undelivered(2, UpstreamUnavailable("never sent"), doubtful=False)
    bench.peer.ask("ping", None).abandon()
    assert not bench.peer.given_up_by_others("alice")


async def test_cancel_after_the_answer_does_nothing() -> None:
    bench = Bench()
    _, ticket = bench.call()
    bench.answer(1)
    ticket.cancel("too late")
    assert bench.channel.methods == ["tools/call"]


async def test_initialize_is_never_cancelled() -> None:
    bench = Bench()
    question = bench.peer.ask("initialize", None)
    question.abandon()
    assert bench.channel.methods == ["initialize"]
    bench.answer(1)
    assert bench.peer.strays == 1


async def test_a_question_is_patient_and_remembers_its_answer() -> None:
    bench = Bench()
    question = bench.peer.ask("server/discover", None)
    assert await question.within(0.01) is None
    message = bench.answer(1)
    assert await question.within(None) == message
    assert await question.within(0) == message


async def test_a_lost_peer_fails_every_call_with_an_error_of_its_own_then_says_so() -> None:
    bench = Bench()
    heard: list[GatewayError] = []
    outcomes = [bench.call()[0] for _ in range(3)]

    def hear(error: GatewayError) -> None:
        assert all(len(outcome.told) == 1 for outcome in outcomes)
        heard.append(error)

    bench.peer.on_lost(hear)
    bench.receiver.lost(Loss("exited with code 3", "stderr: boom"))
    bench.receiver.lost(Loss("exited with code 4"))
    errors = [outcome.error for outcome in outcomes]
    assert len({id(error) for error in errors}) == 3
    assert {error.public for error in errors} == {
        "Server 'x' exited with code 3 during the call; it may have taken effect. stderr: boom"
    }
    assert [error.public for error in heard] == ["Server 'x' exited with code 3. stderr: boom"]
    bench.peer.on_lost(heard.append)
    assert len(heard) == 2
    with pytest.raises(UpstreamUnavailable, match="exited with code 3"):
        bench.call()
    bench.peer.notify(bench.permit, Call("notifications/x", None))
    assert bench.channel.methods == ["tools/call"] * 3
    with pytest.raises(UpstreamUnavailable):
        await bench.peer.probe()


async def test_closing_fails_what_is_in_flight_and_is_no_loss() -> None:
    bench = Bench()
    heard: list[GatewayError] = []
    bench.peer.on_lost(heard.append)
    outcome, _ = bench.call()
    await bench.peer.aclose()
    await bench.peer.aclose()
    assert isinstance(outcome.error, UpstreamBroken)
    bench.receiver.lost(Loss("exited with code 0"))
    assert heard == []
    assert bench.channel.closed
    with pytest.raises(UpstreamUnavailable, match="was stopped"):
        bench.call()


async def test_a_request_that_could_not_be_delivered_fails() -> None:
    bench = Bench()
    outcome, _ = bench.call()
    for _ in range(2):
        bench.receiver.undelivered(1, UpstreamUnavailable("no connection"), doubtful=False)
    assert outcome.error.public == "no connection"
    outcome, _ = bench.call()
    bench.receiver.undelivered(2, UpstreamBroken("no answer"), doubtful=True)
    assert outcome.error.public == "no answer; the call may have taken effect"


async def test_a_server_that_does_not_read_makes_callers_busy() -> None:
    bench = Bench()
    bench.channel.full = True
    with pytest.raises(Busy):
        bench.call()
    bench.peer.notify(bench.permit, Call("notifications/x", None))
    assert bench.channel.sent == []
    assert bench.peer.inflight == 0


async def test_requests_of_the_server_are_answered_without_client_capabilities() -> None:
    bench = Bench()
    bench.receiver.message(b'{"jsonrpc":"2.0","id":"p","method":"ping"}')
    bench.receiver.message(b'{"jsonrpc":"2.0","id":1,"method":"roots/list","params":{}}')
    assert bench.channel.sent == [
        {"jsonrpc": "2.0", "id": "p", "result": {}},
        {"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "Method not found"}},
    ]
    bench.channel.full = True
    bench.receiver.message(b'{"jsonrpc":"2.0","id":2,"method":"ping"}')
    assert len(bench.channel.sent) == 2


async def test_a_modern_server_gets_no_answers_to_requests_it_must_not_send() -> None:
    bench = Bench(MODERN)
    bench.receiver.message(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
    assert bench.channel.sent == []


async def test_a_request_of_the_server_is_no_answer_to_a_call_of_the_same_id() -> None:
    bench = Bench()
    outcome, _ = bench.call()
    bench.receiver.message(b'{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}')
    assert outcome.told == []


async def test_a_deadline_can_be_moved_either_way() -> None:
    bench = Bench()
    now_s = asyncio.get_running_loop().time()
    late, later = bench.call(within_s=0.02)
    soon, sooner = bench.call(within_s=600)
    later.extend(now_s + 600)
    sooner.extend(now_s + 0.05)
    with anyio.fail_after(20):
        await soon.event.wait()
    assert isinstance(soon.error, UpstreamTimeout)
    assert late.told == []
    bench.answer(1)
    later.extend(now_s)
    assert len(late.told) == 1
    assert bench.channel.methods == ["tools/call", "tools/call", "notifications/cancelled"]


async def test_a_call_without_deadline_waits() -> None:
    bench = Bench()
    endless, _ = bench.call(within_s=float("inf"))
    short, _ = bench.call(within_s=0.01)
    with anyio.fail_after(20):
        await short.event.wait()
    assert endless.told == []
    bench.answer(1)
    assert len(endless.told) == 1


@pytest.mark.parametrize(("handshake", "method"), [(LEGACY, "ping"), (MODERN, "server/discover")])
async def test_any_answer_to_a_probe_counts(handshake: Handshake, method: str) -> None:
    bench = Bench(handshake)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.peer.probe)
        await anyio.wait_all_tasks_blocked()
        assert bench.channel.methods == [method]
        bench.receiver.message(b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}')
    assert bench.peer.inflight == 0


async def test_a_probe_given_up_leaves_nothing_behind() -> None:
    bench = Bench()
    with anyio.move_on_after(0.02):
        await bench.peer.probe()
    assert bench.peer.inflight == 0
    assert bench.channel.methods == ["ping"]


async def test_a_permit_holds_for_its_own_server_and_for_calls_only() -> None:
    bench = Bench()
    call, outcome = Call("tools/call", b"1"), Outcome()
    elsewhere = authorize(ADMIN, Permission.MCP_CALL, entry("y"))
    reading = authorize(ADMIN, Permission.SERVERS_READ, entry())
    for permit in (elsewhere, reading):
        with pytest.raises(InternalError):
            bench.peer.call(permit, call, outcome, deadline_s=1e12)
        with pytest.raises(InternalError):
            bench.peer.notify(permit, Call("notifications/x", None))
    assert bench.channel.sent == []


async def test_a_peer_is_not_used_before_its_handshake() -> None:
    with pytest.raises(InternalError):
        _ = DuplexPeer(entry(), MemoryChannel()).handshake
