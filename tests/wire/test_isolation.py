"""What one caller must never get of another: two keys, several sessions and the envelope, all at
the same time on one server, over stdio and over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conformance.fixture_servers import listening
from tests.rawhttp import request
from tests.wire.conftest import MakeClient
from tests.wire.faces import KEY, Face, face
from tests.wire.mcp_client import (
    CAPABILITIES,
    LOG_LEVEL,
    OTHER_KEY,
    SUBSCRIPTION,
    TWO_KEYS,
    Client,
    Json,
    Reply,
    mirror,
    remote,
    talker,
)

TASKS: Final[Json] = {CAPABILITIES: {"extensions": {"io.modelcontextprotocol/tasks": {}}}}
RELATED: Final = "io.modelcontextprotocol/related-task"
EVERYTHING: Final[Json] = {"elicitation": {"form": {}}, "sampling": {}, "roots": {}}


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Face]:
    log = tmp_path_factory.mktemp("isolation") / "server.log"
    with listening("dual_everything", "http", Path(log)) as url:
        servers = (
            talker("legacy", "legacy"),
            talker("mute", "legacy", interactive=False),
            talker("modern", "modern"),
            mirror("mirror", "legacy"),
            mirror("mirror-modern", "modern"),
            remote("http", url),
        )
        with face("hot", *servers, keys=TWO_KEYS) as running:
            yield running
            running.at_rest()


def envelope(face_: Face, server_id: str, method: str, params: Json, key: bytes = KEY) -> Any:
    """The answer; None to a notification."""
    body = json.dumps({"server_id": server_id, "id": 1, "method": method, "params": params})
    headers = (b"X-API-Key", key), (b"Content-Type", b"application/json")
    answer = face_.ask(request(b"/mcp", *headers, method=b"POST", body=body.encode()))
    return json.loads(answer.body) if answer.body else None


def serve_questions(reply: Reply, one: Client, answer: Callable[[Json], Json]) -> list[Json]:
    """Read a stream to its end and answer what is asked on it; everything that came."""
    came = []
    for message in reply.messages():
        came.append(message)
        if "method" in message and "id" in message:
            one.answer(message, answer(message))
    return came


# ── questions ────────────────────────────────────────────────────────────────────────────────────


def three(front: Face, client: MakeClient, server_id: str) -> dict[str, Client]:
    """Two sessions of one key, and one of another."""
    keys = {"a": KEY, "b": KEY, "c": OTHER_KEY}
    return {
        name: client(front, server_id, key=key).initialize(**EVERYTHING)
        for name, key in keys.items()
    }


def at_the_same_time(work: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """What each piece of work returns."""
    done: dict[str, Any] = {}
    started = threading.Barrier(len(work))

    def run(name: str, function: Callable[[], Any]) -> None:
        started.wait()
        done[name] = function()

    threads = [threading.Thread(target=run, args=one) for one in work.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert done.keys() == work.keys()
    return done


ROUNDS: Final = 5


@pytest.mark.parametrize("method", ["elicitation/create", "sampling/createMessage", "roots/list"])
def test_over_stdio_a_question_goes_to_the_session_that_called(
    front: Face, client: MakeClient, method: str
) -> None:
    clients = three(front, client, "legacy")
    streams = {name: one.listen() for name, one in clients.items()}

    def ask(name: str, one: Client) -> list[Json]:
        return [
            message
            for number in range(ROUNDS)
            for message in serve_questions(
                one.call("ask", method=method, params={"to": name}, id=number + 1),
                one,
                lambda question: {"answer": name, "asked": question["params"]["to"]},
            )
        ]

    def strangers() -> list[Json]:
        params = {"name": "echo", "arguments": {"text": "x"}}
        return [envelope(front, "legacy", "tools/call", params) for _ in range(ROUNDS * 4)]

    work: dict[str, Callable[[], Any]] = {
        name: (lambda name=name, one=one: ask(name, one))  # type: ignore[misc]
        for name, one in clients.items()
    }
    done = at_the_same_time(work | {"envelope": strangers})
    for name in clients:
        questions = [m for m in done[name] if "method" in m]
        answers = [m for m in done[name] if "method" not in m]
        assert [m["params"]["to"] for m in questions] == [name] * ROUNDS
        assert len(answers) == ROUNDS
        for answer in answers:
            told = json.loads(answer["result"]["content"][0]["text"])
            assert told["result"] == {"answer": name, "asked": name}
    assert all("result" in message for message in done["envelope"])
    for name, stream in streams.items():
        assert stream.event() is not None  # only the id to come back with
        assert stream.is_silent(0.02)
        clients[name].end()


def test_over_http_a_question_goes_to_the_session_that_called(
    front: Face, client: MakeClient
) -> None:
    clients = three(front, client, "http")
    streams = {name: one.listen() for name, one in clients.items()}

    def ask(name: str, one: Client) -> list[Json]:
        def answer(question: Json) -> Json:
            assert question["method"] == "sampling/createMessage"
            said = {"type": "text", "text": f"from {name}"}
            return {"role": "assistant", "content": said, "model": "test"}

        return [
            message
            for _ in range(ROUNDS)
            for message in serve_questions(
                one.call("test_sampling", prompt=f"prompt of {name}"), one, answer
            )
        ]

    work: dict[str, Callable[[], Any]] = {
        name: (lambda name=name, one=one: ask(name, one))  # type: ignore[misc]
        for name, one in clients.items()
    }
    for name, came in at_the_same_time(work).items():
        others = {"a", "b", "c"} - {name}
        text = json.dumps(came)
        assert text.count(f"prompt of {name}") == ROUNDS
        assert text.count(f"from {name}") == ROUNDS
        assert not any(f"of {other}" in text or f"from {other}" in text for other in others)
    for stream in streams.values():
        stream.event()
        assert stream.is_silent(0.02)
    for one in clients.values():
        one.end()


def test_nobody_is_asked_on_a_shared_connection(front: Face, client: MakeClient) -> None:
    plain = client(front, "legacy").initialize()
    other = client(front, "legacy", key=OTHER_KEY).initialize()
    told = json.loads(plain.call("ask", method="roots/list").text())
    assert told["error"]["code"] == -32601
    params = {"name": "ask", "arguments": {"method": "elicitation/create", "id": "e"}}
    answer = envelope(front, "legacy", "tools/call", params)
    assert "-32601" in answer["result"]["content"][0]["text"]
    stream = other.listen()
    stream.event()
    assert stream.is_silent(0.02)
    for one in (plain, other):
        one.end()


def test_an_answer_from_another_session_is_none(front: Face, client: MakeClient) -> None:
    clients = three(front, client, "legacy")
    asked = clients["a"].call("ask", method="roots/list", params={"x": 1})
    question = asked.next()
    for name in ("b", "c"):
        clients[name].answer(question, {"roots": [{"uri": f"file:///{name}"}]})
    clients["a"].answer(question, {"roots": []})
    assert json.loads(asked.text())["result"] == {"roots": []}
    for one in clients.values():
        one.end()


def test_a_question_whose_client_is_gone_is_refused(front: Face, client: MakeClient) -> None:
    one = client(front, "legacy").initialize(roots={})
    asked = one.call("ask", method="roots/list")
    asked.next()
    assert one.end() == 204
    assert asked.error["data"]["code"] == "session_ended"


def test_a_person_may_take_longer_than_the_server(client: MakeClient) -> None:
    with face("hot", talker("legacy", "legacy"), request_timeout_seconds=2) as running:
        running.start("legacy")
        one = client(running, "legacy").initialize(roots={})
        asked = one.call("ask", method="roots/list")
        question = asked.next()
        assert asked.is_silent(2.5)
        one.answer(question, {"roots": []})
        assert json.loads(asked.text())["result"] == {"roots": []}
        late = one.call("gated_progress", gate="never")
        assert late.error["message"].startswith("Server 'legacy' did not answer")
        one.end()


# ── messages ─────────────────────────────────────────────────────────────────────────────────────


def test_logs_reach_no_other_session(front: Face, client: MakeClient) -> None:
    one = client(front, "legacy").initialize()
    two = client(front, "legacy").initialize()
    other = client(front, "legacy", key=OTHER_KEY).initialize()
    owner = client(front, "legacy").initialize(roots={})
    streams = [each.listen() for each in (two, other, owner)]
    # Alone in flight: it is about this call.
    assert one.call("log", level="info", data="1").next()["params"]["data"] == "1"
    # Beside a call of somebody else's it could be about either.
    held = other.call("gated_progress", gate="log")
    front.until(lambda: front.used("legacy")[1] == 1)
    assert one.call("log", level="info", data="2").is_stream is False
    assert (
        client(front, "legacy")
        .initialize(sampling={})
        .call("log", level="info", data="3")
        .is_stream
    )
    two.call("open", gate="log")
    assert held.text() == "log"
    # What the envelope's callers do concerns no session.
    params = {"name": "log", "arguments": {"level": "info", "data": "4"}}
    assert "result" in envelope(front, "legacy", "tools/call", params)
    for stream in streams:
        stream.event()
        assert stream.is_silent(0.02)
    for each in (one, two, other, owner):
        each.end()


def test_progress_reaches_no_other_session(front: Face, client: MakeClient) -> None:
    clients = three(front, client, "legacy") | {
        "d": client(front, "legacy").initialize(),
        "e": client(front, "legacy", key=OTHER_KEY).initialize(),
    }
    token = {"progressToken": 1}
    replies = {
        name: one.call("gated_progress", gate=name, meta=token, id=1)
        for name, one in clients.items()
    }
    for name, reply in replies.items():
        assert reply.next()["params"] == {"progressToken": 1, "progress": 1, "message": name}
    clients["d"].call("foreign_progress", token=1)
    for name, one in clients.items():
        one.call("open", gate=name)
        progress, answer = replies[name].messages()
        assert progress["params"] == {"progressToken": 1, "progress": 2, "message": name}
        assert answer["result"]["content"][0]["text"] == name
        one.end()


def test_stateless_logs_and_progress_reach_no_other_call(front: Face, client: MakeClient) -> None:
    one, other = client(front, "modern"), client(front, "modern", key=OTHER_KEY)
    wants = {LOG_LEVEL: "debug"}
    held = other.tool("gated_progress", gate="m", meta=wants | {"progressToken": 1}, id=1)
    assert held.next()["params"]["message"] == "m"
    assert not one.tool("log", level="info", data="x", meta=wants, id=1).is_stream
    assert one.tool("progress", meta={"progressToken": 1}, id=1).next()["params"]["message"] == (
        "step 1"
    )
    one.tool("open", gate="m")
    assert [m.get("params", {}).get("message") for m in held.messages()] == ["m", None]


def test_subscriptions_are_each_ones_own(front: Face, client: MakeClient) -> None:
    one = client(front, "legacy").initialize()
    other = client(front, "legacy", key=OTHER_KEY).initialize()
    streams = [one.listen(), other.listen()]
    for stream in streams:
        stream.event()
    for each in (one, other):
        assert each.ask("resources/subscribe", {"uri": "test://shared"}).result == {}
    assert one.ask("resources/subscribe", {"uri": "test://one"}).result == {}
    one.call("touch", uri="test://shared")
    for stream in streams:
        assert stream.next()["params"] == {"uri": "test://shared"}
    other.call("touch", uri="test://one")
    assert streams[0].next()["params"] == {"uri": "test://one"}
    assert streams[1].is_silent(0.02)
    assert one.ask("resources/unsubscribe", {"uri": "test://shared"}).result == {}
    one.call("touch", uri="test://shared")
    assert streams[1].next()["params"] == {"uri": "test://shared"}
    assert streams[0].is_silent(0.02)
    assert other.end() == 204
    # With the last subscriber the subscription is gone at the server too.
    assert one.call("touch", uri="test://shared").text() == "touched"
    assert streams[0].is_silent(0.02)
    one.end()


def test_what_nobody_wants_any_more_is_not_left_at_the_server(
    front: Face, client: MakeClient
) -> None:
    one, other = client(front, "legacy").initialize(), client(front, "legacy", key=OTHER_KEY)
    other.initialize()
    gate: Json = {"gate": "remembered"}
    held = one.ask("resources/subscribe", {"uri": "test://gated"} | gate, id="s")
    one.notify("notifications/cancelled", {"requestId": "s"})
    assert list(held.messages()) == []
    assert other.call("open", **gate).text() == "opened"
    front.until(lambda: other.ask("test/subscribed").result["uris"] == [])
    one.end()
    other.end()


def test_levels_that_are_asked_for_at_once_end_at_the_most_verbose(client: MakeClient) -> None:
    with face("hot", talker("legacy", "legacy"), keys=TWO_KEYS) as running:
        one, other = (client(running, "legacy", key=key).initialize() for key in (KEY, OTHER_KEY))
        gate: Json = {"gate": "level"}
        first = one.ask("logging/setLevel", {"level": "debug"} | gate)
        assert other.ask("logging/setLevel", {"level": "error"}).result == {}
        assert one.call("open", **gate).text() == "opened"
        assert first.result == {}
        seen = one.ask("test/seen").result["seen"]
        levels = [m["params"]["level"] for m in seen if m.get("method") == "logging/setLevel"]
        assert levels == ["debug", "debug"]
        third = client(running, "legacy").initialize()
        heard = [third.call("log", level=one_, data="x").is_stream for one_ in ("debug", "info")]
        assert heard == [False, True]  # as if nobody had asked for more
        for each in (one, other, third):
            each.end()


@pytest.mark.parametrize("server_id", ["legacy", "mute"])
def test_who_has_no_session_changes_nothing_for_those_that_have(
    front: Face, client: MakeClient, server_id: str
) -> None:
    one = client(front, server_id).initialize()
    stream = one.listen()
    stream.event()
    assert one.ask("resources/subscribe", {"uri": "test://kept"}).result == {}
    for method in ("resources/unsubscribe", "Resources/Unsubscribe", "resources/subscribe"):
        for uri in ("test://kept", "test://left"):
            answer = envelope(front, server_id, method, {"uri": uri}, OTHER_KEY)
            assert answer["error"]["code"] == -32601
    for method in ("logging/setLevel", "Logging/SetLevel"):
        level = envelope(front, server_id, method, {"level": "emergency"}, OTHER_KEY)
        assert level["error"]["code"] == -32601
    seen = one.ask("test/seen").result["seen"]
    assert not [message for message in seen if message.get("method") == "logging/setLevel"]
    assert one.call("touch", uri="test://kept").text() == "touched"
    assert stream.next()["params"] == {"uri": "test://kept"}
    stream.leave()
    one.end()


def test_stateless_subscriptions_are_each_ones_own(front: Face, client: MakeClient) -> None:
    one, other = client(front, "modern"), client(front, "modern", key=OTHER_KEY)
    mine = one.modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, id=7)
    theirs = other.modern(
        "subscriptions/listen", {"notifications": {"resourceSubscriptions": ["test://x"]}}, id=7
    )
    for reply in (mine, theirs):
        assert reply.next()["params"]["_meta"] == {SUBSCRIPTION: 7}
    one.tool("touch", uri="test://x")
    assert theirs.next()["params"]["uri"] == "test://x"
    assert mine.is_silent(0.02)
    other.tool("change_list")
    assert mine.next()["params"]["_meta"] == {SUBSCRIPTION: 7}
    assert theirs.is_silent(0.02)


# ── handles ──────────────────────────────────────────────────────────────────────────────────────


def said(**result: object) -> Json:
    return {"say": '"result":' + json.dumps(result)}


def test_cursors_are_their_keys_own(front: Face, client: MakeClient) -> None:
    page = said(resultType="complete", tools=[], nextCursor="c-1")
    one, other = client(front, "mirror-modern"), client(front, "mirror-modern", key=OTHER_KEY)
    assert one.modern("tools/list", page).result["nextCursor"] == "c-1"
    assert one.modern("tools/list", page | {"cursor": "c-1"}).result["tools"] == []
    for method in ("tools/list", "prompts/list"):
        assert other.modern(method, page | {"cursor": "c-1"}).error["message"] == "Invalid cursor"
    mine = client(front, "mirror").initialize()
    theirs = client(front, "mirror", key=OTHER_KEY).initialize()
    assert mine.ask("resources/list", page).result["nextCursor"] == "c-1"
    assert "result" in mine.ask("resources/list", page | {"cursor": "c-1"}).message
    refused = theirs.ask("resources/list", page | {"cursor": "c-1"})
    assert (refused.status, refused.error["code"]) == (200, -32602)
    assert "result" in envelope(front, "mirror", "tools/list", page | {"cursor": "c-1"})
    stolen = envelope(front, "mirror", "tools/list", page | {"cursor": "c-1"}, OTHER_KEY)
    assert stolen["error"]["code"] == -32602
    for each in (mine, theirs):
        each.end()


def test_tasks_are_their_keys_own(front: Face, client: MakeClient) -> None:
    one, other = client(front, "mirror-modern"), client(front, "mirror-modern", key=OTHER_KEY)
    made = said(resultType="task", taskId="t-1", status="working")
    state = said(resultType="complete", taskId="t-1", status="working")
    call = {"name": "x", "arguments": {}}
    assert one.modern("tools/call", call | made, meta=TASKS).result["taskId"] == "t-1"
    for method in ("tasks/get", "tasks/update", "tasks/cancel"):
        params = {"taskId": "t-1"} | state
        assert one.modern(method, params, meta=TASKS).result["taskId"] == "t-1"
        stolen = other.modern(method, params, meta=TASKS)
        assert (stolen.status, stolen.error["message"]) == (400, "Task not found")
    listen = {"notifications": {"taskIds": ["t-1"]}}
    assert other.modern("subscriptions/listen", listen, meta=TASKS).status == 400


SLY: Final[tuple[tuple[str, Json], ...]] = (
    ("tasks/result", {"TaskId": "t-case"}),
    ("tasks/get", {"TASKID": "t-case"}),
    ("tasks/get", {"task_id": "t-case"}),
    ("tasks/delete", {"taskId": "t-case"}),
    ("tasks/list", {"Cursor": "t-case"}),
    ("tools/call", {"name": "x", "_Meta": {"progressToken": 1}}),
)


@pytest.mark.parametrize(("method", "params"), SLY)
def test_no_other_spelling_gets_through_to_a_server(
    front: Face, client: MakeClient, method: str, params: Json
) -> None:
    """A server that does not look at the case of members would act on it."""
    mine = client(front, "mirror").initialize()
    theirs = client(front, "mirror", key=OTHER_KEY).initialize()
    call: Json = {"name": "x", "arguments": {}}
    made = call | said(task={"taskId": "t-case", "status": "working"})
    assert mine.ask("tools/call", made).result["task"]["taskId"] == "t-case"
    before = mine.ask("test/last").result
    sly = params | said(leaked=1)
    assert theirs.ask(method, sly).error["code"] == -32602
    assert envelope(front, "mirror", method, sly, OTHER_KEY)["error"]["code"] == -32602
    assert mine.ask("test/last").result == before
    modern = client(front, "mirror-modern", key=OTHER_KEY)
    assert modern.modern("tools/call", call | said(x=1)).result == {"x": 1}
    before = modern.modern("test/last").result
    refused = modern.modern(method, sly, meta=TASKS).error["code"]
    # Without `taskId` the header that repeats it cannot fit.
    assert refused in {-32602, -32020, -32601}
    assert modern.modern("test/last").result == before
    for each in (mine, theirs):
        each.end()


def test_nobody_acts_in_the_name_of_a_task_of_somebody_else(
    front: Face, client: MakeClient
) -> None:
    mine = client(front, "mirror").initialize()
    theirs = client(front, "mirror", key=OTHER_KEY).initialize()
    call: Json = {"name": "x", "arguments": {}}
    made = call | said(task={"taskId": "t-related", "status": "working"})
    assert mine.ask("tools/call", made).result["task"]["taskId"] == "t-related"
    named = call | {"_meta": {RELATED: {"taskId": "t-related"}}} | said(x=1)
    assert mine.ask("tools/call", named).result == {"x": 1}
    before = mine.ask("test/last").result
    missing = named | {"_meta": {RELATED: {"taskId": "t-none"}}}
    for params in (named, missing):
        error = theirs.ask("tools/call", params).error
        assert (error["code"], error["message"]) == (-32602, "Task not found")
    assert envelope(front, "mirror", "tools/call", named, OTHER_KEY)["error"]["code"] == -32602
    theirs.notify("notifications/vendor", named)
    modern = client(front, "mirror-modern", key=OTHER_KEY)
    stolen = modern.modern("tools/call", call | said(x=1), meta=named["_meta"])
    assert stolen.error["message"] == "Task not found"
    assert mine.ask("test/last").result == before
    for each in (mine, theirs):
        each.end()


@pytest.mark.parametrize(
    "method",
    ["notifications/Tasks/status", "notifications/ROOTS/list_changed", "notifications/Progress"],
)
def test_no_other_spelling_of_what_one_client_alone_may_say_passes(
    front: Face, client: MakeClient, method: str
) -> None:
    shared, owner = client(front, "mirror").initialize(), client(front, "mirror")
    before = shared.ask("test/last").result
    shared.notify(method, {"taskId": "t", "progressToken": 1, "progress": 1})
    assert envelope(front, "mirror", method, {"taskId": "t"}) is None
    assert shared.ask("test/last").result == before
    owner.initialize(roots={})
    owner.notify(method.lower(), {"taskId": "t", "progressToken": 1, "progress": 1})
    assert method.lower() in owner.ask("test/last").result["line"]
    for each in (shared, owner):
        each.end()


def test_tasks_of_sessions_are_their_keys_own(front: Face, client: MakeClient) -> None:
    mine = client(front, "mirror").initialize()
    theirs = client(front, "mirror", key=OTHER_KEY).initialize()
    for each, task in ((mine, "t-mine"), (theirs, "t-theirs")):
        made = said(task={"taskId": task, "status": "working"})
        augmented: Json = {"name": "x", "task": {"ttl": 1000}}
        assert each.ask("tools/call", augmented | made).result["task"]["taskId"] == task
    for method in ("tasks/get", "tasks/result", "tasks/cancel"):
        params = {"taskId": "t-mine"} | said(x=1)
        assert mine.ask(method, params).result == {"x": 1}
        assert theirs.ask(method, params).error["message"] == "Task not found"
    listed = said(tasks=[{"taskId": "t-mine", "a": 1.0}, {"taskId": "t-theirs"}], more="x")
    assert mine.ask("tasks/list", listed).result == {
        "tasks": [{"taskId": "t-mine", "a": 1.0}],
        "more": "x",
    }
    assert envelope(front, "mirror", "tasks/list", listed, OTHER_KEY)["result"]["tasks"] == [
        {"taskId": "t-theirs"}
    ]
    for each in (mine, theirs):
        each.end()


def test_states_are_their_keys_own(front: Face, client: MakeClient) -> None:
    one, other = client(front, "modern"), client(front, "modern", key=OTHER_KEY)
    caps: Json = {CAPABILITIES: {"elicitation": {"form": {}}}}
    result = one.tool("needs_input", meta=caps).result
    state = result["requestState"]
    assert state != "s-1"
    again = {
        "name": "needs_input",
        "arguments": {},
        "inputResponses": {"user_name": {"action": "accept", "content": {"name": "x"}}},
        "requestState": state,
    }
    assert json.loads(one.modern("tools/call", again, meta=caps).text())["requestState"] == "s-1"
    for thief, params in (
        (other, again),
        (one, again | {"arguments": {"x": 1}}),
        (one, again | {"requestState": "s-1"}),
        (one, again | {"requestState": state[:-1]}),
        (one, again | {"requestState": 7}),
    ):
        refused = thief.modern("tools/call", params, meta=caps)
        assert (refused.status, refused.error["code"]) == (400, -32602)


def test_streams_are_their_keys_own(front: Face, client: MakeClient) -> None:
    one = client(front, "legacy").initialize()
    first = one.call("progress", meta={"progressToken": 1})
    last = first.event()
    assert last is not None
    list(first.events())
    thief = client(front, "legacy", key=OTHER_KEY, session=one.session)
    stolen = thief.send(
        b"", *thief.headers(), (b"Last-Event-ID", str(last.id).encode()), method=b"GET"
    )
    assert stolen.status == 404
    second = client(front, "legacy").initialize()
    other = second.send(b"", *second.headers(), (b"Last-Event-ID", b"1-0"), method=b"GET")
    assert other.status == 400  # its own first stream does not exist yet
    for each in (one, second):
        each.end()
