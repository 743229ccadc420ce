"""What a stateless request is refused for: each rung with its code and status, over sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.rawhttp import request
from tests.wire.conftest import MakeClient
from tests.wire.faces import ALL, AUTH, Face, face
from tests.wire.mcp_client import (
    ACCEPT,
    CAPABILITIES,
    LEGACY,
    LOG_LEVEL,
    MODERN,
    VERSION,
    Header,
    Json,
    Reply,
    mirror,
    talker,
)

OWN: Final[Json] = {VERSION: MODERN, CAPABILITIES: {}}
TASKS: Final = "io.modelcontextprotocol/tasks"
SCHEMA: Final = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "count": {"type": "integer", "x-mcp-header": "Count"},
    },
}


@pytest.fixture(scope="module", params=ALL)
def front(request: pytest.FixtureRequest) -> Iterator[Face]:
    servers = (
        mirror("modern", "modern"),
        mirror("legacy", "legacy"),
        talker("talker", "modern"),
    )
    with face(request.param, *servers) as running:
        yield running
        running.at_rest()


def routing(
    method: str = "tools/call", *, name: str | None = "x", version: str = MODERN
) -> list[Header]:
    headers = [(b"MCP-Protocol-Version", version.encode()), (b"Mcp-Method", method.encode())]
    return headers if name is None else [*headers, (b"Mcp-Name", name.encode())]


def body(method: str = "tools/call", meta: object = OWN, id: object = "i-1", **more: Any) -> bytes:
    params = {"name": "x", "arguments": {}} | more
    if meta is not None:
        params["_meta"] = meta
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode()


def refused(reply: Reply, status: int, code: int, id: object = "i-1") -> Json:
    message = reply.message
    assert (reply.status, message.get("id"), message["error"]["code"]) == (status, id, code), (
        reply.status,
        message,
    )
    assert message["jsonrpc"] == "2.0"
    error: Json = message["error"]
    return error


RUNG_1: Final[dict[str, object]] = {
    "no _meta": None,
    "_meta is no object": 7,
    "no version": {CAPABILITIES: {}},
    "no capabilities": {VERSION: MODERN},
    "capabilities are no object": {VERSION: MODERN, CAPABILITIES: []},
    "version is no string": {VERSION: 7, CAPABILITIES: {}},
    "unknown log level": OWN | {LOG_LEVEL: "loud"},
}


@pytest.mark.parametrize("meta", RUNG_1.values(), ids=RUNG_1.keys())
def test_rung_1_meta(front: Face, client: MakeClient, meta: object) -> None:
    modern = client(front, "modern")
    refused(modern.send(body(meta=meta), ACCEPT, *routing()), 400, -32602)


RUNG_2: Final[dict[str, list[Header]]] = {
    "no version": [(b"Mcp-Method", b"tools/call"), (b"Mcp-Name", b"x")],
    "no method": [(b"MCP-Protocol-Version", MODERN.encode()), (b"Mcp-Name", b"x")],
    "no name": routing(name=None),
    "other version": routing(version=LEGACY),
    "other method": routing("tools/list"),
    "method in other case": routing("Tools/Call"),
    "other name": routing(name="y"),
    "name twice": [*routing(), (b"Mcp-Name", b"x")],
    "bad base64": routing(name="=?base64?eA?="),
    "base64 of another": routing(name="=?base64?eQ==?="),
}


@pytest.mark.parametrize("headers", RUNG_2.values(), ids=RUNG_2.keys())
def test_rung_2_headers(front: Face, client: MakeClient, headers: list[Header]) -> None:
    refused(client(front, "modern").send(body(), ACCEPT, *headers), 400, -32020)


def test_rung_2_comes_before_the_version(front: Face, client: MakeClient) -> None:
    future = OWN | {VERSION: "2099-01-01"}
    refused(client(front, "modern").send(body(meta=future), ACCEPT, *routing()), 400, -32020)


def test_names_may_be_encoded(front: Face, client: MakeClient) -> None:
    headers = [*routing(name=None), (b"mCp-nAmE", b"  =?base64?eA==?= ")]
    reply = client(front, "modern").send(body(say='"result":{"resultType":"complete"}'), ACCEPT)
    refused(reply, 400, -32020)
    reply = client(front, "modern").send(
        body(say='"result":{"resultType":"complete"}'), ACCEPT, *headers
    )
    assert reply.result == {"resultType": "complete"}


@pytest.mark.parametrize("version", ["2099-01-01", LEGACY, ""])
def test_rung_3_version(front: Face, client: MakeClient, version: str) -> None:
    modern = client(front, "modern")
    meta = OWN | {VERSION: version}
    error = refused(modern.send(body(meta=meta), ACCEPT, *routing(version=version)), 400, -32022)
    assert error["data"] == {"supported": [MODERN], "requested": version}


@pytest.mark.parametrize(
    "method",
    ["initialize", "ping", "logging/setLevel", "resources/subscribe", "tasks/list", "no/such"],
)
def test_rung_4_method(front: Face, client: MakeClient, method: str) -> None:
    reply = client(front, "modern").send(body(method), ACCEPT, *routing(method, name=None))
    refused(reply, 404, -32601)


MIRRORED: Final[dict[str, tuple[Json, list[Header], bool]]] = {
    "both": ({"region": "eu"}, [(b"mcp-param-region", b"eu")], True),
    "neither": ({}, [], True),
    "null": ({"region": None}, [], True),
    "a number": ({"count": 42}, [(b"Mcp-Param-Count", b"42.0")], True),
    "encoded": ({"region": "\u00fc"}, [(b"Mcp-Param-Region", b"=?base64?w7w=?=")], True),
    "unknown header": ({}, [(b"Mcp-Param-Other", b"x")], True),
    "header missing": ({"region": "eu"}, [], False),
    "argument missing": ({}, [(b"Mcp-Param-Region", b"eu")], False),
    "mismatch": ({"region": "eu"}, [(b"Mcp-Param-Region", b"us")], False),
    "other case": ({"region": "eu"}, [(b"Mcp-Param-Region", b"EU")], False),
    "bad padding": ({"region": "Hello"}, [(b"Mcp-Param-Region", b"=?base64?SGVsbG8?=")], False),
    "bad alphabet": (
        {"region": "Hello"},
        [(b"Mcp-Param-Region", b"=?base64?SGVs!!!bG8=?=")],
        False,
    ),
    "twice": ({"region": "eu"}, [(b"Mcp-Param-Region", b"eu")] * 2, False),
}


@pytest.mark.parametrize(("arguments", "headers", "good"), MIRRORED.values(), ids=MIRRORED.keys())
def test_rung_5_mirrored_arguments(
    front: Face, client: MakeClient, arguments: Json, headers: list[Header], good: bool
) -> None:
    modern = client(front, "modern")
    tools = {"tools": [{"name": "x", "inputSchema": SCHEMA}], "resultType": "complete"}
    modern.modern("tools/list", {"say": f'"result":{json.dumps(tools)}'}).result  # noqa: B018
    say = '"result":{"resultType":"complete","content":[]}'
    reply = modern.send(body(arguments=arguments, say=say), ACCEPT, *routing(), *headers)
    if good:
        assert reply.result["content"] == []
    else:
        refused(reply, 400, -32020)


@pytest.mark.parametrize("sent", [[], [(b"Mcp-Param-Region", b"us")]])
def test_rung_5_needs_nobody_to_have_listed_the_tools(
    client: MakeClient, sent: list[Header]
) -> None:
    with face("hot", talker("talker", "modern")) as fresh:
        modern = client(fresh, "talker")
        call = body(arguments={"region": "eu"}, name="regional")
        headers = [ACCEPT, *routing(name="regional")]
        refused(modern.send(call, *headers, *sent), 400, -32020)
        good = modern.send(call, *headers, (b"Mcp-Param-Region", b"eu"))
        assert good.text() == "eu"


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
def test_rung_6_the_tasks_extension(front: Face, client: MakeClient, method: str) -> None:
    modern = client(front, "modern")
    error = modern.modern(method, {"taskId": "t-1"})
    data = refused(error, 400, -32021, id=1)["data"]
    assert data == {"requiredCapabilities": {"extensions": {TASKS: {}}}}
    listen = {"notifications": {"taskIds": ["t-1"]}}
    data = refused(modern.modern("subscriptions/listen", listen), 400, -32021, id=2)["data"]
    assert data == {"requiredCapabilities": {"extensions": {TASKS: {}}}}
    declared: Json = {CAPABILITIES: {"extensions": {TASKS: {}}}}
    refused(modern.modern(method, {"taskId": "t-1"}, meta=declared), 400, -32602, id=3)


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        (-32602, 200, -32602),
        (-32603, 200, -32603),
        (7, 200, 7),
        (-32021, 400, -32021),
        (-32601, 404, -32601),
        (-32020, 200, -32603),
        (-32022, 200, -32603),
    ],
)
def test_errors_of_the_server(
    front: Face, client: MakeClient, code: int, status: int, told: int
) -> None:
    error = f'{{"code":{code},"message":"no \\u00fc","data":{{"a":1.0}}}}'
    reply = client(front, "modern").send(body(say=f'"error":{error}'), ACCEPT, *routing())
    assert reply.status == status
    raw = reply.body
    if told == code:
        assert raw == b'{"jsonrpc":"2.0","id":"i-1","error":%b}' % error.encode()
    else:
        assert json.loads(raw)["error"]["code"] == told
        assert json.loads(raw)["error"]["data"] == {"error": json.loads(error)}


@pytest.mark.parametrize("error", ['"error":"text"', '"error":{"code":"x","message":1}'])
def test_errors_of_no_known_shape_do_not_pass(front: Face, client: MakeClient, error: str) -> None:
    reply = client(front, "modern").send(body(say=error), ACCEPT, *routing())
    assert reply.status == 502
    assert reply.error["data"]["code"] == "upstream_broken"


# ── below the ladder ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ((), 400),
        ((b"*/*",), 400),
        ((b"application/json, text/event-stream;q=0.5",), 400),
        ((b"application/*,text/*",), 400),
        ((b"application/json", b"text/event-stream"), 400),
        ((b"application/json",), 406),
        ((b"text/event-stream",), 406),
        ((b"text/html",), 406),
    ],
)
def test_what_a_client_accepts(
    front: Face, client: MakeClient, accept: tuple[bytes, ...], status: int
) -> None:
    headers = [(b"Accept", value) for value in accept]
    reply = client(front, "modern").send(body(meta=None), *headers, *routing())
    assert reply.status == status
    message = reply.message
    assert message["id"] == "i-1"
    assert message["error"]["code"] in (-32600, -32602)


@pytest.mark.parametrize("path", [b"/servers/modern/mcp", b"/servers/modern/messages"])
def test_another_media_type_is_refused_in_json_rpc(front: Face, path: bytes) -> None:
    text = (b"Content-Type", b"text/plain")
    answer = front.ask(request(path, AUTH, text, method=b"POST", body=b"{}"))
    message = json.loads(answer.body)
    assert (answer.status, message["id"], message["error"]["code"]) == (415, None, -32600)
    assert message["error"]["data"]["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    ("raw", "code", "id"),
    [
        (b"{", -32700, None),
        (b"\xff", -32700, None),
        (b'{"a":"\xff"}', -32700, None),
        (b"[" * 100_000, -32700, None),
        (b'{"params":' * 100_000, -32700, None),
        (b"7", -32600, None),
        (b"{}", -32600, None),
        (b'{"jsonrpc":"1.0","id":1,"method":"tools/list"}', -32600, 1),
        (b'{"id":1,"method":"tools/list"}', -32600, 1),
        (b'{"id":1,"method":"initialize","params":{"capabilities":{}}}', -32600, 1),
        (b'{"method":"notifications/x"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":null,"method":"tools/list"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"tools/list"}', -32600, None),
        (b'{"jsonrpc":"2.0","method":"tools/list"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":"a","method":7}', -32600, "a"),
        (b'{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}', -32600, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"a","m\\u0065thod":"b"}', -32600, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"a","id":2}', -32600, None),
        (b'{"jsonrpc":"2.0","id":1,"method":"a","method":"b","i\\u0064":2}', -32600, None),
        (b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":"x","name":"y"}}', -32600, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"a","params":[]}', -32600, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"notifications/x"}', -32600, 1),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', -32600, 1),
        (b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}', -32600, 1),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600, None),
    ],
)
def test_what_is_no_message(
    front: Face, client: MakeClient, raw: bytes, code: int, id: object
) -> None:
    headers = [ACCEPT, (b"MCP-Protocol-Version", MODERN.encode())]
    refused(client(front, "modern").send(raw, *headers), 400, code, id=id)


def test_notifications_are_taken_and_dropped(front: Face, client: MakeClient) -> None:
    modern = client(front, "talker")
    reply = modern.send(
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}',
        ACCEPT,
        (b"MCP-Protocol-Version", MODERN.encode()),
    )
    assert (reply.status, reply.body) == (202, b"")


@pytest.mark.parametrize("method", [b"GET", b"DELETE"])
def test_other_methods_belong_to_sessions(front: Face, client: MakeClient, method: bytes) -> None:
    modern = client(front, "modern")
    reply = modern.send(b"", (b"MCP-Protocol-Version", MODERN.encode()), method=method)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert modern.send(b"", ACCEPT, method=method).status == 400


def test_unknown_servers(front: Face, client: MakeClient) -> None:
    stranger = client(front, "nowhere")
    for reply in (
        stranger.send(body(), ACCEPT, *routing()),
        stranger.begin(),
        stranger.send(b"", ACCEPT, method=b"GET"),
    ):
        assert reply.status == 404
        assert reply.message["error"]["message"] == "Server 'nowhere' not found"


def test_the_other_era(front: Face, client: MakeClient) -> None:
    error = refused(client(front, "legacy").send(body(), ACCEPT, *routing()), 400, -32022)
    assert MODERN not in error["data"]["supported"]
    assert error["data"]["supported"]
    assert error["data"]["requested"] == MODERN
    reply = client(front, "modern").begin("2025-06-18")
    error = reply.error
    assert error["code"] == -32602
    assert error["data"] == {"supported": [MODERN], "requested": "2025-06-18"}
    assert "mcp-session-id" not in reply.headers


@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE"])
def test_a_key_is_needed_for_each_method(front: Face, method: bytes) -> None:
    body = b"{}" if method == b"POST" else b""
    raw = request(b"/servers/modern/mcp", method=method, body=body)
    assert front.ask(raw, method).status == 401
