"""What real servers over stdio send of themselves, and whom it reaches."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from msgspec import Raw

from open_mcp_gateway.errors import UpstreamBroken
from open_mcp_gateway.outbound.inflight import InFlight
from open_mcp_gateway.outbound.peer import Manner, Question, Ticket
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming, Params, decode_incoming
from open_mcp_gateway.protocol.mirrored import NOTHING, Fields, Mirrored
from tests.process.stdio_peers import TALKER, Caller, entry_of, peer_of, permit_of, tool_params

pytestmark = pytest.mark.anyio

ASKING = Manner(
    era=Era.LEGACY, version="2025-06-18", capabilities=b'{"elicitation":{},"roots":{}}', owner="s"
)
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


class Hearing:
    """An Audience that can be awaited."""

    def __init__(self) -> None:
        self.notes: list[Any] = []
        self.questions: list[Question] = []
        self._heard = anyio.Event()

    def notified(self, message: bytes, incoming: Incoming) -> None:
        note = json.loads(message)
        assert note["method"] == incoming.method
        self.notes.append(note)
        self._heard.set()

    def asked(self, question: Question) -> None:
        self.questions.append(question)
        self._heard.set()

    async def until(self, notes: int = 0, questions: int = 0) -> None:
        with anyio.fail_after(60):
            while len(self.notes) < notes or len(self.questions) < questions:
                self._heard = anyio.Event()
                await self._heard.wait()


@asynccontextmanager
async def talking(mode: str, manner: Manner | None = None) -> AsyncIterator[tuple[Caller, Hearing]]:
    wanted = manner or Manner(era=Era.LEGACY if mode == "legacy" else Era.MODERN)
    async with peer_of(entry_of(mode, server=TALKER), manner=wanted) as caller:
        hearing = Hearing()
        caller.peer.attend(hearing)
        yield caller, hearing


def tool(name: str, token: bytes | None = None, **arguments: object) -> Call:
    params = tool_params(name, **arguments)
    raw = None if token is None else Raw(token)
    return Call("tools/call", b'"caller"', params, progress_token=raw)


def listen_call(raw_id: bytes, **wanted: object) -> Call:
    params: Params = {"notifications": Raw(json.dumps(wanted).encode())}
    return Call("subscriptions/listen", raw_id, params)


def upstream_id(ticket: Ticket) -> int:
    assert isinstance(ticket, InFlight)
    return ticket.id


# Progress


@pytest.mark.parametrize("mode", ["legacy", "modern"])
async def test_progress_of_two_calls_goes_to_each_under_its_own_token(mode: str) -> None:
    async with talking(mode) as (caller, hearing):
        # The callers' tokens are alike but for their type, and like ids of the gateway's.
        first, _ = caller.send(tool("gated_progress", b"2", gate="a"))
        second, _ = caller.send(tool("gated_progress", b'"2"', gate="b"))
        for waiter, token, gate in ((first, 2, "a"), (second, "2", "b")):
            params = {"progressToken": token, "progress": 1, "message": gate}
            assert (await waiter.note())["params"] == params
        await caller.tool("open", gate="b").wait()
        assert (await second.note())["params"]["progressToken"] == "2"
        assert (await second.wait()).text == "b"
        assert first.notes == second.notes == []
        await caller.tool("open", gate="a").wait()
        assert (await first.note())["params"] == {
            "progressToken": 2,
            "progress": 2,
            "message": "a",
        }
        assert (await first.wait()).text == "a"
        assert hearing.notes == []


@pytest.mark.parametrize("mode", ["legacy", "modern"])
async def test_progress_after_the_answer_or_of_no_call_reaches_nobody(mode: str) -> None:
    async with talking(mode) as (caller, hearing):
        early, _ = caller.send(tool("late_progress", b"1"))
        assert (await early.wait()).text == "early"
        other, _ = caller.send(tool("gated_progress", b"7", gate="a"))
        for token in (7, "7", "", -1, 10**30, caller.peer.inflight + 100):
            await caller.tool("foreign_progress", token=token).wait()
        # Under the id of a call that did not ask for progress:
        quiet, ticket = caller.send(tool("gated_progress", gate="b"))
        await caller.tool("foreign_progress", token=upstream_id(ticket)).wait()
        assert [len(waiter.notes) for waiter in (early, other, quiet)] == [1, 1, 0]
        assert hearing.notes == []


@pytest.mark.parametrize("mode", ["legacy", "modern"])
async def test_who_asks_for_no_progress_gets_none_and_vendor_members_pass(mode: str) -> None:
    async with talking(mode) as (caller, _):
        outcome = await caller.tool("progress").wait()
        assert (outcome.text, outcome.notes) == ("done", [])
        params = tool_params("meta") | {"_meta": Raw(b'{"vendor/x": [1.0]}')}
        with_token = Call("tools/call", b"1", params, progress_token=Raw(b'"t"'))
        outcome, ticket = caller.send(with_token)
        meta = json.loads((await outcome.wait()).text)
        assert meta["vendor/x"] == [1.0]
        assert meta["progressToken"] == upstream_id(ticket)


# Questions


@pytest.mark.parametrize("server_id", [1, "1", 0, -5, "q-é", 2**70])
async def test_an_answer_goes_back_under_the_server_s_own_id(server_id: int | str) -> None:
    async with talking("legacy", ASKING) as (caller, hearing):
        outcome = caller.tool("ask", method="roots/list", id=server_id)
        await hearing.until(questions=1)
        (question,) = hearing.questions
        assert (question.method, json.loads(question.raw_id)) == ("roots/list", server_id)
        result = b'{"roots":[ {"uri":"file:///\xc3\xa9","x":1.0} ]}'
        question.answer(decode_incoming(b'{"jsonrpc":"2.0","id":5,"result":%b}' % result))
        question.refuse(-1, "too late")
        answer = json.loads((await outcome.wait()).text)
        assert answer == {"jsonrpc": "2.0", "id": server_id, "result": json.loads(result)}
        assert len((await caller.ask("test/seen"))["seen"]) == 2, "initialized and one answer"


async def test_the_client_s_error_is_the_server_s_answer_and_params_pass() -> None:
    async with talking("legacy", ASKING) as (caller, hearing):
        form = {"message": "é", "requestedSchema": {"type": "object"}, "x": [1.0]}
        outcome = caller.tool("ask", method="elicitation/create", params=form, id="e")
        await hearing.until(questions=1)
        params = hearing.questions[0].params
        assert isinstance(params, Raw)
        assert json.loads(bytes(params)) == form
        error = {"code": -1, "message": "no", "data": {"why": "user"}}
        raw = json.dumps({"jsonrpc": "2.0", "id": 5, "error": error}).encode()
        hearing.questions[0].answer(decode_incoming(raw))
        answer = json.loads((await outcome.wait()).text)
        assert (answer["id"], answer["error"]) == ("e", error)


async def test_questions_without_an_audience_are_refused() -> None:
    async with peer_of(entry_of("legacy", server=TALKER)) as caller:
        outcome = await caller.tool("ask", method="sampling/createMessage", id="s").wait()
        assert json.loads(outcome.text)["error"]["code"] == -32601


async def test_ping_is_answered_whoever_attends() -> None:
    async with talking("legacy", ASKING) as (caller, hearing):
        outcome = await caller.tool("ask", method="ping", id="p").wait()
        assert json.loads(outcome.text) == {"jsonrpc": "2.0", "id": "p", "result": {}}
        assert hearing.questions == []


async def test_a_question_called_off_needs_no_answer_and_the_audience_hears_of_it() -> None:
    async with talking("legacy", ASKING) as (caller, hearing):
        await caller.tool("withdraw", method="roots/list", id="w").wait()
        (question,) = hearing.questions
        (note,) = hearing.notes
        assert note["method"] == "notifications/cancelled"
        assert note["params"]["requestId"] == json.loads(question.raw_id) == "w"
        question.answer(decode_incoming(b'{"jsonrpc":"2.0","id":1,"result":{}}'))
        assert [message.get("id") for message in (await caller.ask("test/seen"))["seen"]] == [None]


async def test_a_question_of_a_server_that_died_can_still_be_answered_in_vain() -> None:
    async with talking("legacy", ASKING) as (caller, hearing):
        asking = caller.tool("ask", method="roots/list", id="q")
        await hearing.until(questions=1)
        caller.tool("exit")
        assert isinstance((await asking.wait()).failure, UpstreamBroken)
        hearing.questions[0].answer(decode_incoming(b'{"jsonrpc":"2.0","id":1,"result":{}}'))
        hearing.questions[0].refuse(-1, "gone")


async def test_a_session_is_opened_with_its_client_s_version_and_capabilities() -> None:
    async with talking("legacy", ASKING) as (caller, _):
        client = (await caller.ask("test/client"))["client"]
        assert client["protocolVersion"] == "2025-06-18"
        assert client["capabilities"] == {"elicitation": {}, "roots": {}}
        assert client["clientInfo"]["name"] == "open-mcp-gateway"


# What belongs to no call, in the session era


async def test_what_belongs_to_no_call_goes_to_the_audience_as_it_was_sent() -> None:
    async with talking("legacy") as (caller, hearing):
        outcome = await caller.tool("log", level="info", data={"a": 1.0}).wait()
        await caller.begin("resources/subscribe", {"uri": Raw(b'"test://a"')})[0].wait()
        await caller.tool("touch", uri="test://a").wait()
        await caller.tool("change_list", kind="prompts").wait()
        await caller.tool("notify", method="notifications/vendor/x").wait()
        assert outcome.notes == []
        assert [note["method"] for note in hearing.notes] == [
            "notifications/message",
            "notifications/resources/updated",
            "notifications/prompts/list_changed",
            "notifications/vendor/x",
        ]
        assert hearing.notes[0]["params"] == {"level": "info", "logger": "test", "data": {"a": 1.0}}


# Stateless requests


async def test_a_stateless_call_tells_its_own_capabilities_and_wishes() -> None:
    async with talking("modern") as (caller, _):
        call = Call(
            "tools/call",
            b"1",
            tool_params("meta"),
            progress_token=Raw(b'"t"'),
            capabilities=b'{"elicitation":{"form":{}}}',
            log_level=Raw(b'"debug"'),
        )
        outcome, ticket = caller.send(call)
        meta = json.loads((await outcome.wait()).text)
        name = meta.pop("io.modelcontextprotocol/clientInfo")["name"]
        assert name == "open-mcp-gateway"
        assert meta == {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}},
            "io.modelcontextprotocol/logLevel": "debug",
            "progressToken": upstream_id(ticket),
        }
        plain = json.loads((await caller.tool("meta").wait()).text)
        assert plain["io.modelcontextprotocol/clientCapabilities"] == {}
        assert len(plain) == 3


async def test_log_messages_go_to_the_one_call_that_asked_for_some() -> None:
    async with talking("modern") as (caller, hearing):
        logging = Call(
            "tools/call", b"1", tool_params("log", level="info", data=1), log_level=Raw(b'"info"')
        )
        listening, _ = caller.send(listen_call(b"1", toolsListChanged=True), within_s=math.inf)
        await listening.note()
        outcome = await caller.send(logging)[0].wait()
        (note,) = outcome.notes
        assert note["params"] == {"level": "info", "logger": "test", "data": 1}
        # With another in flight it could be about that one, whatever that asked for.
        quiet = caller.tool("gated_progress", gate="a")
        assert (await caller.send(logging)[0].wait()).notes == []
        # Two that asked: it could be about either, so neither hears of it.
        second = Call(
            "tools/call", b"2", tool_params("gated_progress", gate="b"), log_level=Raw(b'"info"')
        )
        other, _ = caller.send(second)
        assert (await caller.send(logging)[0].wait()).notes == []
        assert quiet.notes == other.notes == hearing.notes == []


async def test_what_a_stateless_server_sends_to_nobody_reaches_nobody() -> None:
    async with talking("modern") as (caller, hearing):
        await caller.tool("notify", method="notifications/tools/list_changed").wait()
        assert hearing.notes == hearing.questions == []


@pytest.mark.parametrize("raw_id", [b"1", b'"1"', b'"l-\\u00e9"', b"-7"])
async def test_each_listener_hears_what_it_asked_for_under_its_own_id(raw_id: bytes) -> None:
    async with talking("modern") as (caller, hearing):
        uri = "test://a"
        mine, _ = caller.send(listen_call(raw_id, resourceSubscriptions=[uri]), within_s=math.inf)
        other, _ = caller.send(listen_call(b"1", toolsListChanged=True), within_s=math.inf)
        acknowledged = await mine.note()
        assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
        assert acknowledged["params"]["notifications"] == {"resourceSubscriptions": [uri]}
        assert acknowledged["params"]["_meta"] == {SUBSCRIPTION: json.loads(raw_id)}
        assert type(acknowledged["params"]["_meta"][SUBSCRIPTION]) is type(json.loads(raw_id))
        await caller.tool("touch", uri=uri).wait()
        assert await mine.note() == {
            "jsonrpc": "2.0",
            "method": "notifications/resources/updated",
            "params": {"uri": uri, "_meta": {SUBSCRIPTION: json.loads(raw_id)}},
        }
        await caller.tool("change_list").wait()
        heard = [(await other.note())["params"]["_meta"] for _ in range(2)]
        assert heard == [{SUBSCRIPTION: 1}, {SUBSCRIPTION: 1}]
        assert mine.notes == other.notes == hearing.notes == []


@pytest.mark.parametrize(
    "how", [["response"], ["cancelled"], ["response", "cancelled"], ["cancelled", "response"]]
)
async def test_a_listen_that_the_server_ends_has_one_result(how: list[str]) -> None:
    async with talking("modern") as (caller, _):
        listening = listen_call(b'"l"', toolsListChanged=True)
        outcome, ticket = caller.send(listening, within_s=math.inf)
        await caller.tool("end_listens", how=how).wait()
        await outcome.wait()
        assert outcome.times == 1
        assert outcome.upstream_id == outcome.answer["id"] == upstream_id(ticket)
        assert outcome.answer["result"] == {
            "resultType": "complete",
            "_meta": {SUBSCRIPTION: "l"},
        }
        assert caller.peer.inflight == 0


async def test_a_listen_that_the_client_ends_is_cancelled_at_the_server() -> None:
    async with talking("modern") as (caller, _):
        outcome, ticket = caller.send(listen_call(b"1", toolsListChanged=True), within_s=math.inf)
        await outcome.note()
        ticket.cancel("client left")
        await caller.tool("change_list").wait()
        (seen,) = (await caller.ask("test/seen"))["seen"]
        assert seen["method"] == "notifications/cancelled"
        assert seen["params"]["requestId"] == upstream_id(ticket)
        assert (outcome.times, outcome.notes) == (0, [])


async def test_a_server_cannot_cancel_a_call_that_is_no_listen() -> None:
    async with talking("modern") as (caller, _):
        outcome, ticket = caller.send(tool("gated_progress", gate="a"))
        params = {"requestId": upstream_id(ticket)}
        await caller.tool("notify", method="notifications/cancelled", params=params).wait()
        await caller.tool("open", gate="a").wait()
        assert (await outcome.wait()).text == "a"


async def test_a_question_in_a_result_passes_through() -> None:
    async with talking("modern") as (caller, _):
        outcome = await caller.tool("needs_input").wait()
        result = outcome.answer["result"]
        assert result["resultType"] == "input_required"
        again = tool_params("needs_input") | {
            "inputResponses": Raw(b'{"user_name":{"action":"accept","content":{"name":"x"}}}'),
            "requestState": Raw(json.dumps(result["requestState"]).encode()),
        }
        retried = await caller.begin("tools/call", again)[0].wait()
        assert json.loads(retried.text)["requestState"] == "s-1"


@pytest.mark.parametrize(("mode", "known"), [("legacy", False), ("modern", True)])
async def test_what_a_stateless_server_s_tools_want_repeated_is_known_once_listed(
    mode: str, known: bool
) -> None:
    async with talking(mode) as (caller, _):
        assert caller.peer.mirrored("mirrored") is None
        await caller.ask("tools/list")
        repeated = caller.peer.mirrored("mirrored")
        assert repeated == ((Mirrored(("text",), "Text", "string"),) if known else None)
        assert caller.peer.mirrored("echo") == (NOTHING if known else None)
        assert caller.peer.mirrored("no_such_tool") is None


@pytest.mark.parametrize(("mode", "known"), [("legacy", False), ("modern", True)])
async def test_the_schemas_can_be_waited_for(mode: str, known: bool) -> None:
    async with talking(mode) as (caller, _):
        listed = [anyio.Event() for _ in range(3)]
        assert [caller.peer.wait_for_tools(one.set) for one in listed] == [known] * 3
        assert not any(one.is_set() for one in listed)
        with anyio.fail_after(60):
            for one in listed if known else ():
                await one.wait()
        assert (caller.peer.mirrored("echo") is not None) is known
        assert not caller.peer.wait_for_tools(listed[0].set)


@pytest.mark.parametrize("by_client", [False, True])
async def test_a_change_of_the_tools_is_looked_at(*, by_client: bool) -> None:
    async with talking("modern") as (caller, _):
        caller.send(listen_call(b"1", toolsListChanged=True), within_s=math.inf)
        assert await annotated(caller, "Early") is None  # nobody has asked for any tool yet
        listed = anyio.Event()
        if by_client:
            await caller.ask("tools/list")
        else:
            assert caller.peer.wait_for_tools(listed.set)
            with anyio.fail_after(20):
                await listed.wait()
        for header in ("Zone", "Land"):
            known = caller.peer.mirrored("regional")
            await annotated(caller, header)
            with anyio.fail_after(20):
                while caller.peer.mirrored("regional") == known:
                    await caller.ask("test/seen")
            assert caller.peer.mirrored("regional") == (Mirrored(("region",), header, "string"),)


async def annotated(caller: Caller, header: str) -> Fields | None:
    """Has the tool want another header; what is known of it then."""
    assert (await caller.tool("annotate", header=header).wait()).text == "changed"
    return caller.peer.mirrored("regional")


async def test_nobody_waits_for_the_schemas_of_a_server_that_is_gone() -> None:
    async with talking("modern") as (caller, _):
        late = anyio.Event()
        assert caller.peer.wait_for_tools(late.set)
        await caller.peer.aclose()
        with anyio.fail_after(60):
            await late.wait()


async def test_the_audience_can_be_found_again() -> None:
    async with peer_of(entry_of("legacy", server=TALKER)) as caller:
        before = caller.peer.audience
        hearing = Hearing()
        caller.peer.attend(hearing)
        assert (before, caller.peer.audience) == (None, hearing)


async def test_notifications_of_the_client_pass() -> None:
    entry = entry_of("legacy", server=TALKER)
    async with peer_of(entry) as caller:
        changed = Call("notifications/roots/list_changed", None)
        caller.peer.notify(permit_of(entry), changed)
        seen = (await caller.ask("test/seen"))["seen"]
        assert seen[-1] == {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}
