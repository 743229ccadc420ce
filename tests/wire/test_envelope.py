"""``POST /mcp``: what is inside the envelope, how it is refused, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.rawhttp import Answer, request
from tests.wire.faces import ALL, AUTH, JSON, Face, call, echo, echoed, face, server

PING: Final = b'"server_id":"echo","method":"ping"'


@pytest.fixture(scope="module", params=ALL)
def front(request: pytest.FixtureRequest) -> Iterator[Face]:
    servers = (
        server("echo", "echo"),
        server("modern", "echo_modern"),
        server("mute", "never_answers", request_timeout_seconds=1),
        server("crash", "crash_mid_call"),
        server("killed", "killed_mid_call"),
        server("broken", "crash_at_start"),
        server("slow", "slow_start", request_timeout_seconds=1, env={"TEST_SLOW_START_S": "30"}),
    )
    with face(request.param, *servers) as running:
        yield running
        running.at_rest()


def post(front: Face, body: bytes, *headers: tuple[bytes, bytes], path: bytes = b"/mcp") -> Answer:
    media = () if any(name == b"Content-Type" for name, _ in headers) else (JSON,)
    return front.ask(request(path, AUTH, *media, *headers, method=b"POST", body=body))


def failure(answer: Answer, status: int, code: int, reason: str) -> dict[str, Any]:
    """The JSON-RPC error response in ``answer``, with what every one of them has."""
    assert answer.status == status, answer
    assert answer.all("content-type") == ["application/json"]
    message: dict[str, Any] = json.loads(answer.body)
    assert set(message) == {"jsonrpc", "id", "error"}
    assert message["jsonrpc"] == "2.0"
    assert message["error"]["code"] == code
    assert message["error"]["data"]["code"] == reason
    assert message["error"]["data"]["request_id"] == answer.all("x-request-id")[0]
    return message


# Ids

IDS: Final = [
    b"0",
    b"-0",
    b"7",
    b"-7",
    b"9007199254740993",
    b"-123456789012345678901234567890",
    b'""',
    b'"a"',
    b'"1"',
    b'"\\u0061\\/\\n"',
    b'"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"',
    b'"\\ud83d\\ude00"',
    b'"},\\"id\\":1"',
]


@pytest.mark.parametrize("raw_id", IDS, ids=range(len(IDS)))
def test_ids_come_back_byte_for_byte(front: Face, raw_id: bytes) -> None:
    good = post(front, b'{%b,"id":%b}' % (PING, raw_id))
    assert (good.status, good.body) == (200, b'{"jsonrpc":"2.0","id":%b,"result":{}}' % raw_id)
    unknown = post(front, b'{"server_id":"nobody","method":"ping","id":%b}' % raw_id)
    assert unknown.status == 404
    assert unknown.body.startswith(b'{"jsonrpc":"2.0","id":%b,"error":' % raw_id)
    incomplete = post(front, b'{"server_id":"echo","id":%b}' % raw_id)
    assert incomplete.status == 400
    assert incomplete.body.startswith(b'{"jsonrpc":"2.0","id":%b,"error":' % raw_id)


def test_an_id_of_a_megabyte(front: Face) -> None:
    raw_id = b'"' + b"i" * 1_000_000 + b'"'
    assert post(front, b'{%b,"id":%b}' % (PING, raw_id)).body == (
        b'{"jsonrpc":"2.0","id":%b,"result":{}}' % raw_id
    )


@pytest.mark.parametrize("raw_id", [b"null", b"true", b"1.0", b"1e3", b"[]", b"{}", b"[1]"])
def test_what_is_no_id(front: Face, raw_id: bytes) -> None:
    answer = post(front, b'{%b,"id":%b}' % (PING, raw_id))
    message = failure(answer, 400, -32600, "invalid_request")
    assert message["id"] is None
    assert "'id'" in message["error"]["message"]


def test_a_request_without_id_gets_one(front: Face) -> None:
    made = [json.loads(post(front, b"{%b}" % PING).body)["id"] for _ in range(3)]
    assert len(set(made)) == 3
    assert all(isinstance(one, str) and one for one in made)


@pytest.mark.parametrize("server_id", ["echo", "modern"])
def test_the_same_id_twice_at_the_same_time(front: Face, server_id: str) -> None:
    """Ids belong to their connection: two callers with the same one get each their own answer."""
    with front.connect() as one, front.connect() as other:
        one.send(echo("one", server_id=server_id) * 20)
        other.send(echo("other", server_id=server_id) * 20)
        assert [echoed(one.receive()) for _ in range(20)] == [(1, "one")] * 20
        assert [echoed(other.receive()) for _ in range(20)] == [(1, "other")] * 20


# What is no message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"}",
        b"hello",
        b"{'server_id':'echo'}",
        b"{%b,}" % PING,
        b"{%b}x" % PING,
        b"{%b}{%b}" % (PING, PING),
        b"\xef\xbb\xbf{%b}" % PING,
        b'{%b,"id":"\xff"}' % PING,
        b'{%b,"params":{"a":"\xc3"}}' % PING,
        b'{%b,"params":{"a":"\xed\xa0\x80"}}' % PING,
        b'{%b,"params":{"a":01}}' % PING,
        b'{%b,"params":{"a":NaN}}' % PING,
        b'{%b,"params":{"a":"\x01"}}' % PING,
        "{}".encode("utf-16"),
    ],
    ids=range(17),
)
def test_not_json(front: Face, body: bytes) -> None:
    assert failure(post(front, body), 400, -32700, "malformed")["id"] is None


@pytest.mark.parametrize(
    "nested",
    [
        b'{"server_id":' + b"[" * 200_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{%b,"params":{"a":%b}}' % (PING, b"[" * 100_000 + b"]" * 100_000),
        b'{%b,"other":%b}' % (PING, b"[" * 100_000 + b"]" * 100_000),
        b'{"server_id":%b}' % (b"[" * 100_000 + b"]" * 100_000),
    ],
    ids=["open", "object", "params", "unknown member", "server_id"],
)
def test_nested_too_deeply(front: Face, nested: bytes) -> None:
    failure(post(front, nested), 400, -32700, "malformed")
    assert front.ask(echo("still there")).status == 200


@pytest.mark.parametrize(
    "body", [b"[]", b"[" * 200_000, b"[{%b}]" % PING, b"null", b"1", b'"text"', b"true"]
)
def test_json_but_no_object(front: Face, body: bytes) -> None:
    assert failure(post(front, body), 400, -32600, "invalid_request")["id"] is None


@pytest.mark.parametrize(
    ("members", "says"),
    [
        (b'"server_id":"echo","id":5', "'method' is missing"),
        (b'"server_id":"echo","id":5,"method":1', "'method' must be a non-empty string"),
        (b'"server_id":"echo","id":5,"method":""', "'method' must be a non-empty string"),
        (b'"server_id":"echo","id":5,"method":null', "'method' must be a non-empty string"),
        (b'%b,"id":5,"params":[]' % PING, "'params' must be a JSON object"),
        (b'%b,"id":5,"params":"x"' % PING, "'params' must be a JSON object"),
        (b'%b,"id":5,"params":1' % PING, "'params' must be a JSON object"),
        (b'%b,"id":5,"jsonrpc":"1.0"' % PING, "'jsonrpc' must be \"2.0\""),
        (b'%b,"id":5,"jsonrpc":2.0' % PING, "'jsonrpc' must be \"2.0\""),
        (b'"server_id":1,"id":5,"method":"ping"', "'server_id' must be a non-empty string"),
        (b'"server_id":null,"id":5,"method":"ping"', "'server_id' must be a non-empty string"),
        (b'"server_id":"","id":5,"method":"ping"', "'server_id' must be a non-empty string"),
        (b'"server_id":["echo"],"id":5,"method":"ping"', "'server_id' must be a non-empty string"),
        (b'"id":5,"method":"ping"', "put 'server_id' into the object"),
        (b'"jsonrpc":"2.0","id":5,"method":"initialize","params":{}', "put 'server_id' into"),
    ],
)
def test_an_incomplete_message_is_told_what_is_missing(
    front: Face, members: bytes, says: str
) -> None:
    message = failure(post(front, b"{%b}" % members), 400, -32600, "invalid_request")
    assert says in message["error"]["message"]
    assert message["id"] == 5


@pytest.mark.parametrize(
    "members",
    [
        b'%b,"id":1,"id":2' % PING,
        b'%b,"method":"tools/list"' % PING,
        b'"server_id":"modern",%b' % PING,
        b'"server\\u005fid":"modern",%b' % PING,
        b'%b,"meth\\u006fd":"tools/list"' % PING,
        b'%b,"jsonrpc":"2.0","jsonrpc":"2.0"' % PING,
        b'%b,"params":{},"params":{}' % PING,
        b'%b,"params":{"name":"a","name":"b"}' % PING,
        b'%b,"params":{"name":"a","n\\u0061me":"b"}' % PING,
        b'%b,"params":{"_meta":{},"_meta":{}}' % PING,
        b'%b,"params":{"uri":"a","uri":"a"}' % PING,
    ],
)
def test_a_member_that_counts_stands_there_once(front: Face, members: bytes) -> None:
    message = failure(post(front, b"{%b}" % members), 400, -32600, "invalid_request")
    assert "appears twice" in message["error"]["message"]


def test_twins_that_nobody_reads_pass(front: Face) -> None:
    arguments = b'{"text":"a","text":"b","server_id":1,"server_id":2}'
    members = b'"server_id":"echo","method":"tools/call","id":1'
    body = b'{%b,"params":{"name":"echo","arguments":%b}}' % (members, arguments)
    assert echoed(post(front, body)) == (1, "b")


@pytest.mark.parametrize("members", [b'"jsonrpc":"2.0"', b'"params":null', b'"extra":{"a":[1]}'])
def test_what_may_be_there_or_not(front: Face, members: bytes) -> None:
    answer = post(front, b'{%b,"id":1,%b}' % (PING, members))
    assert answer.body == b'{"jsonrpc":"2.0","id":1,"result":{}}'


# Media types


@pytest.mark.parametrize(
    "media",
    [
        b"application/json",
        b"application/json; charset=utf-8",
        b"Application/JSON;charset=UTF-8",
        b"application/json ; x=y",
    ],
)
def test_json_by_its_own_account(front: Face, media: bytes) -> None:
    assert post(front, b"{%b}" % PING, (b"Content-Type", media)).status == 200


def test_no_account_at_all_will_do(front: Face) -> None:
    raw = request(b"/mcp", AUTH, method=b"POST", body=b"{%b}" % PING)
    assert front.ask(raw).status == 200


@pytest.mark.parametrize(
    "media",
    [
        b"text/plain",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=x",
        b"application/jsonp",
        b"application/json-rpc",
        b"text/json",
        b"",
    ],
)
@pytest.mark.parametrize("path", [b"/mcp", b"/rpc"])
def test_other_media(front: Face, media: bytes, path: bytes) -> None:
    answer = post(front, b"{%b}" % PING, (b"Content-Type", media), path=path)
    assert answer.status == 415
    body = json.loads(answer.body)
    assert body["code"] == "unsupported_media_type"
    assert "Content-Type: application/json" in body["message"]


@pytest.mark.parametrize("second", [b"text/plain", b"application/json"])
def test_two_media_types_are_none(front: Face, second: bytes) -> None:
    answer = post(front, b"{%b}" % PING, JSON, (b"Content-Type", second))
    assert answer.status == 400
    assert "Content-Type is there twice" in json.loads(answer.body)["message"]


def test_media_come_before_syntax_and_after_size(front: Face) -> None:
    text = (b"Content-Type", b"text/plain")
    assert post(front, b"not json", text).status == 415
    too_long = request(b"/mcp", AUTH, text, (b"Content-Length", b"99999999"), method=b"POST")
    assert front.ask(too_long).status == 413


# What the server says


def test_results_pass_byte_for_byte(front: Face) -> None:
    text = 'é\u2028€😀 "quoted" \\ /\n\t'
    assert echoed(front.ask(echo(text))) == (1, text)


def test_errors_of_the_server_are_answers(front: Face) -> None:
    answer = front.ask(call("echo", method="no/such", message_id="x"))
    assert answer.status == 200
    assert json.loads(answer.body) == {
        "jsonrpc": "2.0",
        "id": "x",
        "error": {"code": -32601, "message": "Method not found: no/such"},
    }


def test_an_unknown_server(front: Face) -> None:
    message = failure(front.ask(call("nobody", message_id="x")), 404, -32001, "not_found")
    assert message["id"] == "x"
    assert message["error"]["message"] == "Server 'nobody' not found"


@pytest.mark.parametrize("name", ["../echo", "echo ", "ECHO", "é", "a" * 10_000, "\0"])
def test_odd_names_of_servers(front: Face, name: str) -> None:
    failure(front.ask(call(name)), 404, -32001, "not_found")


@pytest.mark.parametrize("server_id", ["crash", "killed"])
def test_a_crash_in_the_middle_of_a_call(front: Face, server_id: str) -> None:
    raw = call(server_id, params={"name": "x"}, message_id="x")
    message = failure(front.ask(raw), 502, -32603, "upstream_broken")
    assert message["id"] == "x"
    assert "Server" in message["error"]["message"]


def test_a_server_that_does_not_start(front: Face) -> None:
    message = failure(front.ask(call("broken", message_id=9)), 502, -32002, "upstream_unavailable")
    assert message["id"] == 9


def test_no_answer_in_time(front: Face) -> None:
    front.start("mute")
    raw = call("mute", params={"name": "x"}, message_id="late")
    message = failure(front.ask(raw), 504, -32603, "upstream_timeout")
    assert message["id"] == "late"
    front.at_rest()
    (cancelled,) = [
        one for one in front.seen("mute") if one["method"] == "notifications/cancelled"
    ][-1:]
    assert isinstance(cancelled["params"]["requestId"], int)


def test_no_start_in_time(front: Face) -> None:
    message = failure(front.ask(call("slow", message_id="s")), 504, -32603, "upstream_timeout")
    assert message["id"] == "s"
    assert "goes on starting" in message["error"]["message"]


# Notifications


def test_notifications_are_accepted_and_passed_on(front: Face) -> None:
    for number in range(2):
        body = b'{"server_id":"echo","method":"notifications/custom","params":{"n":%d}}' % number
        answer = post(front, body)
        assert (answer.status, answer.body) == (202, b"")
        assert answer.all("content-type") == []
    seen = [one for one in front.seen("echo") if one["method"] == "notifications/custom"]
    assert [one["params"] for one in seen] == [{"n": 0}, {"n": 1}]


@pytest.mark.parametrize("raw_id", [b"", b',"id":1', b',"id":"x"'])
def test_a_notification_has_no_id_whatever_it_says(front: Face, raw_id: bytes) -> None:
    body = b'{"server_id":"echo","method":"notifications/odd"%b}' % raw_id
    assert post(front, body).status == 202
    assert all("id" not in one for one in front.seen("echo"))


@pytest.mark.parametrize("what", ["initialized", "cancelled", "progress", "roots/list_changed"])
def test_notifications_about_the_connection_end_here(front: Face, what: str) -> None:
    before = front.seen("echo")
    params = {"requestId": 1, "progressToken": 1, "progress": 1}
    answer = front.ask(call("echo", method=f"notifications/{what}", params=params))
    assert (answer.status, answer.body) == (202, b"")
    assert front.seen("echo") == before


def test_a_notification_to_nobody(front: Face) -> None:
    body = b'{"server_id":"nobody","method":"notifications/custom"}'
    assert failure(post(front, body), 404, -32001, "not_found")["id"] is None


# The handshake is the gateway's

OPENING: Final = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


@pytest.mark.parametrize("server_id", ["echo", "modern"])
def test_initialize_is_answered_from_the_handshake(front: Face, server_id: str) -> None:
    answer = front.ask(call(server_id, method="initialize", params=OPENING, message_id="i"))
    assert answer.status == 200
    message = json.loads(answer.body)
    assert message["id"] == "i"
    result = message["result"]
    assert set(result) >= {"protocolVersion", "capabilities", "serverInfo"}
    assert result["capabilities"] == {"tools": {}}
    assert [one for one in front.seen(server_id) if one["method"].endswith("initialized")] == (
        [{"jsonrpc": "2.0", "method": "notifications/initialized"}] if server_id == "echo" else []
    )


def test_what_belongs_to_the_connection_does_not_pass(front: Face) -> None:
    params = {
        "kept": {"a": 1},
        "_meta": {
            "progressToken": "p",
            "io.modelcontextprotocol/protocolVersion": "1999-01-01",
            "io.modelcontextprotocol/clientCapabilities": {"sampling": {}},
            "io.modelcontextprotocol/clientInfo": {"name": "evil", "version": "1"},
            "io.modelcontextprotocol/logLevel": "debug",
            "example.com/kept": [1],
        },
    }
    answer = front.ask(call("modern", method="test/last_request", params=params, message_id="own"))
    sent = json.loads(answer.body)["result"]["request"]
    assert sent["params"]["kept"] == {"a": 1}
    meta = sent["params"]["_meta"]
    assert meta["example.com/kept"] == [1]
    assert "progressToken" not in meta
    assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert meta["io.modelcontextprotocol/clientCapabilities"] == {}
    assert "evil" not in json.dumps(meta)
    assert "io.modelcontextprotocol/logLevel" not in meta
    assert isinstance(sent["id"], int)
    assert set(sent) == {"jsonrpc", "id", "method", "params"}


def test_mcp_headers_change_nothing(front: Face) -> None:
    odd = (
        (b"Mcp-Session-Id", b"somebody-elses"),
        (b"MCP-Protocol-Version", b"1999-01-01"),
        (b"Mcp-Method", b"tools/list"),
        (b"Accept", b"text/event-stream"),
        (b"X-Server-ID", b"modern"),
    )
    answer = post(front, b'{%b,"id":1}' % PING, *odd)
    assert answer.body == b'{"jsonrpc":"2.0","id":1,"result":{}}'
