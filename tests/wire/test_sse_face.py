"""The HTTP+SSE transport of 2024-11-05 towards clients, over sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from open_mcp_gateway.inbound import sse as module
from tests.wire.conftest import MakeClient
from tests.wire.faces import ALL, Face, face, server
from tests.wire.mcp_client import OTHER_KEY, TWO_KEYS, Client, Event, Json, Reply, talker


@pytest.fixture(scope="module", params=ALL)
def front(request: pytest.FixtureRequest) -> Iterator[Face]:
    servers = (
        talker("talker", "legacy"),
        talker("second", "legacy"),
        talker("modern", "modern"),
        server("dead", "crash_at_start"),
    )
    with face(request.param, *servers, keys=TWO_KEYS) as running:
        yield running
        running.at_rest()
        running.until(lambda: running.inside(lambda: not running.gateway.sse._sessions))
        assert not running.gateway.sse._counts


@dataclass
class SseClient:
    """A client of that transport: one stream, and posts to where its first event says."""

    http: Client
    stream: Reply
    place: bytes = b""
    came: list[Json] = field(default_factory=list)

    def event(self) -> Event:
        event = self.stream.event()
        assert event is not None
        return event

    def post(self, message: object) -> Reply:
        return self.http.send(json.dumps(message).encode(), path=self.place)

    def ask(self, method: str, params: Json | None = None, *, id: object = 1) -> Json:
        """The answer to one request; what comes before it is kept."""
        message: Json = {"jsonrpc": "2.0", "id": id, "method": method}
        reply = self.post(message if params is None else message | {"params": params})
        assert (reply.status, reply.body) == (202, b"")
        return self.answer_to(id)

    def answer_to(self, id: object) -> Json:
        while True:
            event = self.event()
            assert event.kind == "message"
            message = event.message
            if message.get("id") == id and "method" not in message:
                return message
            self.came.append(message)

    def call(self, tool: str, *, id: object = 1, meta: Json | None = None, **more: Any) -> Json:
        params: Json = {"name": tool, "arguments": more}
        return self.ask("tools/call", params if meta is None else params | {"_meta": meta}, id=id)

    def initialize(self, **capabilities: Any) -> Json:
        params = {"protocolVersion": "2024-11-05", "capabilities": capabilities}
        answer = self.ask("initialize", params | {"clientInfo": {"name": "t", "version": "1"}})
        self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer


def opened(http: Client) -> SseClient:
    path = f"/servers/{http.server_id}/sse".encode()
    one = SseClient(
        http, http.send(b"", (b"Accept", b"text/event-stream"), method=b"GET", path=path)
    )
    assert one.stream.status == 200
    event = one.event()
    assert event.kind == "endpoint"
    one.place = event.data
    return one


def test_the_first_event_says_where_to_post(front: Face, client: MakeClient) -> None:
    one = opened(client(front, "talker"))
    assert one.place.startswith(b"/servers/talker/messages?sessionId=")
    assert len(one.place) > 22 + len(b"/servers/talker/messages?sessionId=")
    one.stream.leave()


def test_the_place_is_the_one_outside(client: MakeClient) -> None:
    settings: dict[str, Any] = {"public_url": "https://example.test/gw/"}
    with face("hot", talker("talker", "legacy"), **settings) as running:
        one = opened(client(running, "talker"))
        assert one.place.startswith(b"/gw/servers/talker/messages?sessionId=")
        one.stream.leave()


def test_everything_comes_on_the_stream(front: Face, client: MakeClient) -> None:
    one = opened(client(front, "talker"))
    assert one.initialize(roots={})["result"]["protocolVersion"] == "2024-11-05"
    assert one.ask("ping")["result"] == {}
    assert one.call("echo", id="e", text="hello")["result"]["content"][0]["text"] == "hello"
    one.call("progress", steps=1, meta={"progressToken": 5})
    assert one.came.pop()["params"]["progressToken"] == 5
    one.call("log", level="info", data="logged")
    assert one.came.pop()["params"]["data"] == "logged"
    one.call("change_list")
    assert one.came.pop()["method"] == "notifications/tools/list_changed"
    assert one.ask("no/such")["error"]["code"] == -32601
    one.stream.leave()


def test_questions_come_on_the_stream(front: Face, client: MakeClient) -> None:
    one = opened(client(front, "talker"))
    one.initialize(roots={})
    one.post(
        {
            "jsonrpc": "2.0",
            "id": "q",
            "method": "tools/call",
            "params": {"name": "ask", "arguments": {"method": "roots/list"}},
        }
    )
    question = one.event().message
    assert question["method"] == "roots/list"
    assert one.post({"jsonrpc": "2.0", "id": question["id"], "result": {"x": 1}}).status == 202
    told = json.loads(one.answer_to("q")["result"]["content"][0]["text"])
    assert told["result"] == {"x": 1}
    one.stream.leave()


def test_a_call_can_be_called_off(front: Face, client: MakeClient) -> None:
    one = opened(client(front, "talker"))
    one.initialize()
    held = {"name": "gated_progress", "arguments": {"gate": "s"}}
    one.post({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": held})
    front.until(lambda: front.used("talker")[1] == 1)
    one.post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9}})
    front.at_rest()
    assert one.ask("ping")["result"] == {}
    assert one.came == []
    one.stream.leave()


def test_nothing_before_initialize(front: Face, client: MakeClient) -> None:
    one = opened(client(front, "talker"))
    assert one.ask("tools/list")["error"]["code"] == -32600
    assert one.ask("ping")["result"] == {}
    one.post({"jsonrpc": "2.0", "method": "notifications/test"})
    one.initialize()
    again = one.ask("initialize", {"protocolVersion": "2024-11-05", "capabilities": {}})
    assert again["error"]["code"] == -32600
    one.stream.leave()


def test_requests_without_an_id_do_not_reach_the_server(front: Face, client: MakeClient) -> None:
    one = opened(client(front, "talker"))
    one.initialize()
    for method in ("tasks/cancel", "initialize", "notifications/test"):
        note = {"jsonrpc": "2.0", "method": method, "params": {"taskId": "sly"}}
        assert one.post(note).status == 202
    methods = [said.get("method") for said in one.ask("test/seen")["result"]["seen"]]
    assert "notifications/test" in methods
    assert not {"tasks/cancel", "initialize"} & set(methods)
    one.stream.leave()


def test_initialize_may_be_tried_again(front: Face, client: MakeClient) -> None:
    one = opened(client(front, "dead"))
    for _ in range(2):
        assert one.initialize(roots={})["error"]["code"] == -32002
    one.stream.leave()
    two = opened(client(front, "modern"))
    assert two.initialize()["error"]["data"]["supported"] == ["2026-07-28"]
    two.stream.leave()


def test_whose_session_it_is(front: Face, client: MakeClient) -> None:
    one = opened(client(front, "talker"))
    one.initialize()
    ping = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    query = one.place.partition(b"?")[2]
    for reply in (
        client(front, "talker", key=OTHER_KEY).send(ping, path=one.place),
        client(front, "second").send(ping, path=b"/servers/second/messages?" + query),
        client(front, "talker").send(ping, path=b"/servers/talker/messages"),
        client(front, "talker").send(ping, path=b"/servers/talker/messages?sessionId=x"),
        client(front, "talker").send(ping, path=one.place + b"&" + query),
    ):
        assert (reply.status, reply.error["message"]) == (404, "Session not found")
    mcp = client(front, "talker", session=query.partition(b"=")[2].decode())
    assert mcp.ask("ping").status == 404
    assert one.ask("ping")["result"] == {}
    one.stream.leave()


@pytest.mark.parametrize(
    ("raw", "id"),
    [
        (b"{", None),
        (b"[]", None),
        (b'{"jsonrpc":"2.0","id":4}', 4),
        (b'{"id":4,"method":"ping"}', 4),
        (b'{"jsonrpc":"2.0","id":4,"method":"ping","method":"ping"}', 4),
        (b'{"jsonrpc":"2.0","id":4,"method":""}', 4),
        (b'{"jsonrpc":"2.0","id":1.5,"result":{}}', None),
    ],
)
def test_what_is_no_message(front: Face, client: MakeClient, raw: bytes, id: object) -> None:
    one = opened(client(front, "talker"))
    reply = client(front, "talker").send(raw, path=one.place)
    assert (reply.status, reply.message["id"]) == (400, id)
    one.stream.leave()


def test_the_session_ends_with_its_stream(front: Face, client: MakeClient) -> None:
    one = opened(client(front, "talker"))
    one.initialize(roots={})
    held = {"name": "gated_progress", "arguments": {"gate": "end"}}
    one.post({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": held})
    front.until(lambda: front.used("talker")[1] == 1)
    one.stream.leave()
    front.at_rest()
    front.until(lambda: client(front, "talker").send(b"{}", path=one.place).status == 404)


def test_a_key_has_so_many_sessions(
    front: Face, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    front.until(lambda: front.inside(lambda: not front.gateway.sse._sessions))
    monkeypatch.setattr(module, "MAX_SESSIONS_PER_KEY", 1)
    one = opened(client(front, "talker"))
    refused = client(front, "talker").send(b"", method=b"GET", path=b"/servers/talker/sse")
    assert (refused.status, refused.headers["retry-after"]) == (503, "60")
    other = opened(client(front, "talker", key=OTHER_KEY))
    for each in (one, other):
        each.stream.leave()


def test_a_server_that_is_replaced_is_heard_again(front: Face, client: MakeClient) -> None:
    listener, other = (opened(client(front, "talker")) for _ in range(2))
    for one in (listener, other):
        one.initialize()
    assert listener.ask("resources/subscribe", {"uri": "test://r"})["result"] == {}
    old = front.instance("talker")
    assert "error" in other.call("exit")
    front.until(lambda: front.instance("talker") not in {None, old})
    for kind in ("tools", "prompts", "resources"):  # nobody heard what it missed
        assert listener.event().message["method"] == f"notifications/{kind}/list_changed"
    assert listener.event().message["params"] == {"uri": "test://r"}
    other.call("touch", uri="test://r")
    assert listener.event().message["params"] == {"uri": "test://r"}
    listener.stream.leave()
    other.stream.leave()


def test_draining_lets_calls_end_first(front: Face, client: MakeClient) -> None:
    one, idle = opened(client(front, "talker")), opened(client(front, "talker"))
    one.initialize()
    held = {"name": "gated_progress", "arguments": {"gate": "drain"}}
    one.post({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": held})
    front.until(lambda: front.used("talker")[1] == 1)
    front.inside(front.gateway.sse.sweep)
    front.inside(front.gateway.sse.drain)
    assert idle.stream.ended()
    client(front, "talker").initialize("2024-11-05").call("open", gate="drain")
    assert one.answer_to(9)["result"]["content"][0]["text"] == "drain"
    assert one.stream.ended()


def test_draining_does_not_wait_for_what_was_called_off(front: Face, client: MakeClient) -> None:
    one = opened(client(front, "talker"))
    one.initialize()
    held = {"name": "gated_progress", "arguments": {"gate": "off"}}
    one.post({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": held})
    front.until(lambda: front.used("talker")[1] == 1)
    front.inside(front.gateway.sse.drain)
    off = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9}}
    one.post(off)
    assert one.stream.ended()
