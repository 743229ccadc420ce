"""What the protocol carries passes byte for byte, both ways, in both eras, over sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.wire.conftest import MakeClient
from tests.wire.faces import Face, face
from tests.wire.mcp_client import CAPABILITIES, MODERN, VERSION, Client, Json, mirror, talker

ODD: Final = (
    '{ "b":1.0 ,"a":123456789012345678901234567890,"e":1E400,"\\u0041":"\\ud83d\\ude00",'
    '"z":null,"dup":1,"deep":[[[[{"x\\udc00":[]}]]]],"half":"\\ud83d \\\\ud83d",'
    '"slash":"\\/","big":-0.0,"empty":{},"t":true}'
)
METHODS: Final[tuple[tuple[str, Json], ...]] = (
    ("tools/list", {}),
    ("tools/call", {"name": "x", "arguments": {}}),
    ("prompts/list", {}),
    ("prompts/get", {"name": "p", "arguments": {"a": "b"}}),
    ("resources/list", {}),
    ("resources/templates/list", {}),
    ("resources/read", {"uri": "ui://app/\u00fc"}),
    (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": ""}},
    ),
    ("skills/list", {"x": [1, 2]}),
    ("vendor/method", {"x": None}),
)


@pytest.fixture(scope="module")
def front() -> Iterator[Face]:
    servers = (
        mirror("legacy", "legacy"),
        mirror("modern", "modern"),
        talker("talker", "legacy"),
        talker("talker-modern", "modern"),
    )
    with face("hot", *servers) as running:
        yield running
        running.at_rest()


def modern_raw(one: Client, method: str, params: Json, id_: str) -> bytes:
    """A stateless request as text; the whole body of the answer."""
    own = {VERSION: MODERN, CAPABILITIES: {}, "vendor.example/k": {"a": 1.50}}
    named = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}.get(method)
    headers = [
        (b"Accept", b"*/*"),
        (b"MCP-Protocol-Version", MODERN.encode()),
        (b"Mcp-Method", method.encode()),
    ]
    if named is not None:
        value = str(params[named])
        if not value.isascii():
            value = "=?base64?dWk6Ly9hcHAvw7w=?="
        headers.append((b"Mcp-Name", value.encode()))
    text = json.dumps(params | {"_meta": own})
    body = f'{{"jsonrpc":"2.0","id":{id_},"method":"{method}","params":{text}}}'
    return one.send(body.encode(), *headers).body


@pytest.mark.parametrize(("method", "params"), METHODS, ids=[name for name, _ in METHODS])
def test_results_pass_byte_for_byte(
    front: Face, client: MakeClient, method: str, params: Json
) -> None:
    say = params | {"say": f'"result":{ODD}'}
    one = client(front, "legacy").initialize()
    expected = f'{{"jsonrpc":"2.0","id":"x","result":{ODD}}}'.encode()
    assert one.ask(method, say, id="x").body == expected
    assert modern_raw(client(front, "modern"), method, say, '"x"') == expected


@pytest.mark.parametrize(("method", "params"), METHODS, ids=[name for name, _ in METHODS])
def test_errors_pass_byte_for_byte(
    front: Face, client: MakeClient, method: str, params: Json
) -> None:
    error = f'"error":{{"code":-32042,"message":"\\u00fc","data":{ODD},"more":1}},"extra":{ODD}'
    one = client(front, "legacy").initialize()
    expected = f'{{"jsonrpc":"2.0","id":7,{error}}}'.encode()
    assert one.ask(method, params | {"say": error}, id=7).body == expected
    assert modern_raw(client(front, "modern"), method, params | {"say": error}, "7") == expected


def test_requests_pass_but_for_what_belongs_to_a_connection(
    front: Face, client: MakeClient
) -> None:
    arguments = ODD.replace('"dup":1,', "")
    meta = {"vendor.example/k": {"a": 1.5}, "traceparent": "00-1-2-01", "x": None}
    text = (
        f'{{"name":"x","arguments":{arguments},"task":{{"ttl":1}},"more":{arguments},'
        f'"_meta":{json.dumps(meta)},"say":"\\"result\\":{{}}"}}'
    )
    one = client(front, "legacy").initialize()
    body = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{text}}}'
    assert one.send(body.encode(), *one.headers()).result == {}
    sent = one.ask("test/last").result["line"]
    assert sent.count(arguments) == 2
    assert json.loads(sent)["params"]["_meta"] == meta
    assert json.loads(sent)["params"]["task"] == {"ttl": 1}


def last(one: Client, name: str) -> Json:
    line: str = one.modern("test/last", {}).result["line"]
    found: Json = json.loads(line)["params"]
    assert found["name"] == name
    return found


def test_stateless_requests_say_what_their_client_can_do(front: Face, client: MakeClient) -> None:
    one = client(front, "modern")
    told = {
        CAPABILITIES: {"elicitation": {"url": {}}, "extensions": {"x.example/y": {"a": 1.0}}},
        "io.modelcontextprotocol/logLevel": "warning",
        "io.modelcontextprotocol/clientInfo": {"name": "test-client", "version": "9"},
        "baggage": "a=b",
    }
    params = {"name": "x", "arguments": {}, "say": '"result":{"resultType":"complete"}'}
    assert one.modern("tools/call", params, meta=told).status == 200
    meta = last(one, "x")["_meta"]
    for name in (CAPABILITIES, "io.modelcontextprotocol/logLevel", "baggage"):
        assert meta[name] == told[name]
    assert meta["io.modelcontextprotocol/clientInfo"]["name"] == "open-mcp-gateway"
    assert meta[VERSION] == MODERN


def test_every_page_to_the_last(front: Face, client: MakeClient) -> None:
    one, two = client(front, "legacy").initialize(), client(front, "modern")

    def say(page: int) -> Json:
        result: Json = {"resultType": "complete", "tools": [{"name": str(page)}]}
        if page < 3:
            result["nextCursor"] = "" if page == 1 else f"c {page}\u00fc"
        return {"say": '"result":' + json.dumps(result)}

    for ask in (one.ask, two.modern):
        names, cursor, page = [], None, 0
        while True:
            more: Json = {} if cursor is None else {"cursor": cursor}
            result: Any = ask("tools/list", say(page) | more).result
            names += [tool["name"] for tool in result["tools"]]
            page += 1
            if "nextCursor" not in result:
                break
            cursor = result["nextCursor"]
        assert names == ["0", "1", "2", "3"]
        for bad in ("c 9", 7):
            refused = ask("tools/list", {"cursor": bad})
            assert refused.error["code"] == -32602


def test_notifications_of_the_server_pass_byte_for_byte(front: Face, client: MakeClient) -> None:
    one = client(front, "legacy").initialize(roots={})
    note = f'{{"jsonrpc":"2.0","method":"notifications/vendor","params":{ODD}}}'
    question = f'{{"jsonrpc":"2.0","id":"s","method":"vendor/ask","params":{ODD}}}'
    reply = one.ask("tools/call", {"name": "x", "first": [note, question], "say": '"result":{}'})
    events = [event.data for event in reply.events() if event.data]
    assert events[0] == note.encode()
    assert events[1] == f'{{"jsonrpc":"2.0","id":1,"method":"vendor/ask","params":{ODD}}}'.encode()
    answer = f'{{"jsonrpc":"2.0","id":1,"result":{ODD}}}'
    assert one.send(answer.encode(), *one.headers()).status == 202
    line = one.ask("test/last").result["line"]
    assert line == f'{{"jsonrpc":"2.0","id":"s","result":{ODD}}}'
    reply = one.ask("tools/call", {"name": "x", "first": [question], "say": '"result":{}'})
    list(reply.events())
    refusal = '{"jsonrpc":"2.0","id":2,"error":{"code":-1,"message":"no","data":1.0}}'
    assert one.send(refusal.encode(), *one.headers()).status == 202
    line = one.ask("test/last").result["line"]
    assert line == refusal.replace('"id":2', '"id":"s"')
    one.end()


def test_notifications_of_the_client_pass(front: Face, client: MakeClient) -> None:
    owner = client(front, "talker").initialize(roots={"listChanged": True})
    owner.notify("notifications/roots/list_changed")
    owner.notify("notifications/progress", {"progressToken": "server's", "progress": 1.5})
    owner.notify("notifications/vendor", {"x": 1})
    seen = [m["method"] for m in owner.ask("test/seen").result["seen"]]
    assert seen[-3:] == [
        "notifications/roots/list_changed",
        "notifications/progress",
        "notifications/vendor",
    ]
    shared = client(front, "talker").initialize()
    shared.notify("notifications/roots/list_changed")
    shared.notify("notifications/vendor", {"from": "shared"})
    seen = [m["method"] for m in shared.ask("test/seen").result["seen"]]
    assert seen[-1] == "notifications/vendor"
    assert "notifications/roots/list_changed" not in seen
    for each in (owner, shared):
        each.end()


# ── logging levels ───────────────────────────────────────────────────────────────────────────────


def levels_of(one: Client) -> list[str]:
    """What the server was told of levels."""
    seen = one.ask("test/seen").result["seen"]
    return [m["params"]["level"] for m in seen if m.get("method") == "logging/setLevel"]


def hears(one: Client, level: str) -> bool:
    return one.call("log", level=level, data=level).is_stream


def test_levels_of_a_session_that_shares(front: Face, client: MakeClient) -> None:
    one, two = (client(front, "talker").initialize("2025-03-26") for _ in range(2))
    assert one.ask("logging/setLevel", {"level": "error"}).result == {}
    assert (hears(one, "warning"), hears(one, "error")) == (False, True)
    assert hears(two, "info")
    assert two.ask("logging/setLevel", {"level": "debug"}).result == {}
    assert one.ask("logging/setLevel", {"level": "warning"}).result == {}
    assert (hears(one, "info"), hears(one, "warning"), hears(two, "debug")) == (False, True, True)
    # The server is only ever told of a level that somebody needs more than it sends already.
    assert levels_of(one) == ["info", "debug"]
    assert one.ask("logging/setLevel", {"level": "loud"}).error["code"] == -32602
    assert one.ask("logging/setLevel").error["code"] == -32602
    assert hears(one, "unknown level")
    for each in (one, two):
        each.end()


def test_levels_of_a_session_of_its_own(front: Face, client: MakeClient) -> None:
    one = client(front, "talker").initialize(roots={})
    for level in ("error", "info"):
        assert one.ask("logging/setLevel", {"level": level}).result == {}
    assert levels_of(one) == ["error", "info"]
    assert (hears(one, "debug"), hears(one, "info")) == (False, True)
    one.end()


def test_a_refused_level_changes_nothing(front: Face, client: MakeClient) -> None:
    one = client(front, "legacy").initialize()
    refused = one.ask("logging/setLevel", {"level": "error"})
    assert refused.error["code"] == -32601
    again = one.ask("logging/setLevel", {"level": "error"})
    assert again.error["code"] == -32601
    one.end()


def test_stateless_levels(front: Face, client: MakeClient) -> None:
    one = client(front, "talker-modern")
    assert not one.tool("log", level="info", data="x").is_stream
    wanted = {"io.modelcontextprotocol/logLevel": "debug"}
    reply = one.tool("log", level="info", data="x", meta=wanted)
    assert reply.next()["params"] == {"level": "info", "logger": "test", "data": "x"}


# ── a server that went away in between ───────────────────────────────────────────────────────────


def test_a_new_process_is_told_what_the_old_one_was(client: MakeClient) -> None:
    with face("hot", talker("talker", "legacy")) as running:
        one, two = (client(running, "talker").initialize() for _ in range(2))
        assert one.ask("resources/subscribe", {"uri": "test://x"}).result == {}
        assert one.ask("logging/setLevel", {"level": "debug"}).result == {}
        stream, other = one.listen(), two.listen()
        assert two.call("exit").error["code"] == -32603
        assert two.call("touch", uri="test://x").text() == "touched"
        assert one.call("touch", uri="test://x").text() == "touched"
        for reply in (stream, other):  # nobody heard what they missed
            for kind in ("tools", "prompts", "resources"):
                assert reply.next()["method"] == f"notifications/{kind}/list_changed"
        for _ in range(2):
            assert stream.next()["params"] == {"uri": "test://x"}
        assert hears(one, "debug")
        assert other.is_silent(0.02)
        assert running.used("talker") == (1, 0)  # held, for the one that subscribed
        assert one.ask("resources/unsubscribe", {"uri": "test://x"}).result == {}
        assert running.used("talker") == (0, 0)
        for each in (one, two):
            each.end()
        stream.leave()
        other.leave()


def test_a_refused_subscription_is_none(front: Face, client: MakeClient) -> None:
    one = client(front, "legacy").initialize()
    assert one.ask("resources/subscribe", {"uri": "test://x"}).error["code"] == -32601
    assert front.used("legacy") == (0, 0)
    assert one.ask("resources/subscribe").error["code"] == -32601
    one.end()
