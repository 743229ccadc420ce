"""What ``gateway-stdio`` carries in each era beside calls and answers, in both its modes."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import yaml

from tests.process.stdio_peers import TALKER
from tests.process.stdio_program import (
    CAPABILITIES,
    STATELESS,
    VERSION,
    Json,
    Program,
    line_of,
    run_stdio,
)
from tests.process.talk import KEY, Running, entry, odd_server, run_gateway, wait_until

MODERN = "2026-07-28"
SESSIONS = "2025-11-25"
BATCHES = "2025-03-26"
ENV = {"MCP_GATEWAY_API_KEY": KEY}
META = STATELESS["_meta"]
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
LOG_LEVEL = "io.modelcontextprotocol/logLevel"

Start = Callable[..., AbstractContextManager[Program]]
"""``gateway-stdio`` for one server, in the mode under test."""


def talker(mode: str, **env: str) -> Json:
    return entry(mode, [sys.executable, "-S", str(TALKER), mode], env=env)


SERVERS = [
    talker("legacy"),
    talker("modern"),
    talker("dual"),
    odd_server("echo"),
    odd_server("echo_modern"),
    odd_server("never_answers"),
    odd_server("crash_at_start"),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with run_gateway(tmp_path_factory.mktemp("face"), SERVERS) as gateway:
        yield gateway


@pytest.fixture(params=["catalog", "gateway"])
def start(request: pytest.FixtureRequest, running: Running) -> Start:
    if request.param == "gateway":
        where = ["--gateway", running.gateway.url]
    else:
        where = ["--catalog", str(running.gateway.catalog_path)]

    def begin(server: str) -> AbstractContextManager[Program]:
        return run_stdio("--server", server, *where, env=ENV)

    return begin


def initialize(program: Program, version: str = SESSIONS, **capabilities: Json) -> Json:
    """Open a session; gives the server's result."""
    params = {
        "protocolVersion": version,
        "capabilities": capabilities,
        "clientInfo": {"name": "test", "version": "1"},
    }
    result: Json = program.ask("initialize", params, "init")["result"]
    program.notify("notifications/initialized")
    return result


def stateless(tool: str, meta: Json | None = None, **arguments: object) -> Json:
    """The params of a stateless call of a tool."""
    return {"name": tool, "arguments": arguments, "_meta": META | (meta or {})}


def text_of(message: Json) -> str:
    text: str = message["result"]["content"][0]["text"]
    return text


def until_answer(program: Program, id: object) -> tuple[list[Json], Json]:
    """What comes before the answer to ``id``, and that."""
    before: list[Json] = []
    while (message := program.receive()).get("id") != id or "method" in message:
        before.append(message)
    return before, message


# The era of the connection


@pytest.mark.parametrize("version", ["2024-11-05", BATCHES, "2025-06-18", SESSIONS])
def test_a_session_in_each_revision(start: Start, version: str) -> None:
    with start("legacy") as program:
        result = initialize(program, version)
        assert result["protocolVersion"] == version
        assert result["serverInfo"]["name"] == "test-talker"
        assert program.ask("ping")["result"] == {}
        program.call("echo", text="hello")
        assert text_of(program.receive()) == "hello"
        assert program.close() == 0


def test_a_session_takes_no_stateless_request(start: Start) -> None:
    with start("dual") as program:
        initialize(program)
        error = program.error("tools/list", STATELESS)
        assert error["code"] == -32600
        assert "initialize" in error["message"]
        assert "result" in program.ask("tools/list", id=2)
        assert program.error("initialize", {"protocolVersion": SESSIONS}, id=3)["code"] == -32600


def test_a_stateless_connection_takes_no_session(start: Start) -> None:
    with start("dual") as program:
        assert program.ask("server/discover", STATELESS)["result"]["supportedVersions"] == [MODERN]
        error = program.error("initialize", {"protocolVersion": SESSIONS}, id=2)
        assert error["code"] == -32022
        assert error["data"] == {"supported": [MODERN], "requested": SESSIONS}
        assert program.error("tools/list", id=3)["code"] == -32602  # names no revision
        assert program.error("ping", STATELESS, id=4)["code"] == -32601
        assert "result" in program.ask("tools/list", STATELESS, id=5)
        assert program.close() == 0


def test_a_client_of_both_eras_falls_back(start: Start) -> None:
    with start("legacy") as program:
        error = program.error("server/discover", STATELESS)
        assert error["code"] == -32022
        assert error["data"]["requested"] == MODERN
        assert SESSIONS in error["data"]["supported"]
        assert MODERN not in error["data"]["supported"]
        assert initialize(program)["protocolVersion"] == SESSIONS
        assert program.error("tools/list", STATELESS, id=2)["code"] == -32600


def test_a_session_with_a_server_that_knows_none(start: Start) -> None:
    with start("modern") as program:
        error = program.error("initialize", {"protocolVersion": SESSIONS})
        assert error["code"] == -32602
        assert error["message"] == "Unsupported protocol version"
        assert error["data"] == {"supported": [MODERN], "requested": SESSIONS}
        assert "result" in program.ask("server/discover", STATELESS, id=2)
        assert program.close() == 0


def test_a_revision_that_is_unknown_decides_nothing(start: Start) -> None:
    future = {"_meta": {VERSION: "2099-01-01", CAPABILITIES: {}}}
    with start("dual") as program:
        error = program.error("server/discover", future)
        assert error["code"] == -32022
        assert error["data"] == {"supported": [MODERN], "requested": "2099-01-01"}
        assert program.error("tools/list", {"_meta": {VERSION: MODERN}}, id=2)["code"] == -32602
        assert initialize(program)["protocolVersion"] == SESSIONS


def test_a_failed_opening_decides_nothing(start: Start) -> None:
    with start("crash_at_start") as program:
        assert program.error("initialize", {"protocolVersion": SESSIONS})["code"] == -32002
        error = program.error("server/discover", STATELESS, id=2)
        assert error["code"] == -32603
        assert error["data"]["code"] == -32002
        assert program.error("initialize", {"protocolVersion": SESSIONS}, id=3)["code"] == -32002


def test_what_follows_an_opening_waits_for_it(start: Start) -> None:
    """As when lines are piped in from a file."""
    hello = line_of("initialize", {"protocolVersion": SESSIONS, "capabilities": {}}, 1)
    ready = b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
    with start("legacy") as program:
        program.write(hello + ready + line_of("tools/list", None, 2) + line_of("ping", None, 3))
        program.stdin.close()
        answers = [program.receive() for _ in range(3)]
        assert answers[0]["id"] == 1
        assert {answer["id"] for answer in answers} == {1, 2, 3}
        assert all("result" in answer for answer in answers)
        assert program.ended() == 0


def test_requests_before_an_opening_decide_nothing(start: Start) -> None:
    with start("dual") as program:
        assert "result" in program.ask("tools/list")
        assert "result" in program.ask("server/discover", STATELESS, id=2)
        assert program.error("tools/list", id=3)["code"] == -32602


# Sessions: what a server sends of itself


def test_progress_carries_the_clients_own_token(start: Start) -> None:
    with start("legacy") as program:
        initialize(program)
        params = {"name": "progress", "arguments": {"steps": 2}, "_meta": {"progressToken": "mine"}}
        program.send("tools/call", params, "p")
        notes, answer = until_answer(program, "p")
        assert [note["method"] for note in notes] == ["notifications/progress"] * 2
        assert {note["params"]["progressToken"] for note in notes} == {"mine"}
        assert text_of(answer) == "done"


def test_a_question_goes_to_the_client_and_its_answer_back(start: Start) -> None:
    with start("legacy") as program:
        initialize(program, elicitation={}, sampling={})
        form = {"message": "Your name?", "requestedSchema": {"type": "object"}}
        program.call("ask", id=7, method="elicitation/create", params=form)
        question = program.receive()
        assert question["method"] == "elicitation/create"
        assert question["params"] == form
        result = {"action": "accept", "content": {"name": "Ada"}}
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": result}
        program.write(json.dumps(answer).encode() + b"\n")
        told = json.loads(text_of(program.receive()))
        assert told["result"] == result

        program.call("ask", id=8, method="sampling/createMessage", params={"messages": []})
        question = program.receive()
        refused = {"code": -1, "message": "User rejected"}
        answer = {"jsonrpc": "2.0", "id": question["id"], "error": refused}
        program.write(json.dumps(answer).encode() + b"\n")
        assert json.loads(text_of(program.receive()))["error"] == refused


def test_a_question_that_is_called_off(start: Start) -> None:
    with start("legacy") as program:
        initialize(program, roots={})
        program.call("withdraw", id=7, method="roots/list")
        before, _ = until_answer(program, 7)
        if not before:  # over HTTP they come on streams of their own
            before = [program.receive()]
        if len(before) == 1:
            before.append(program.receive())
        question, cancelled = before
        assert question["method"] == "roots/list"
        assert cancelled["method"] == "notifications/cancelled"
        assert cancelled["params"]["requestId"] == question["id"]


def test_log_messages_and_their_level(start: Start) -> None:
    with start("legacy") as program:
        initialize(program, roots={})
        assert program.ask("logging/setLevel", {"level": "warning"})["result"] == {}
        program.call("log", id=2, level="error", data={"n": 1})
        before, _ = until_answer(program, 2)
        note = before[0] if before else program.receive()
        assert note["method"] == "notifications/message"
        assert note["params"] == {"level": "error", "logger": "test", "data": {"n": 1}}


def test_changes_that_a_session_hears_of(start: Start) -> None:
    with start("legacy") as program:
        initialize(program)
        uri = "test://one"
        assert program.ask("resources/subscribe", {"uri": uri})["result"] == {}
        for tool, arguments, method in (
            ("touch", {"uri": uri}, "notifications/resources/updated"),
            ("change_list", {"kind": "tools"}, "notifications/tools/list_changed"),
            ("change_list", {"kind": "prompts"}, "notifications/prompts/list_changed"),
        ):
            program.call(tool, id=tool, **arguments)
            heard = {json.dumps(program.receive().get("method")) for _ in range(2)}
            assert heard == {json.dumps(method), "null"}
        assert program.ask("resources/unsubscribe", {"uri": uri}, id=9)["result"] == {}
        program.call("touch", id=10, uri=uri)
        assert text_of(program.receive()) == "touched"
        assert program.close() == 0


def test_the_end_of_stdin_answers_what_waits_for_the_client(start: Start) -> None:
    with start("legacy") as program:
        initialize(program, elicitation={})
        program.call("ask", id=7, method="elicitation/create", params={})
        assert program.receive()["method"] == "elicitation/create"
        program.stdin.close()
        told = json.loads(text_of(program.receive()))
        assert told["error"]["message"] == "the client is gone"
        assert program.ended() == 0


def test_cancelling_in_a_session(start: Start) -> None:
    with start("never_answers") as program:
        initialize(program)
        program.call("echo", id="one")
        assert "result" in program.ask("tools/list", id=2)
        program.notify("notifications/cancelled", {"requestId": "one", "reason": "changed my mind"})
        wait_until(lambda: _told_of_a_cancellation(program), "the server was told")
        assert program.close() == 0  # which would wait for a request that is still open


def _told_of_a_cancellation(program: Program) -> bool:
    seen = program.ask("test/seen", id="seen")["result"]["seen"]
    return any(one.get("method") == "notifications/cancelled" for one in seen)


# Batches


def batch(*messages: bytes) -> bytes:
    return b"[" + b",".join(one.strip() for one in messages) + b"]\n"


def test_a_batch_is_answered_by_an_array(start: Start) -> None:
    with start("echo") as program:
        initialize(program, BATCHES)
        note = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
        second = line_of("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}}, "b")
        odd = b'{"jsonrpc":"2.0","id":"c","method":42}'
        program.write(batch(line_of("ping", None, 1), note, second, odd))
        line = program.receive_any()
        assert isinstance(line, list)
        answers = {answer["id"]: answer for answer in line}
        assert answers.keys() == {1, "b", "c"}
        assert answers[1]["result"] == {}
        assert text_of(answers["b"]) == "3"
        assert answers["c"]["error"]["code"] == -32600

        program.write(batch(note))
        assert program.ask("ping", id="after")["result"] == {}  # and nothing before it
        assert program.close() == 0


def test_a_batch_does_not_wait_for_what_was_cancelled(start: Start) -> None:
    with start("never_answers") as program:
        initialize(program, BATCHES)
        doomed = line_of("tools/call", {"name": "echo", "arguments": {}}, "doomed")
        program.write(batch(doomed, line_of("ping", None, 1)))
        program.notify("notifications/cancelled", {"requestId": "doomed"})
        line = program.receive_any()
        assert [answer["id"] for answer in line] == [1]
        assert program.close() == 0


def test_batches_that_are_refused(start: Start) -> None:
    ping = batch(line_of("ping", None, 1))
    with start("echo") as program:
        program.write(ping)
        assert program.receive()["error"]["code"] == -32600  # before any opening
        initialize(program)
        program.write(ping)
        assert "2025-03-26" in program.receive()["error"]["message"]
    with start("echo") as program:
        initialize(program, BATCHES)
        program.write(b"[]\n")
        answer = program.receive()
        assert (answer["id"], answer["error"]["code"]) == (None, -32600)
        program.write(b"[1]\n")
        assert [(one["id"], one["error"]["code"]) for one in program.receive_any()] == [
            (None, -32600)
        ]
        program.write(b"[{]\n")
        assert program.receive()["error"]["code"] == -32700
        hello = line_of("initialize", {"protocolVersion": BATCHES}, 1)
        program.write(batch(hello, line_of("tools/list", STATELESS, 2)))
        codes = {one["id"]: one["error"]["code"] for one in program.receive_any()}
        assert codes == {1: -32600, 2: -32600}


# Stateless requests


def test_a_stateless_call_with_progress_and_log_messages(start: Start) -> None:
    with start("modern") as program:
        wanted = {"progressToken": 5}
        program.send("tools/call", stateless("progress", wanted, steps=2), "p")
        notes, answer = until_answer(program, "p")
        assert [note["params"]["progressToken"] for note in notes] == [5, 5]
        assert answer["result"]["resultType"] == "complete"

        logged = stateless("log", {LOG_LEVEL: "info"}, level="info", data="x")
        program.send("tools/call", logged, "l")
        notes, _ = until_answer(program, "l")
        assert [note["method"] for note in notes] == ["notifications/message"]
        program.send("tools/call", stateless("log", level="info", data="x"), "q")
        assert until_answer(program, "q")[0] == []


def test_more_than_one_round(start: Start) -> None:
    with start("modern") as program:
        asked = program.ask("tools/call", stateless("needs_input"))["result"]
        assert asked["resultType"] == "input_required"
        reply = {"user_name": {"action": "accept", "content": {"name": "Ada"}}}
        again = stateless("needs_input") | {
            "inputResponses": reply,
            "requestState": asked["requestState"],
        }
        told = json.loads(text_of(program.ask("tools/call", again, id=2)))
        assert told == {"inputResponses": reply, "requestState": "s-1"}


def listen(program: Program, id: object) -> None:
    """Subscribe to changes of the tools, up to the acknowledgement."""
    program.send(
        "subscriptions/listen", STATELESS | {"notifications": {"toolsListChanged": True}}, id
    )
    acknowledged = program.receive()
    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert acknowledged["params"]["notifications"] == {"toolsListChanged": True}
    assert acknowledged["params"]["_meta"][SUBSCRIPTION] == id


def ends(program: Program, id: object) -> None:
    """The two ways in which the end of a subscription is told."""
    response = program.receive()
    assert response["id"] == id
    assert response["result"]["resultType"] == "complete"
    assert response["result"]["_meta"][SUBSCRIPTION] == id
    cancelled = program.receive()
    assert cancelled["method"] == "notifications/cancelled"
    assert cancelled["params"]["requestId"] == id


def test_a_subscription_from_its_beginning_to_the_servers_end(start: Start) -> None:
    with start("modern") as program:
        listen(program, "sub")
        program.send("tools/call", stateless("change_list"), 2)
        heard = {
            message.get("method"): message for message in (program.receive(), program.receive())
        }
        changed = heard["notifications/tools/list_changed"]
        assert changed["params"]["_meta"][SUBSCRIPTION] == "sub"
        program.send("tools/call", stateless("end_listens"), 3)
        messages = [program.receive() for _ in range(3)]
        assert {"sub", 3} == {one["id"] for one in messages if "id" in one}
        assert messages.index(next(one for one in messages if one.get("id") == "sub")) < 2
        assert any(one.get("params") == {"requestId": "sub"} for one in messages)
        assert program.close() == 0


def test_a_subscription_that_the_client_ends(start: Start) -> None:
    with start("modern") as program:
        listen(program, 1)
        program.notify("notifications/cancelled", {"requestId": 1})
        program.send("tools/call", stateless("change_list"), 2)
        assert program.receive()["id"] == 2
        listen(program, 1)  # the id is free again
        program.stdin.close()
        ends(program, 1)
        assert program.ended() == 0


def test_sigterm_ends_subscriptions_in_order(start: Start) -> None:
    with start("modern") as program:
        listen(program, 1)
        program.process.send_signal(signal.SIGTERM)
        ends(program, 1)
        assert program.ended() == 0


@pytest.mark.parametrize("mode", ["legacy", "modern"])
def test_sigterm_tells_what_became_of_calls(start: Start, mode: str) -> None:
    with start(mode) as program:
        params = {"name": "gated_progress", "arguments": {"gate": "g"}}
        if mode == "legacy":
            initialize(program)
            program.send("tools/call", params, 7)
            program.ask("tools/list", id=2)
        else:
            program.send("tools/call", stateless("gated_progress", gate="g"), 7)
            program.ask("tools/list", STATELESS, id=2)
        program.process.send_signal(signal.SIGTERM)
        error = until_answer(program, 7)[1]["error"]
        assert error["code"] == -32603
        assert "gateway-stdio was told to end; the call may have taken effect" in error["message"]
        assert program.ended() == 0


def test_cancelling_a_stateless_call(start: Start) -> None:
    with start("modern") as program:
        program.send("tools/call", stateless("gated_progress", gate="g"), "one")
        assert "result" in program.ask("tools/list", STATELESS, id=2)
        program.notify("notifications/cancelled", {"requestId": "one"})

        def told() -> bool:
            seen = program.ask("test/seen", STATELESS, id="seen")["result"]["seen"]
            return any(one.get("method") == "notifications/cancelled" for one in seen)

        wait_until(told, "the server was told")
        assert program.close() == 0


# A gateway between


def test_one_session_at_the_gateway_and_none_left(running: Running) -> None:
    """What the client opened there ends with it."""
    options = ("--server", "legacy", "--gateway", running.gateway.url)
    with run_stdio(*options, env=ENV) as program:
        initialize(program, sampling={})
        own = len(running.starts("legacy"))
        program.call("echo", id=1, text="x")
        assert text_of(program.receive()) == "x"
        assert len(running.starts("legacy")) == own
        assert program.close() == 0
    ended = "its client session is over"
    wait_until(
        lambda: any(line.get("reason") == ended for line in running.log("server state changed")),
        "the process of that session ended",
    )


def test_a_key_that_is_taken_away(tmp_path: Path) -> None:
    with run_gateway(tmp_path, [talker("legacy")]) as running:
        options = ("--server", "legacy", "--gateway", running.gateway.url)
        with run_stdio(*options, env=ENV) as program:
            initialize(program)
            config = yaml.safe_load(running.gateway.config_path.read_text("utf-8"))
            other = "test-key-fedcba9876543210"
            running.gateway.config_path.write_text(
                yaml.safe_dump(config | {"api_key": other}), "utf-8"
            )
            wait_until(lambda: running.as_caller(other).get("/servers").status == 200, "the reload")
            error = program.error("tools/list")
            assert error["code"] == -32002
            assert "HTTP 403: Invalid API key" in error["message"]
            assert "check the key in MCP_GATEWAY_API_KEY" in error["message"]
            assert program.close() == 0


@contextmanager
def session_at(running: Running) -> Iterator[Program]:
    options = ("--server", "legacy", "--gateway", running.gateway.url)
    with run_stdio(*options, env=ENV) as program:
        initialize(program)
        yield program


def test_a_gateway_that_restarts_under_a_session(tmp_path: Path) -> None:
    with run_gateway(tmp_path, [talker("legacy")]) as running, session_at(running) as program:
        address = f"127.0.0.1:{running.gateway.port}"
        running.gateway.process.terminate()
        running.gateway.process.wait(60)
        with run_gateway(tmp_path, [talker("legacy")], {"listen_addr": address}):
            program.send("tools/list", id=2)
            assert "result" in until_answer(program, 2)[1]
            program.call("echo", id=3, text="again")
            assert text_of(until_answer(program, 3)[1]) == "again"
            assert program.close() == 0


@pytest.mark.parametrize("capabilities", [{}, {"roots": {}}], ids=["shared", "own"])
@pytest.mark.parametrize("called", [False, True])
def test_who_only_listens_hears_again_after_a_restart_of_the_gateway(
    tmp_path: Path, capabilities: Json, *, called: bool
) -> None:
    options = ("--server", "legacy", "--gateway")
    with (
        run_gateway(tmp_path, [talker("legacy")]) as running,
        run_stdio(*options, running.gateway.url, env=ENV) as program,
    ):
        initialize(program, **capabilities)
        if called:
            program.call("echo", id=1, text="x")
            assert text_of(program.receive()) == "x"
        running.gateway.process.kill()
        running.gateway.process.wait(20)
        address = f"127.0.0.1:{running.gateway.port}"
        with run_gateway(tmp_path, [talker("legacy")], {"listen_addr": address}):
            for kind in ("tools", "prompts", "resources"):
                assert program.receive()["method"] == f"notifications/{kind}/list_changed"
            program.call("change_list", id=2)
            heard, answer = until_answer(program, 2)
            assert text_of(answer) == "changed"
            assert [one["method"] for one in heard] == ["notifications/tools/list_changed"]
            assert program.close() == 0


def test_who_only_listens_hears_again_after_a_crash_of_the_server(start: Start) -> None:
    with start("legacy") as listener:
        initialize(listener)
        listener.call("exit")
        assert "error" in listener.receive()
        for kind in ("tools", "prompts", "resources"):
            assert listener.receive()["method"] == f"notifications/{kind}/list_changed"
        assert listener.close() == 0
