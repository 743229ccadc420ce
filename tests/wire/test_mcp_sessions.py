"""Sessions over Streamable HTTP: their lifecycle, what they share, and batches, over sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from open_mcp_gateway.catalog.model import Isolation
from open_mcp_gateway.names import ServerId
from open_mcp_gateway.pipeline import sessions as module
from open_mcp_gateway.protocol.eras import LEGACY_VERSIONS
from tests.wire.conftest import MakeClient
from tests.wire.faces import ALL, Face, face, server
from tests.wire.mcp_client import ACCEPT, OTHER_KEY, TWO_KEYS, Json, talker

ENDED = "The session has ended: its client ended it; the call may have taken effect"


@pytest.fixture(scope="module", params=ALL)
def front(request: pytest.FixtureRequest) -> Iterator[Face]:
    servers = (
        talker("talker", "legacy"),
        talker("second", "legacy"),
        talker("alone", "legacy", isolation=Isolation.SESSION),
        talker("plain", "legacy", interactive=False),
        server("dead", "crash_at_start"),
        server("slow", "slow_start"),
        server("crash", "crash_mid_call"),
    )
    with face(request.param, *servers, keys=TWO_KEYS) as running:
        yield running
        running.at_rest()
        running.inside(lambda: running.gateway.sessions.end_if(lambda _: True))


@pytest.fixture(scope="module")
def hot() -> Iterator[Face]:
    with face("hot", talker("talker", "legacy"), server("slow", "slow_start")) as running:
        yield running
        running.inside(lambda: running.gateway.sessions.end_if(lambda _: True))


@pytest.mark.parametrize("version", LEGACY_VERSIONS)
def test_the_life_of_a_session(front: Face, client: MakeClient, version: str) -> None:
    one = client(front, "talker").initialize(version)
    assert one.version == version
    assert one.session is not None
    assert len(one.session) >= 22  # 128 bits in base64
    assert one.session.isascii()
    assert one.session.isprintable()
    assert one.call("echo", text="hello").text() == "hello"
    assert one.ask("ping").result == {}
    assert one.end() == 204
    for reply in (one.ask("ping"), one.send(b"", *one.headers(), method=b"GET")):
        assert reply.status == 404
        assert reply.error["message"] == "Session not found"
    assert one.end() == 404


def test_an_unknown_revision_gets_the_newest_of_the_era(front: Face, client: MakeClient) -> None:
    assert client(front, "talker").initialize("2019-01-01").version == "2025-11-25"
    assert client(front, "talker").initialize("2026-07-28").version == "2025-11-25"


def test_each_session_has_an_id_of_its_own(front: Face, client: MakeClient) -> None:
    ids = {client(front, "talker").initialize().session for _ in range(10)}
    assert len(ids) == 10


def test_sessions_without_capabilities_share_a_process(front: Face, client: MakeClient) -> None:
    one, two = (client(front, "talker").initialize() for _ in range(2))
    other = client(front, "talker", key=OTHER_KEY).initialize()
    three = client(front, "talker").initialize(roots={})
    for each in (one, two, other, three):
        each.notify("notifications/test", {"from": each.session})
    seen = [json.dumps(each.ask("test/seen").result) for each in (one, two, other, three)]
    assert seen[0] == seen[1] == seen[2] != seen[3]
    assert str(three.session) in seen[3]
    assert str(one.session) not in seen[3]


def test_a_server_may_be_for_one_session_alone(front: Face, client: MakeClient) -> None:
    one, two = (client(front, "alone").initialize() for _ in range(2))
    one.notify("notifications/test", {"from": "one"})
    assert "one" in json.dumps(one.ask("test/seen").result)
    assert "one" not in json.dumps(two.ask("test/seen").result)
    one.end()
    two.end()


def test_the_server_is_told_what_the_client_can_do(front: Face, client: MakeClient) -> None:
    told: Json = {"elicitation": {"form": {}, "url": {}}, "experimental": {"x": {"a": 1.5}}}
    one = client(front, "talker").initialize("2025-06-18", **told)
    params = one.ask("test/client").result["client"]
    assert params["capabilities"] == told
    assert params["protocolVersion"] == "2025-06-18"
    plain = client(front, "plain").initialize(**told)
    assert plain.ask("test/client").result["client"]["capabilities"] == {}


# ── whose session it is ──────────────────────────────────────────────────────────────────────────


def test_a_session_is_its_keys_alone(front: Face, client: MakeClient) -> None:
    one = client(front, "talker").initialize()
    thief = client(front, "talker", key=OTHER_KEY, session=one.session)
    for reply in (
        thief.ask("ping"),
        thief.notify("notifications/cancelled", {"requestId": 1}),
        thief.send(b"", *thief.headers(), method=b"GET"),
        thief.send(b"", *thief.headers(), method=b"DELETE"),
        thief.post({"jsonrpc": "2.0", "id": 1, "result": {}}),
        client(front, "talker", session="x" * 32).ask("ping"),
        client(front, "second", session=one.session).ask("ping"),
    ):
        error = reply.error
        assert (reply.status, error["code"]) == (404, -32001)
        assert error["message"] == "Session not found"
    assert one.ask("ping").result == {}


def test_what_names_no_session_is_refused(front: Face, client: MakeClient) -> None:
    one = client(front, "talker").initialize()
    bare = client(front, "talker")
    for reply in (
        bare.ask("tools/list"),
        bare.notify("notifications/initialized"),
        bare.post({"jsonrpc": "2.0", "id": 1, "result": {}}),
        bare.send(b"", ACCEPT, method=b"GET"),
        bare.send(b"", ACCEPT, method=b"DELETE"),
        one.post(one.request("ping"), (b"Mcp-Session-Id", b"again")),
    ):
        assert reply.status == 400
        assert reply.message["error"]["code"] == -32600


@pytest.mark.parametrize("version", ["2024-01-01", "x", "2027-01-01"])
def test_revisions_that_are_not_spoken(front: Face, client: MakeClient, version: str) -> None:
    one = client(front, "talker").initialize()
    one.version = version
    for reply in (one.ask("tools/list"), one.send(b"", *one.headers(), method=b"GET")):
        assert reply.status == 400


def test_the_revision_may_be_left_out(front: Face, client: MakeClient) -> None:
    one = client(front, "talker").initialize("2025-03-26")
    headers = (ACCEPT, (b"Mcp-Session-Id", str(one.session).encode()))
    reply = one.send(json.dumps(one.request("ping")).encode(), *headers)
    assert reply.result == {}


def test_initialize_comes_once(front: Face, client: MakeClient) -> None:
    one = client(front, "talker").initialize()
    reply = one.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})
    assert reply.error["code"] == -32600
    assert "mcp-session-id" not in reply.headers
    assert one.ask("ping").result == {}


def test_ids_are_the_clients_own_and_come_back_as_they_were(
    front: Face, client: MakeClient
) -> None:
    one = client(front, "talker").initialize()
    for id_ in (0, -1, "", "1", 2**70, "\u00fc", "a" * 1000):
        message = one.call("echo", id=id_, text="x").message
        assert message["id"] == id_
        assert type(message["id"]) is type(id_)
    first = one.call("gated_progress", id="same", gate="ids", meta={"progressToken": 1})
    assert first.next()["method"] == "notifications/progress"
    assert one.call("echo", id="same").error["code"] == -32600
    assert one.call("open", gate="ids").text() == "opened"
    assert first.text() == "ids"


# ── failures ─────────────────────────────────────────────────────────────────────────────────────


def test_a_session_that_cannot_be_opened(front: Face, client: MakeClient) -> None:
    reply = client(front, "dead").begin()
    assert "mcp-session-id" not in reply.headers
    assert reply.status == 200
    assert reply.error["code"] == -32002


def test_a_failed_call_is_an_answer_and_no_end(front: Face, client: MakeClient) -> None:
    one = client(front, "crash").initialize()
    reply = one.call("echo")
    assert (reply.status, reply.error["code"]) == (200, -32603)
    assert one.ask("ping").result == {}
    assert one.ask("tools/list").result["tools"]


def test_capabilities_have_to_be_an_object(front: Face, client: MakeClient) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"capabilities": []}}
    reply = client(front, "talker").send(json.dumps(body).encode(), ACCEPT)
    assert reply.error["code"] == -32602


def test_a_client_that_leaves_while_it_is_opened_leaves_nothing(
    hot: Face, client: MakeClient
) -> None:
    count = hot.gateway.sessions.count
    before = hot.inside(count)
    leaving = client(hot, "slow")
    reply = leaving.begin(roots={})
    hot.until(lambda: hot.inside(count) == before + 1)
    reply.leave()
    hot.until(lambda: hot.inside(count) == before)
    keeper = hot.gateway.fleet._keepers[ServerId("slow")]
    hot.until(lambda: not hot.inside(lambda: [*keeper._site.instances]))


def test_a_session_ends_when_it_is_not_used(
    hot: Face, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle, reading, busy = (client(hot, "talker").initialize() for _ in range(3))
    stream = reading.listen()
    held = busy.call("gated_progress", gate="idle", meta={"progressToken": 1})
    held.next()
    monkeypatch.setattr(module, "IDLE_S", -1.0)
    hot.inside(hot.gateway.sweep)
    assert idle.ask("ping").status == 404
    assert reading.ask("ping").status == 200
    assert busy.ask("ping").status == 200
    monkeypatch.setattr(module, "IDLE_S", 3600.0)
    stream.leave()
    assert busy.call("open", gate="idle").text() == "opened"
    assert held.text() == "idle"


def test_a_key_has_so_many_sessions(
    hot: Face, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hot.inside(lambda: hot.gateway.sessions.end_if(lambda _: True))
    monkeypatch.setattr(module, "MAX_SESSIONS_PER_KEY", 2)
    one, two = (client(hot, "talker").initialize() for _ in range(2))
    streams = [each.listen() for each in (one, two)]
    refused = client(hot, "talker").begin()
    assert (refused.status, refused.headers["retry-after"]) == (503, "60")
    assert one.end() == 204
    assert client(hot, "talker").begin().status == 200
    assert two.ask("ping").status == 200
    for stream in streams:
        stream.leave()


def test_clients_that_vanished_make_room(
    hot: Face, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hot.inside(lambda: hot.gateway.sessions.end_if(lambda _: True))
    monkeypatch.setattr(module, "MAX_SESSIONS_PER_KEY", 2)
    vanished, used = (client(hot, "talker").initialize() for _ in range(2))
    assert used.call("echo", text="x").text() == "x"
    held = used.call("gated_progress", gate="room", meta={"progressToken": 1})
    held.next()
    hot.until(lambda: hot.used("talker")[1] == 1)
    new = client(hot, "talker").initialize()
    assert vanished.ask("ping").status == 404
    assert new.call("open", gate="room").text() == "opened"
    assert held.text() == "room"


# ── cancelling ───────────────────────────────────────────────────────────────────────────────────


def test_a_cancelled_request_gets_no_answer(front: Face, client: MakeClient) -> None:
    one = client(front, "talker").initialize()
    begun = one.call("gated_progress", id="c", gate="c", meta={"progressToken": "t"})
    assert begun.next()["params"]["progressToken"] == "t"
    silent = one.call("gated_progress", id=7, gate="c")
    front.until(lambda: front.used("talker")[1] >= 2)
    assert one.notify("notifications/cancelled", {"requestId": "c", "reason": "no"}).status == 202
    assert one.notify("notifications/cancelled", {"requestId": 7}).status == 202
    assert one.notify("notifications/cancelled", {"requestId": "unknown"}).status == 202
    assert one.notify("notifications/cancelled").status == 202
    assert list(begun.messages()) == []
    assert (silent.status, silent.is_stream, list(silent.messages())) == (200, True, [])
    seen = [m for m in one.ask("test/seen").result["seen"] if "cancelled" in m.get("method", "")]
    assert [m["params"]["reason"] for m in seen[-2:]] == ["no", "cancelled by the client"]


def test_the_end_of_a_session_ends_what_is_in_flight(front: Face, client: MakeClient) -> None:
    one = client(front, "talker").initialize()
    begun = one.call("gated_progress", gate="d", meta={"progressToken": 1})
    begun.next()
    silent, standing = one.call("gated_progress", gate="d"), one.listen()
    front.until(lambda: front.used("talker")[1] >= 2)
    assert one.end() == 204
    assert begun.error["message"] == ENDED
    assert (silent.status, silent.error["message"]) == (404, ENDED)
    assert [event for event in standing.events() if event.data] == []
    front.at_rest()


# ── batches ──────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_of_everything(front: Face, client: MakeClient) -> None:
    one = client(front, "talker").initialize("2025-03-26")
    reply = one.post(
        [
            one.request("ping", id="a"),
            {"jsonrpc": "2.0", "method": "notifications/test"},
            one.request("tools/call", {"name": "echo", "arguments": {"text": "x"}}, id=1),
            {"jsonrpc": "2.0", "id": 5, "result": {}},
            {"jsonrpc": "2.0", "id": 1.5, "result": {}},
            one.request("initialize", id="i"),
            one.request("no/such", id="n"),
            {"jsonrpc": "2.0", "id": "odd"},
            {"id": "bare", "method": "ping"},
        ]
    )
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    answers = {answer["id"]: answer for answer in json.loads(reply.body)}
    assert answers["a"]["result"] == {}
    assert answers[1]["result"]["content"][0]["text"] == "x"
    assert answers["i"]["error"]["code"] == -32600
    assert answers["n"]["error"]["code"] == -32601
    assert answers["odd"]["error"]["code"] == -32600
    assert answers["bare"]["error"]["code"] == -32600
    assert len(answers) == 6


def test_a_batch_that_wants_no_answer(front: Face, client: MakeClient) -> None:
    one = client(front, "talker").initialize("2025-03-26")
    note = {"jsonrpc": "2.0", "method": "notifications/test"}
    reply = one.post([note, {"jsonrpc": "2.0", "id": 3, "result": {}}, note])
    assert (reply.status, reply.body) == (202, b"")


def test_requests_without_an_id_do_not_reach_the_server(front: Face, client: MakeClient) -> None:
    one = client(front, "talker").initialize("2025-03-26")
    sly = [
        {"jsonrpc": "2.0", "method": method, "params": {"taskId": "sly", "uri": "sly"}}
        for method in ("tasks/cancel", "resources/unsubscribe", "tools/call", "ping")
    ]
    reply = one.post([*sly, {"jsonrpc": "2.0", "method": "notifications/test"}])
    assert (reply.status, reply.body) == (202, b"")
    seen = json.dumps(one.ask("test/seen").result)
    assert "notifications/test" in seen
    assert "sly" not in seen


def test_a_batch_with_progress_and_questions(front: Face, client: MakeClient) -> None:
    one = client(front, "talker").initialize("2025-03-26", roots={})
    asking = {"name": "ask", "arguments": {"method": "roots/list"}}
    counting = {
        "name": "progress",
        "arguments": {"steps": 2},
        "_meta": {"progressToken": "p"},
    }
    reply = one.post(
        [
            one.request("tools/call", counting, id="c"),
            one.request("tools/call", asking, id="q"),
            one.request("ping", id="p"),
        ]
    )
    came = []
    for message in reply.messages():
        came.append(message)
        if message.get("method") == "roots/list":
            one.answer(message, {"roots": []})
    assert [m.get("method") for m in came[:3]] == [
        "notifications/progress",
        "notifications/progress",
        "roots/list",
    ]
    assert {m["id"] for m in came[3:]} == {"c", "q", "p"}


def test_a_batch_that_is_called_off(front: Face, client: MakeClient) -> None:
    one = client(front, "talker").initialize("2025-03-26")
    held = {"name": "gated_progress", "arguments": {"gate": "b"}}
    reply = one.post([one.request("tools/call", held, id="x")])
    front.until(lambda: front.used("talker")[1] >= 1)
    one.notify("notifications/cancelled", {"requestId": "x"})
    assert (reply.status, list(reply.messages())) == (200, [])


def test_what_is_no_message_spoils_no_batch(front: Face, client: MakeClient) -> None:
    one = client(front, "talker").initialize("2025-03-26")
    batch = [1, one.request("ping", id="a"), "x", [one.request("ping", id="in")], None]
    reply = one.send(json.dumps(batch).encode(), *one.headers())
    assert reply.status == 200
    answers = json.loads(reply.body)
    assert [answer["result"] for answer in answers if answer.get("id") == "a"] == [{}]
    refused = [answer["error"]["code"] for answer in answers if answer.get("id") is None]
    assert refused == [-32600] * 4
    assert len(answers) == 5


@pytest.mark.parametrize("body", ["[]", '[{"a":1,]', "[" * 50_000])
def test_what_is_no_batch(front: Face, client: MakeClient, body: str) -> None:
    one = client(front, "talker").initialize("2025-03-26")
    reply = one.send(body.encode(), *one.headers())
    assert reply.status == 400
    assert reply.error["code"] in (-32600, -32700)


@pytest.mark.parametrize("version", ["2024-11-05", "2025-06-18", "2025-11-25"])
def test_batches_in_other_revisions(front: Face, client: MakeClient, version: str) -> None:
    one = client(front, "talker").initialize(version)
    reply = one.post([one.request("ping")])
    assert (reply.status, reply.error["code"]) == (400, -32600)


def test_a_batch_opens_no_session(front: Face, client: MakeClient) -> None:
    reply = client(front, "talker").post([{"jsonrpc": "2.0", "id": 1, "method": "initialize"}])
    assert (reply.status, reply.error["code"]) == (400, -32600)


def test_a_process_of_one_session_ends_with_it(hot: Face, client: MakeClient) -> None:
    keeper = hot.gateway.fleet._keepers.get(ServerId("talker"))
    assert keeper is not None
    hot.inside(lambda: hot.gateway.sessions.end_if(lambda _: True))

    def owned() -> int:
        return sum(bool(one.key.manner.owner) for one in keeper._site.instances)

    hot.until(lambda: hot.inside(owned) == 0)
    for _ in range(5):
        one = client(hot, "talker").initialize(elicitation={})
        assert one.ask("resources/subscribe", {"uri": "test://x"}).result == {}
        assert hot.inside(owned) >= 1
        assert one.end() == 204
    hot.until(lambda: hot.inside(owned) == 0)


def test_reserved_places_are_given_back(hot: Face, client: MakeClient) -> None:
    """A session that was never opened counts for nothing."""
    before = hot.inside(hot.gateway.sessions.count)
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"capabilities": 1}}
    for _ in range(3):
        assert client(hot, "talker").send(json.dumps(body).encode(), ACCEPT).error
    assert hot.inside(hot.gateway.sessions.count) == before
