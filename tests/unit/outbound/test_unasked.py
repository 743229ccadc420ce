"""Whom it reaches what a server sends of itself; and answers to a server's questions."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from msgspec import Raw

from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.outbound.peer import Question
from open_mcp_gateway.outbound.question import MAX_OPEN
from open_mcp_gateway.outbound.unasked import Unasked, own_result
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming, decode_incoming

PROGRESS = (
    b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":1,'
    b'"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"}}}}'
)
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


class Owner:
    """A Waiter and an Audience that keeps what it is told."""

    def __init__(self, whose: str = "alice") -> None:
        self.whose = whose
        self.told: list[bytes] = []
        self.answers: list[tuple[bytes, int]] = []
        self.questions: list[Question] = []

    def answered(self, message: bytes, upstream_id: int) -> None:
        self.answers.append((message, upstream_id))

    def failed(self, error: GatewayError) -> None:
        raise error

    def related(self, message: bytes, incoming: Incoming) -> None:
        assert decode_incoming(message) == incoming
        self.told.append(message)

    def notified(self, message: bytes, incoming: Incoming) -> None:
        self.related(message, incoming)

    def asked(self, question: Question) -> None:
        self.questions.append(question)


class InFlight(NamedTuple):
    id: int
    call: Call
    waiter: Owner


class Bench:
    def __init__(self, *, modern: bool = False, attended: bool = True) -> None:
        self.inflight: dict[int, InFlight] = {}
        self.sent: list[Any] = []
        self.unasked = Unasked("x", self.inflight, send=self._send, forget=self._forget)
        self.unasked.modern = modern
        self.audience = Owner()
        if attended:
            self.unasked.audience = self.audience

    def _send(self, message: bytes) -> None:
        self.sent.append(json.loads(message))

    def _forget(self, upstream_id: int) -> None:
        del self.inflight[upstream_id]

    def call(
        self,
        upstream_id: int,
        method: str = "tools/call",
        *,
        progress_token: bytes | None = None,
        log_level: bytes | None = None,
        whose: str = "alice",
    ) -> Owner:
        call = Call(
            method,
            b'"c"',
            progress_token=None if progress_token is None else Raw(progress_token),
            log_level=None if log_level is None else Raw(log_level),
        )
        owner = Owner(whose)
        self.inflight[upstream_id] = InFlight(upstream_id, call, owner)
        return owner

    def withdraw(self, upstream_id: int) -> None:
        self.unasked.withdrawn(self.inflight.pop(upstream_id))

    def notify(self, message: bytes) -> None:
        self.unasked.notified(decode_incoming(message), message)

    def ask(self, raw_id: bytes, method: str = "roots/list", *, room: bool = True) -> None:
        message = b'{"jsonrpc":"2.0","id":%b,"method":"%b"}' % (raw_id, method.encode())
        self.unasked.asked(decode_incoming(message), room=room)


def answer(text: bytes) -> Incoming:
    return decode_incoming(b'{"jsonrpc":"2.0","id":1,%b}' % text)


@pytest.mark.parametrize("modern", [False, True])
def test_only_the_token_of_progress_is_rewritten(modern: bool) -> None:
    bench = Bench(modern=modern)
    owner = bench.call(7, progress_token=b'"a\\u00e9"')
    bench.notify(
        b'{"method":"notifications/progress","params":{"x":{ "progressToken" : 7 },'
        b'"progressToken":7,"progress":1.50,"total":1e2,"message":"\\u00e9 \xc3\xa9"},'
        b'"jsonrpc":"2.0","vendor":[ 1 ]}'
    )
    assert owner.told == [
        b'{"method":"notifications/progress","params":{"x":{ "progressToken" : 7 },'
        b'"progressToken":"a\\u00e9","progress":1.50,"total":1e2,"message":"\\u00e9 \xc3\xa9"},'
        b'"jsonrpc":"2.0","vendor":[ 1 ]}'
    ]


@pytest.mark.parametrize("modern", [False, True])
@pytest.mark.parametrize(
    "params",
    [
        b"",
        b',"params":{}',
        b',"params":[]',
        b',"params":null',
        b',"params":{"progressToken":"7"}',
        b',"params":{"progressToken":7.5}',
        b',"params":{"progressToken":true}',
        b',"params":{"progressToken":null}',
        b',"params":{"progressToken":{}}',
        b',"params":{"progressToken":8}',
        b',"params":{"progressToken":1}',
        b',"params":{"progressToken":1e400}',
        b',"params":{"progressToken":7,"_meta":[]}',
    ],
)
def test_progress_that_names_no_call_of_ours_is_dropped(params: bytes, modern: bool) -> None:
    bench = Bench(modern=modern)
    wanting = bench.call(7, progress_token=b"1")
    quiet = bench.call(1)
    bench.notify(b'{"jsonrpc":"2.0","method":"notifications/progress"%b}' % params)
    assert wanting.told == quiet.told == bench.audience.told == []


def test_the_audience_gets_what_belongs_to_no_call_byte_for_byte() -> None:
    bench = Bench()
    bench.call(1, progress_token=b"1", log_level=b'"info"')
    note = b' { "method":"notifications/message", "jsonrpc":"2.0","params":{"data" : 1.0}}'
    bench.notify(note)
    assert bench.audience.told == [note]
    Bench(attended=False).notify(note)


def test_a_subscription_s_id_is_rewritten_and_nothing_else() -> None:
    bench = Bench(modern=True)
    owner = bench.call(3, "subscriptions/listen")
    other = bench.call(4, "subscriptions/listen")
    bench.notify(
        b'{"jsonrpc":"2.0","method":"notifications/x","params":{"_meta":{"v/x":[ 1 ],'
        b'"%b":3},"uri":"a:\\/b"}}' % SUBSCRIPTION.encode()
    )
    assert owner.told == [
        b'{"jsonrpc":"2.0","method":"notifications/x","params":{"_meta":{"v/x":[ 1 ],'
        b'"%b":"c"},"uri":"a:\\/b"}}' % SUBSCRIPTION.encode()
    ]
    assert other.told == bench.audience.told == []


@pytest.mark.parametrize("mark", [b"5", b"6", b'"3"', b"null", b"3.5", b"true"])
def test_a_subscription_nobody_has_reaches_nobody(mark: bytes) -> None:
    bench = Bench(modern=True)
    owners = bench.call(3, "subscriptions/listen"), bench.call(5), bench.audience
    bench.notify(
        b'{"jsonrpc":"2.0","method":"notifications/x","params":{"_meta":{"%b":%b}}}'
        % (SUBSCRIPTION.encode(), mark)
    )
    assert [owner.told for owner in owners] == [[], [], []]


def test_a_listen_cancelled_by_the_server_has_a_result_and_is_forgotten() -> None:
    bench = Bench(modern=True)
    listen, call = bench.call(3, "subscriptions/listen"), bench.call(4)
    for raw_id in (b"4", b'"3"', b"9", b"null", b"3"):
        bench.notify(
            b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%b}}'
            % raw_id
        )
    ((message, upstream_id),) = listen.answers
    assert upstream_id == 3
    assert json.loads(message) == {
        "jsonrpc": "2.0",
        "id": 3,
        "result": {"resultType": "complete", "_meta": {SUBSCRIPTION: "c"}},
    }
    assert call.answers == []
    assert list(bench.inflight) == [4]


@pytest.mark.parametrize(
    "text",
    [
        b'{"jsonrpc":"2.0","id":3,"error":{"code":1,"message":""}}',
        b'{"jsonrpc":"2.0","id":3,"result":{}}',
        b'{"jsonrpc":"2.0","id":3,"result":[]}',
        b'{"jsonrpc":"2.0","id":3,"result":{"_meta":{}}}',
        b'{"jsonrpc":"2.0","id":3,"result":{"_meta":null}}',
    ],
)
def test_a_listen_s_outcome_without_its_id_stays_as_it_is(text: bytes) -> None:
    entry = InFlight(3, Call("subscriptions/listen", b"1"), Owner())
    assert own_result(entry, text, decode_incoming(text)) is text


def test_the_result_of_any_other_call_is_not_touched() -> None:
    text = b'{"jsonrpc":"2.0","id":3,"result":{"_meta":{"%b":3}}}' % SUBSCRIPTION.encode()
    call, listen = (
        InFlight(3, Call(method, b'"1"'), Owner())
        for method in ("tools/call", "subscriptions/listen")
    )
    assert own_result(call, text, decode_incoming(text)) is text
    assert own_result(listen, text, decode_incoming(text)) == text.replace(b":3}}", b':"1"}}')


def test_log_messages_reach_a_stateless_call_only_if_no_other_is_meant() -> None:
    bench = Bench(modern=True)
    note = b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}'
    wanting = bench.call(1, log_level=b'"debug"')
    bench.notify(note)
    assert wanting.told == [note]
    second = bench.call(2, log_level=b'"error"')
    bench.notify(note)
    assert len(wanting.told) == 1
    assert second.told == bench.audience.told == []


def test_log_messages_that_may_be_about_a_call_that_wants_none_reach_nobody() -> None:
    bench = Bench(modern=True)
    note = b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}'
    quiet = bench.call(1)
    bench.notify(note)
    wanting = bench.call(2, log_level=b'"debug"')
    bench.notify(note)
    assert quiet.told == wanting.told == bench.audience.told == []


def test_log_messages_of_a_task_are_not_about_a_stateless_call() -> None:
    bench = Bench(modern=True)
    wanting = bench.call(1, log_level=b'"debug"')
    bench.notify(PROGRESS.replace(b"/progress", b"/message"))
    assert wanting.told == []


@pytest.mark.parametrize("log_level", [None, b'"error"'])
def test_log_messages_may_be_about_a_call_that_was_given_up(log_level: bytes | None) -> None:
    bench = Bench(modern=True)
    note = b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}'
    bench.call(1, log_level=log_level, whose="bob")
    bench.withdraw(1)
    wanting = bench.call(2, log_level=b'"debug"')
    own = bench.call(3, "subscriptions/listen", whose="bob")
    bench.notify(note)
    assert wanting.told == own.told == []
    bench.unasked.stray(answer(b'"result":{}'))
    bench.notify(note)
    assert wanting.told == [note]


def test_a_subscription_that_was_given_up_is_not_meant() -> None:
    bench = Bench(modern=True)
    note = b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}'
    bench.call(1, "subscriptions/listen", whose="bob")
    bench.withdraw(1)
    wanting = bench.call(2, log_level=b'"debug"')
    bench.notify(note)
    assert wanting.told == [note]


def test_progress_of_a_task_whose_call_is_over_goes_to_the_audience() -> None:
    for bench, told in ((Bench(), [PROGRESS]), (Bench(modern=True), [])):
        bench.notify(PROGRESS)
        assert bench.audience.told == told
    bench = Bench()
    owner, quiet = bench.call(7, progress_token=b"1"), bench.call(8)
    bench.notify(PROGRESS)
    bench.notify(PROGRESS.replace(b"7", b"8"))
    assert (len(owner.told), quiet.told, bench.audience.told) == (1, [], [])
    Bench(attended=False).notify(PROGRESS)


@pytest.mark.parametrize(
    "params",
    [
        b'{"taskId":"t"}',
        b'{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"}}}',
        b'{"_meta":{"io.modelcontextprotocol/related-task":7}}',
        b'{"_meta":{"io.modelcontextprotocol\\/related\\u002dtask":{"taskId":"t"}}}',
    ],
)
def test_on_a_call_s_stream_what_names_a_task_is_not_about_the_call(params: bytes) -> None:
    method = b"tasks/status" if params.startswith(b'{"taskId"') else b"message"
    note = b'{"jsonrpc":"2.0","method":"notifications/%b","params":%b}' % (method, params)
    for shared in (True, False):
        bench = Bench()
        bench.unasked.shared = shared
        owner = bench.call(1)
        bench.unasked.came_with(bench.inflight[1], decode_incoming(note), note)
        assert (owner.told, bench.audience.told) == (([], [note]) if shared else ([note], []))


@pytest.mark.parametrize(
    ("method", "about_the_call"),
    [
        ("message", True),
        ("vendor", True),
        ("tools/list_changed", False),
        ("resources/updated", False),
        ("elicitation/complete", False),
    ],
)
def test_on_a_call_s_stream_of_a_shared_session(method: str, about_the_call: bool) -> None:
    bench = Bench()
    bench.unasked.shared = True
    owner = bench.call(1)
    for params in (b"", b',"params":[]', b',"params":{"_meta":7}', b',"params":{"taskId":"t"}'):
        note = b'{"jsonrpc":"2.0","method":"notifications/%b"%b}' % (method.encode(), params)
        bench.unasked.came_with(bench.inflight[1], decode_incoming(note), note)
    assert len(owner.told) == (4 if about_the_call else 0)
    assert len(bench.audience.told) == (0 if about_the_call else 4)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (b'"result":{"a":1}', {"result": {"a": 1}}),
        (b'"result":null', {"result": None}),
        (b'"error":{"code":-1,"message":"m"}', {"error": {"code": -1, "message": "m"}}),
        (b'"result":{},"error":{}', {"error": {"code": -32603}}),
        (b'"x":1', {"error": {"code": -32603}}),
    ],
)
def test_a_question_is_answered_once_and_always(given: bytes, sent: dict[str, Any]) -> None:
    bench = Bench()
    bench.ask(b'"q"')
    (question,) = bench.audience.questions
    question.answer(answer(given))
    question.answer(answer(b'"result":2'))
    question.refuse(1, "late")
    (only,) = bench.sent
    if "error" in only:
        only["error"] = {name: only["error"][name] for name in sent["error"]}
    assert only == {"jsonrpc": "2.0", "id": "q", **sent}


def test_a_question_is_not_answered_in_another_s_name() -> None:
    bench = Bench()
    bench.ask(b"1")
    bench.ask(b'"1"')
    bench.ask(b"1")
    first, second = bench.audience.questions
    second.refuse(-1, "no")
    assert [message["id"] for message in bench.sent] == ["1"]
    first.answer(answer(b'"result":{}'))
    bench.ask(b"1")
    first.refuse(-1, "this one had its answer")
    assert [message["id"] for message in bench.sent] == ["1", 1]
    assert len(bench.audience.questions) == 3


def test_a_question_without_a_usable_id_is_none() -> None:
    bench = Bench()
    bench.ask(b"null")
    assert bench.audience.questions == bench.sent == []


def test_questions_are_bounded() -> None:
    bench = Bench()
    for number in range(MAX_OPEN + 1):
        bench.ask(b"%d" % number)
    assert len(bench.audience.questions) == MAX_OPEN
    assert [message["id"] for message in bench.sent] == [MAX_OPEN]
    bench.audience.questions[0].refuse(-1, "no")
    bench.ask(b'"again"')
    assert len(bench.audience.questions) == MAX_OPEN + 1


def test_a_question_called_off_or_of_a_server_that_is_gone_is_dead() -> None:
    bench = Bench()
    cancelled = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%b}}'
    bench.ask(b"1")
    bench.ask(b"2")
    for raw_id in (b'"1"', b"9", b"null", b"1", b"1"):
        bench.notify(cancelled % raw_id)
    assert bench.audience.told == [cancelled % b"1"]
    bench.unasked.questions.void()
    for question in bench.audience.questions:
        question.answer(answer(b'"result":{}'))
    assert bench.sent == []


def test_without_an_audience_ping_alone_is_granted() -> None:
    bench = Bench(attended=False)
    bench.ask(b"1", "ping")
    bench.ask(b"2")
    bench.ask(b"3", "ping", room=False)
    assert [("result" in message, message["id"]) for message in bench.sent] == [
        (True, 1),
        (False, 2),
    ]


def test_a_stateless_server_has_no_requests() -> None:
    bench = Bench(modern=True)
    bench.ask(b"1", "ping")
    bench.ask(b"2", "sampling/createMessage")
    assert bench.sent == bench.audience.questions == []
